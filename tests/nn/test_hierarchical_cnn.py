import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.nn import HierarchicalCNN
from thalweg.numerics import entk_gram
from thalweg.theory import HierarchicalKernel, multisphere

F64 = torch.float64


def naive(net, x):
    """One input, unit by unit."""
    h = [[v] for v in x.tolist()]
    readout = net.readout.tolist()
    for i, (weight, size) in enumerate(zip(net.weights, net.filters, strict=True)):
        scale = 1.0 if i == 0 else (size * net.width) ** -0.5
        w, into = weight.tolist(), weight.shape[1]
        h = [
            [
                math.sqrt(2)
                * max(
                    0.0,
                    scale
                    * sum(
                        w[c][b][k] * h[p * size + k][b] for k in range(size) for b in range(into)
                    ),
                )
                for c in range(net.width)
            ]
            for p in range(len(h) // size)
        ]
    out = sum(readout[c][p] * h[p][c] for p in range(len(h)) for c in range(net.width))
    return out / math.sqrt(len(h) * net.width)


@pytest.mark.parametrize(("filters", "dim"), [((2,), 6), ((2, 3), 6), ((3, 2), 12)])
def test_it_is_the_sum_written_out(filters, dim):
    generator = torch.Generator().manual_seed(0)
    net = HierarchicalCNN(filters, 3, dim, generator=generator, dtype=F64)
    x = torch.randn(2, dim, generator=generator, dtype=F64)
    assert net(x).tolist() == pytest.approx([naive(net, row) for row in x])


def test_wide_networks_have_the_kernels_of_the_limit():
    generator = torch.Generator().manual_seed(1)
    x = multisphere(4, 8, 2, generator=generator)
    ntk, nngp = HierarchicalKernel((2, 2))(x), HierarchicalKernel((2, 2), "nngp")(x)
    nets = [HierarchicalCNN((2, 2), 50, 8, generator=generator, dtype=F64) for _ in range(200)]
    found = torch.stack([entk_gram(net, x) for net in nets])
    outputs = torch.stack([net(x).detach() for net in nets])
    # The mean is that of the limit at every width, within four standard errors.
    error = (found.mean(0) - ntk).abs()
    assert (error <= 4 * found.std(0) / 200**0.5).all() and error.max() < 0.15
    # Outputs at the start have the covariance of the NNGP kernel.
    products = outputs[:, :, None] * outputs[:, None]
    assert ((products.mean(0) - nngp).abs() <= 4 * products.std(0) / 200**0.5).all()
    narrow = torch.linalg.norm(found - ntk, dim=(1, 2)).mean()
    wide = HierarchicalCNN((2, 2), 400, 8, generator=generator, dtype=F64)
    assert torch.linalg.norm(entk_gram(wide, x) - ntk) < narrow


@given(st.integers(0, 100))
def test_batch_independence_gradients_and_state(seed):
    generator = torch.Generator().manual_seed(seed)
    net = HierarchicalCNN((2, 2), 4, generator=generator, dtype=F64)
    x = torch.randn(3, 4, generator=generator, dtype=F64)
    assert torch.allclose(net(x)[1], net(x[1:2])[0])
    assert torch.autograd.gradcheck(net, x.requires_grad_())
    other = HierarchicalCNN((2, 2), 4, dtype=F64)
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(x), net(x))


def test_seed_dtype_and_repr():
    a, b = (HierarchicalCNN((2,), 3, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(a.readout, b.readout) and a.readout.dtype == torch.float32
    assert "filters=(2,), width=3, dim=2" in repr(a)
    assert a(torch.zeros(0, 2)).shape == (0,)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (((), 3), "at least 1"),
        (((2, 0), 3), "at least 1"),
        (((2,), 0), "at least 1"),
        (((2, 3), 4, 8), r"\(2, 3\).*d = 8"),
    ],
)
def test_errors(args, message):
    with pytest.raises(ValueError, match=message):
        HierarchicalCNN(*args)
    with pytest.raises(ValueError, match=r"\(B, 4\)"):
        HierarchicalCNN((2, 2), 3)(torch.ones(2, 8))
