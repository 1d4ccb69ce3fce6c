import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.theory import frozen_fraction
from thalweg.theory.linear_modes import drawn_modes, limit_modes


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 1000))
def test_frozen_directions_are_those_that_no_sample_has(N, P, seed):
    X = torch.randn(P, N, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert frozen_fraction(X) == pytest.approx(max(0, 1 - P / N))
    assert frozen_fraction(torch.cat([X, X])) == pytest.approx(max(0, 1 - P / N))
    modes = drawn_modes(torch.linalg.eigvalsh(X.T @ X))
    assert modes.frozen == pytest.approx(frozen_fraction(X))


def test_tolerance_and_no_samples():
    X = torch.diag(torch.tensor([1.0, 1e-3]))
    assert frozen_fraction(X) == 0 and frozen_fraction(X, 1e-2) == 0.5
    assert frozen_fraction(torch.zeros(0, 3)) == 1 == frozen_fraction(torch.zeros(2, 3))


def test_the_limit_is_what_spectra_tend_to():
    limit = limit_modes(0.5)
    X = torch.randn(300, 600, generator=torch.Generator().manual_seed(0)).double() / 600**0.5
    drawn = drawn_modes(torch.linalg.eigvalsh(X.T @ X))
    assert drawn.alpha == limit.alpha == 0.5 == drawn.frozen
    # 1/N fluctuations of linear statistics, with a heavier tail for 1/λ.
    assert (drawn.share * drawn.lam).sum().item() == pytest.approx(
        (limit.share * limit.lam).sum().item(), rel=0.02
    )
    assert drawn.inverse == pytest.approx(limit.inverse, rel=0.05)


def test_inputs_of_any_variance_rescale_the_eigenvalues_and_what_they_count():
    a, b = limit_modes(2.0), limit_modes(2.0, 50, 3 / 50)
    assert torch.allclose(b.lam, 3 * a.lam) and torch.allclose(b.gain, 3 * a.gain)
    assert b.inverse == a.inverse


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: drawn_modes(torch.tensor([1.0, -0.5])), "never negative"),
        (lambda: drawn_modes(torch.zeros(0)), r"eigenvalues \(N,\)"),
        (lambda: drawn_modes(torch.ones(2), 0.5), "rank/N"),
        (lambda: drawn_modes(torch.ones(2), dim=3), "there are 2 eigenvalues"),
        (lambda: drawn_modes(torch.ones(2), input_var=torch.ones(3)), "input_var"),
        (lambda: drawn_modes(torch.ones(2), input_var=-1.0), "input_var"),
        (lambda: limit_modes(1.0, None, 1.0), "needs dim"),
        (lambda: limit_modes(1.0, 3, -1.0), "above 0"),
        (lambda: limit_modes(1.0, 3, torch.ones(3)), "needs eigenvalues"),
        (lambda: frozen_fraction(torch.ones(3)), "samples in rows"),
        (lambda: frozen_fraction(torch.tensor([[math.nan]])), "not finite"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
