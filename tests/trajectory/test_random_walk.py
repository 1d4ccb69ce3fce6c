import math

import pytest
import torch

from thalweg.trajectory import WalkNull, fit_rank1, random_walk_null
from thalweg.trajectory.random_walk import line_through_walk, walk_gram


def test_limits():
    k = torch.arange(1, 6, dtype=torch.float64)
    centred = 6 / (math.pi * k) ** 2
    uncentred = 8 / (math.pi * (2 * k - 1)) ** 2
    torch.testing.assert_close(random_walk_null(2000)[:5], centred, rtol=2e-3, atol=0)
    torch.testing.assert_close(
        random_walk_null(2000, center=False)[:5], uncentred, rtol=2e-3, atol=0
    )
    assert int((random_walk_null(60).cumsum(0) < 0.9).sum()) + 1 == 6
    null = line_through_walk(range(1, 2001))
    assert isinstance(null, WalkNull)
    assert null.explained == pytest.approx(0.8106, abs=1e-3)
    r2 = (4 / math.pi**2 - 1 / math.pi) ** 2 * 12 / (1 / 2 - 4 / math.pi**2)
    assert null.r2 == pytest.approx(r2, abs=1e-3) and r2 == pytest.approx(0.9584, abs=1e-4)


@pytest.mark.parametrize("center", [True, False])
def test_simulated_walks(center):
    steps = [1, 2, 4, 8, 16, 32]
    g = torch.Generator().manual_seed(0)
    walk = torch.randn(32, 20_000, generator=g).double().cumsum(0)[[s - 1 for s in steps]]
    if center:
        walk = walk - walk.mean(0)
    energy = torch.linalg.svdvals(walk).square()
    torch.testing.assert_close(
        random_walk_null(6, center, steps=steps), energy / energy.sum(), rtol=0, atol=0.01
    )


def test_a_path_of_noise_is_told_from_its_null():
    """A walk of a hundred thousand weights looks like one direction and a line, as foretold."""
    g = torch.Generator().manual_seed(1)
    walk = torch.randn(41, 100_000, generator=g).cumsum(0) - 0.0
    model = fit_rank1([{"w": row} for row in walk])
    null = model.null_report()
    assert model.explained_variance["w"] == pytest.approx(null.explained, abs=0.02)
    assert model.r2["w"] == pytest.approx(null.r2, abs=0.01)
    assert walk_gram([3, 5], base_step=1).tolist() == [[2.0, 2.0], [2.0, 4.0]]


@pytest.mark.parametrize(
    ("n", "steps"), [(1, None), (3, [1, 2]), (3, [2, 1, 3]), (2, [0, 1]), (2, [1, 1])]
)
def test_bad_input(n, steps):
    with pytest.raises(ValueError, match="random_walk_null"):
        random_walk_null(n, steps=steps)
