"""Norms of lists of tensors."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.numerics import norms


@given(
    sizes=st.lists(st.integers(0, 50), min_size=1, max_size=6),
    seed=st.integers(0, 1000),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_against_one_flat_vector(sizes, seed, dtype):
    g = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(n, generator=g, dtype=dtype) for n in sizes]
    out = norms(tensors)
    assert out.each.dtype == dtype
    assert torch.allclose(out.each, torch.stack([t.norm() for t in tensors]))
    assert torch.allclose(out.total, torch.cat(tensors).norm())


def test_mixed_dtypes_complex_sparse_and_empty():
    big = torch.full((4096,), 256.0, dtype=torch.float16)  # its square overflows half precision
    sparse = torch.sparse_coo_tensor([[0, 0, 2]], [1.0, 1.0, 2.0], (4,), check_invariants=True)
    tensors = [big, torch.tensor([3 + 4j]), sparse, torch.zeros(0), torch.tensor(2.0)]
    want = [256.0 * 64, 5.0, 8**0.5, 0.0, 2.0]
    assert norms(tensors).each.tolist() == pytest.approx(want)
    assert norms([]).total == 0


def test_nonfinite_entries_show():
    out = norms([torch.tensor([1.0, float("nan")]), torch.tensor([float("inf")])])
    assert out.each[0].isnan() and out.each[1].isinf()


def test_generators_are_taken():
    assert norms(t for t in [torch.ones(4)]).total == 2
