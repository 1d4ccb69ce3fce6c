"""The block sketch: linear, unbiased, as precise as stated, the same wherever it is computed."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.numerics import BlockSketch


def _tensors(shapes, seed, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(*s, generator=g, dtype=torch.float64).to(dtype) for s in shapes]


@given(
    sizes=st.lists(st.integers(0, 300), min_size=1, max_size=5),
    dim=st.integers(1, 64),
    seed=st.integers(0, 1000),
)
def test_linear_in_double_precision(sizes, dim, seed):
    sketch = BlockSketch(seed, dim)
    x = _tensors([(n,) for n in sizes], seed, torch.float64)
    y = _tensors([(n,) for n in sizes], seed + 1, torch.float64)
    left = sketch([2 * a - b for a, b in zip(x, y, strict=True)])
    assert torch.allclose(left, 2 * sketch(x) - sketch(y), atol=1e-10)


def test_naive_reference():
    """Every coordinate goes to one cell with one sign: the map, spelled out as a matrix."""
    sketch = BlockSketch(3, 8)
    columns = [sketch([e]) for e in torch.eye(50, dtype=torch.float64)]
    matrix = torch.stack(columns, 1)
    assert ((matrix != 0).sum(0) == 1).all()
    assert (matrix.abs().sum(0) == 1).all()
    x = _tensors([(50,)], 0, torch.float64)
    assert torch.allclose(matrix @ x[0], sketch(x))
    for start in range(0, 50, 8):  # no two coordinates of one block share a cell
        cells = matrix[:, start : start + 8].abs().argmax(0)
        assert len(cells.unique()) == len(cells)


def test_exact_when_it_fits():
    x = _tensors([(3, 4), (5,)], 0)
    assert torch.equal(BlockSketch(0)(x), torch.cat([t.flatten() for t in x]))


def test_cosine_noise_is_as_stated():
    """300,000 coordinates, 40 seeds: unbiased, mean absolute error about 0.8/sqrt(m)."""
    m = 4096
    x, y = _tensors([(300_000,), (300_000,)], 0)
    true = torch.nn.functional.cosine_similarity(x, y, 0)
    error = []
    for seed in range(40):
        s = BlockSketch(seed, m)
        error.append(torch.nn.functional.cosine_similarity(s([x]), s([y]), 0) - true)
    error = torch.stack(error)
    assert error.abs().mean() < 1.3 * 0.8 / m**0.5
    assert error.mean().abs() < 4 / (40 * m) ** 0.5


def test_structured_vectors_are_no_worse():
    """Constant and alternating vectors, on which sign patterns that repeat would fail."""
    m = 1024
    x = torch.ones(100_000)
    y = torch.ones(100_000)
    y[::2] = -1
    got = torch.stack([BlockSketch(s, m)([x]) @ BlockSketch(s, m)([y]) for s in range(40)]) / 1e5
    assert got.std() < 2 / m**0.5
    assert got.mean().abs() < 0.02


def test_types_and_shapes():
    assert BlockSketch(0, 4)([torch.ones(10, dtype=torch.bfloat16)]).dtype == torch.float32
    assert BlockSketch(0, 4)([]).shape == (0,)
    z = torch.randn(6, dtype=torch.complex64)
    assert torch.equal(BlockSketch(0, 4)([z]), BlockSketch(0, 4)([torch.view_as_real(z)]))
    w = torch.randn(20, 30)
    assert torch.equal(BlockSketch(1, 16)([w.t()]), BlockSketch(1, 16)([w.t().contiguous()]))
    with pytest.raises(ValueError, match="dim must be >= 1"):
        BlockSketch(0, 0)


def test_random_state_is_left_alone():
    state = torch.get_rng_state()
    BlockSketch(0, 4)([torch.ones(100)])
    assert torch.equal(state, torch.get_rng_state())
