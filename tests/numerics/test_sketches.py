import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.numerics import SRHT, CountSketch

CI = settings(max_examples=25, deadline=None, derandomize=True)
BOTH = pytest.mark.parametrize("Sketch", [CountSketch, SRHT])


@BOTH
@CI
@given(seed=st.integers(0, 10**6), dim=st.integers(1, 50))
def test_linear_and_adjoint(Sketch, seed, dim):
    g = torch.Generator().manual_seed(seed)
    size = max(1, dim // 2)
    S = Sketch(dim, size, seed=seed)
    x, y = (torch.randn(3, n, generator=g).double() for n in (dim, size))
    dense = S.apply(torch.eye(dim).double())
    torch.testing.assert_close(S.apply(x), x @ dense)
    torch.testing.assert_close(S.transpose(y), y @ dense.T)


@BOTH
def test_lengths_are_kept_on_average(Sketch):
    x = torch.randn(100, generator=torch.Generator().manual_seed(0)).double()
    squares = torch.stack([Sketch(100, 32, seed=s).apply(x).square().sum() for s in range(300)])
    assert abs(squares.mean() / x.square().sum() - 1) < 4 * (2 / 32 / 300) ** 0.5


@BOTH
def test_the_seed_is_all(Sketch):
    x, state = torch.ones(20), torch.get_rng_state()
    assert torch.equal(Sketch(20, 4, seed=1).apply(x), Sketch(20, 4, seed=1).apply(x))
    assert not torch.equal(Sketch(20, 4, seed=1).apply(x), Sketch(20, 4, seed=2).apply(x))
    assert torch.equal(state, torch.get_rng_state())


@BOTH
def test_errors(Sketch):
    with pytest.raises(ValueError, match="positive"):
        Sketch(0, 1)
    with pytest.raises(ValueError, match="expected"):
        Sketch(4, 2).apply(torch.ones(5))
    if Sketch is SRHT:
        with pytest.raises(ValueError, match="padded"):
            SRHT(5, 9)
