import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from thalweg.theory import (
    HierarchicalKernel,
    arccos0,
    arccos1,
    fc_kernel,
    kernel_spectrum,
    multisphere,
    patch_dimension,
)

VECTORS = Path(__file__).parents[1] / "vectors" / "wide-cnn-kernel.npz"
F64 = torch.float64


@pytest.fixture(scope="module")
def vectors():
    return {k: torch.from_numpy(v) for k, v in np.load(VECTORS, allow_pickle=False).items()}


def naive(x, y, filters):
    """NNGP and NTK of two inputs, plain numbers, straight from the recursion."""
    s = filters[0]
    sigma = [float(x[i : i + s] @ y[i : i + s]) for i in range(0, len(x), s)]
    theta = list(sigma)
    for size in [*filters[1:], len(x) // math.prod(filters)]:
        k1 = [(math.sqrt(1 - t * t) + t * (math.pi - math.acos(t))) / math.pi for t in sigma]
        k0 = [(math.pi - math.acos(t)) / math.pi * th for t, th in zip(sigma, theta, strict=True)]
        groups = range(0, len(sigma), size)
        sigma = [sum(k1[i : i + size]) / size for i in groups]
        theta = [sum(k0[i : i + size]) / size + s for i, s in zip(groups, sigma, strict=True)]
    return sigma[0], theta[0]


def test_arccos_kernels_at_known_points(vectors):
    t = torch.tensor([1.0, 0.0, -1.0, 1.0 + 1e-15], dtype=F64)
    assert arccos0(t).tolist() == pytest.approx([1, 0.5, 0, 1], abs=1e-15)
    assert arccos1(t).tolist() == pytest.approx([1, 1 / math.pi, 0, 1], abs=1e-15)
    assert torch.allclose(arccos0(vectors["t"]), vectors["k0"], rtol=0, atol=1e-15)
    assert torch.allclose(arccos1(vectors["t"]), vectors["k1"], rtol=0, atol=1e-15)


def test_the_derivative_of_degree_one_is_degree_zero_up_to_the_ends():
    t = torch.tensor([-1.0, -0.4, 0.0, 0.9, 1.0], dtype=F64, requires_grad=True)
    (grad,) = torch.autograd.grad(arccos1(t).sum(), t)
    assert torch.equal(grad, arccos0(t))
    inner = t.detach()[1:4].requires_grad_()
    assert torch.autograd.gradcheck(arccos1, inner) and torch.autograd.gradcheck(arccos0, inner)
    slopes = torch.func.vmap(torch.func.grad(arccos1))(t.detach())
    assert torch.equal(slopes, arccos0(t.detach()))


def test_one_leaf_equal_and_one_orthogonal():
    x = torch.tensor([[1.0, 0.0, 1.0, 0.0]], dtype=F64)
    y = torch.tensor([[1.0, 0.0, 0.0, 1.0]], dtype=F64)
    assert HierarchicalKernel((2, 2), "nngp")(x, y).item() == pytest.approx(0.7199518639298961)
    assert HierarchicalKernel((2, 2))(x, y).item() == pytest.approx(1.5650753486277968)


@pytest.mark.parametrize("filters", [(2,), (4,), (2, 2), (2, 2, 2)])
def test_equal_and_opposite_inputs(filters):
    x = multisphere(5, 8, filters[0], generator=torch.Generator().manual_seed(0))
    ntk, nngp = HierarchicalKernel(filters), HierarchicalKernel(filters, "nngp")
    assert (ntk(x).diagonal() == len(filters) + 1).all() and (nngp(x).diagonal() == 1).all()
    # The clamp at 1 costs √eps on the diagonal where it is not put there.
    assert torch.allclose(ntk(x, x.clone()), ntk(x), atol=1e-6)
    apart = ntk(x, -x).diagonal(), nngp(x, -x).diagonal()
    if len(filters) == 1:
        assert all(a.abs().max() < 1e-7 for a in apart)
    if len(filters) == 2:
        assert all((a - 1 / math.pi).abs().max() < 1e-7 for a in apart)


def test_vectors_of_the_official_code(vectors):
    x, y = vectors["x"], vectors["y"]
    for filters in ((2,), (2, 2), (2, 2, 2)):
        name = "_".join(map(str, filters))
        for kind in ("ntk", "nngp"):
            found = HierarchicalKernel(filters, kind)(x, y)
            assert torch.allclose(found, vectors[f"{kind}_{name}"], rtol=0, atol=1e-12)
        found = HierarchicalKernel(filters, normalize=True)(vectors["x_raw"], vectors["y_raw"])
        assert torch.allclose(found, vectors[f"ntk_norm_{name}"], rtol=0, atol=1e-12)
    for depth in (1, 2, 3):
        found = fc_kernel(vectors["x_unit"], vectors["y_unit"], depth)
        assert torch.allclose(found, vectors[f"fc_ntk_depth{depth}"], rtol=0, atol=1e-12)
    # theirs has the diagonal to √eps only
    spectrum = kernel_spectrum(HierarchicalKernel((2, 2, 2))(x))
    assert torch.allclose(spectrum, vectors["spectrum_last"], rtol=0, atol=1e-7)


TREES = st.sampled_from([((2,), 4), ((3,), 3), ((2, 2), 8), ((2, 3), 12), ((3, 2, 2), 12)])


@given(TREES, st.integers(0, 1000))
def test_it_is_the_naive_recursion(tree, seed):
    filters, dim = tree
    generator = torch.Generator().manual_seed(seed)
    x, y = (multisphere(n, dim, filters[0], generator=generator) for n in (3, 4))
    nngp, ntk = HierarchicalKernel(filters, "nngp")(x, y), HierarchicalKernel(filters)(x, y)
    for i in range(3):
        for j in range(4):
            a, b = naive(x[i].numpy(), y[j].numpy(), filters)
            assert nngp[i, j].item() == pytest.approx(a, abs=1e-10)
            assert ntk[i, j].item() == pytest.approx(b, abs=1e-10)


@given(TREES, st.integers(0, 1000), st.sampled_from(["ntk", "nngp"]))
def test_symmetries_and_definiteness(tree, seed, kind):
    filters, dim = tree
    generator = torch.Generator().manual_seed(seed)
    x = multisphere(6, dim, filters[0], generator=generator)
    kernel = HierarchicalKernel(filters, kind)
    K = kernel(x)
    assert torch.equal(K, K.T) and torch.linalg.eigvalsh(K)[0] > -1e-12 * len(K)
    assert torch.allclose(kernel(x, x.clone()), K, atol=1e-6)
    leaves = x.reshape(6, -1, filters[0])
    turns = torch.linalg.qr(torch.randn(leaves.shape[1], *[filters[0]] * 2, generator=generator)).Q
    turned = torch.einsum("nls,lst->nlt", leaves, turns.double()).reshape(6, dim)
    # float32 rotations are orthogonal to 1e-7 only
    assert torch.allclose(HierarchicalKernel(filters, kind, True)(turned), K, atol=1e-5)
    if len(filters) > 1:  # children of the lowest group, in both
        swapped = leaves.clone()
        swapped[:, : filters[1]] = leaves[:, : filters[1]].flip(1)
        assert torch.allclose(kernel(swapped.reshape(6, dim)), K, atol=1e-12)


def test_one_patch_is_fully_connected_and_so_is_a_tree_without_branches():
    x = multisphere(4, 5, 5, generator=torch.Generator().manual_seed(1))
    assert torch.equal(HierarchicalKernel((5,))(x), fc_kernel(x))
    cosines = x @ x.T
    two = arccos1(arccos1(cosines))
    assert torch.allclose(fc_kernel(x, x.clone(), 2, "nngp"), two, atol=1e-7)
    assert torch.allclose(fc_kernel(3 * x, depth=2, normalize=True), fc_kernel(x, depth=2))


class Largest(TorchDispatchMode):
    """The largest number of bytes that one operation gave."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and "view" not in str(func) and out._base is None:
            self.bytes = max(self.bytes, out.untyped_storage().nbytes())
        return out


def test_memory_is_bounded_and_blocks_do_not_show():
    generator = torch.Generator().manual_seed(2)
    x, y = (multisphere(n, 16, 2, generator=generator) for n in (70, 50))
    whole = HierarchicalKernel((2, 2, 2))
    small = HierarchicalKernel((2, 2, 2), max_bytes=40_000)
    # Round-off of the cosines, which the arc cosine enlarges near ±1.
    assert torch.allclose(whole(x, y), small(x, y), rtol=0, atol=1e-10)
    assert torch.allclose(whole(x), small(x), rtol=0, atol=1e-10)
    with Largest() as seen:
        small(x, y)
    # All leaves at once would be 8 × 70 × 50 doubles.
    assert seen.bytes == 70 * 50 * 8


def test_inputs_are_left_alone_and_may_be_strided():
    x = multisphere(4, 8, 2, generator=torch.Generator().manual_seed(3))
    twice = torch.empty(8, 4, dtype=F64).T
    twice.copy_(3 * x)
    before = twice.clone()
    found = HierarchicalKernel((2, 2), normalize=True)(twice)
    assert torch.equal(twice, before)
    assert torch.allclose(found, HierarchicalKernel((2, 2))(x))


def test_dtype_is_kept_and_sums_are_double():
    x = multisphere(4, 8, 2, generator=torch.Generator().manual_seed(4)).float()
    K = HierarchicalKernel((2, 2), normalize=True)
    assert K(x).dtype == torch.float32
    assert torch.allclose(K(x), K(x.double()).float())
    assert HierarchicalKernel((2, 2))(x[:0]).shape == (0, 0)


def test_effective_dimensions():
    assert [patch_dimension((2, 2, 2), layer) for layer in (1, 2, 3)] == [1, 2, 4]
    assert [patch_dimension((3, 2), layer) for layer in (1, 2)] == [2, 4]
    assert patch_dimension((3, 2), 3, 12) == 8
    for layer, dim in ((0, None), (4, None), (3, None), (3, 7)):
        with pytest.raises(ValueError, match=r"layer|dim"):
            patch_dimension((3, 2), layer, dim)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: HierarchicalKernel(()), "filters"),
        (lambda: HierarchicalKernel((2, 0)), "filters"),
        (lambda: HierarchicalKernel((2,), "rfk"), "'ntk' or 'nngp'"),
        (lambda: HierarchicalKernel((2, 3))(torch.ones(2, 8)), r"\(2, 3\).*d = 8"),
        (lambda: HierarchicalKernel((2,))(torch.ones(2, 4)), "norm 1.*normalize=True"),
        (lambda: HierarchicalKernel((2,), normalize=True)(torch.zeros(2, 4)), "no direction"),
        (lambda: HierarchicalKernel((2,))(torch.full((2, 4), math.nan)), "not finite"),
        (lambda: HierarchicalKernel((2,))(torch.ones(4)), r"\(n, d\)"),
        (lambda: HierarchicalKernel((2,))(torch.eye(2), torch.eye(4)[:, :4]), "norm|entries"),
        (lambda: fc_kernel(torch.eye(2), depth=0), "depth"),
        (lambda: fc_kernel(torch.ones(2)), r"\(n, d\)"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
    x = multisphere(2, 4, 2)
    with pytest.raises(ValueError, match="4 entries a sample, but y has 8"):
        HierarchicalKernel((2,))(x, torch.cat([x, x], 1))


def test_patches_of_one_entry_are_warned_of():
    with pytest.warns(UserWarning, match="no angles"):
        HierarchicalKernel((1, 2))
