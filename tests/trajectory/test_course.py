import math

import pytest
import torch

from thalweg.trajectory import Course
from thalweg.trajectory.course import directions, fitted, line_weights, r_squared

T = torch.arange(1, 9, dtype=torch.float64)


def test_the_fits_reproduce_their_own_kind():
    line, parabola = 3 * T - 2, T**2 - T + 0.5
    sine = 2 + torch.sin(0.9 * T + 0.3)
    far = torch.tensor([20.0, 31.5], dtype=torch.float64)
    for fit, c, expected in (
        ("linear", line, 3 * far - 2),
        ("polynomial", parabola, far**2 - far + 0.5),
        ("sinusoid", sine, 2 + torch.sin(0.9 * far + 0.3)),
    ):
        torch.testing.assert_close(
            fitted(T, c[:, None], far, fit)[:, 0], expected, atol=1e-6, rtol=1e-6
        )
        assert r_squared(T, c, fit) == pytest.approx(1)
    assert r_squared(T, parabola, "linear") < 0.99
    assert r_squared(T, torch.ones(8).double(), "linear") == 1


def test_a_line_through_every_coordinate():
    M = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)).double()
    slope, offset = torch.linalg.lstsq(torch.stack([T, torch.ones(8)], 1).double(), M).solution
    torch.testing.assert_close(line_weights(T, 20.0) @ M, 20 * slope + offset)


def test_full_rank_is_that_line():
    M = torch.randn(4, 9, generator=torch.Generator().manual_seed(0)).double()
    w = Course(rank=4).weights(M @ M.T, T[:4], 11.0)
    torch.testing.assert_close(w, line_weights(T[:4], 11.0))


@pytest.mark.parametrize("center", [True, False])
def test_directions_are_those_of_the_svd(center):
    M = torch.randn(6, 30, generator=torch.Generator().manual_seed(0)).double()
    U, S = directions(M @ M.T, 3, center=center)
    shifted = M - M.mean(0) if center else M
    exact = torch.linalg.svd(shifted, full_matrices=False)
    torch.testing.assert_close(S, exact.S[:3])
    torch.testing.assert_close((U * exact.U[:, :3]).sum(0).abs(), torch.ones(3).double())
    assert bool((U.sum(0) >= -1e-12).all())


def test_centred_paths_keep_their_mean():
    M = torch.randn(5, 30, generator=torch.Generator().manual_seed(0)).double()
    M = torch.outer(T[:5], M[0]) + M[1]  # a line, not from the base
    w = Course(center=True).weights(M @ M.T, T[:5], 50.0)
    torch.testing.assert_close(w @ M, 50 * (M[1] - M[0]) + (M[0] * 2 - M[1]), atol=1e-6, rtol=1e-6)


def test_autoregression_carries_a_line_on_and_bends_with_the_window():
    G = torch.outer(T, T)
    for every in (1, 3):
        w = Course(refit_every=every).weights(G, T, 40.0)
        assert float(w @ T) == pytest.approx(40)
        assert float(Course(refit_every=every).weights(G, T, 8.5) @ T) == pytest.approx(8.5)


def test_the_window_sees_the_end_only():
    c = torch.cat([torch.zeros(4), torch.arange(1.0, 5.0)]).double()
    w = Course(window=3).weights(torch.outer(c, c), T, 10.0)
    assert float(w @ c) == pytest.approx(6)


def test_a_tensor_that_never_moved_stays():
    assert Course().weights(torch.zeros(8, 8), T, 100.0).tolist() == [0.0] * 8


@pytest.mark.parametrize(
    "options",
    [
        {"rank": 0},
        {"window": 1},
        {"refit_every": 0},
        {"fit": "cubic"},
        {"fit": "polynomial", "window": 2},
    ],
)
def test_bad_options(options):
    with pytest.raises(ValueError, match=r"need rank|fit must be"):
        Course(**options)


def test_a_quarter_of_a_period_is_enough_for_a_sine():
    slow = torch.sin(0.2 * T)
    ahead = fitted(T, slow[:, None], torch.tensor([20.0]).double(), "sinusoid")
    assert float(ahead) == pytest.approx(math.sin(4.0), abs=1e-6)
