from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.laws import AmbiguousRank, SymmetryReport, discover_symmetries

VECTORS = np.load(
    Path(__file__).parents[1] / "vectors/geometric-deep-learning.npz", allow_pickle=False
)
MINKOWSKI = torch.diag(torch.tensor([1.0, -1.0, -1.0, -1.0], dtype=torch.float64))


def _points(n, d, seed=0):
    gen = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=gen, dtype=torch.float64)


@pytest.mark.parametrize(
    ("f", "d", "dim", "informative", "signature"),
    [
        (lambda x: x.square().sum(1), 3, 3, 3, (3, 0)),
        (lambda x: x[:, 0] ** 2 + x[:, 1] ** 2, 3, 4, 1, None),
        (lambda x: torch.einsum("ni,ij,nj->n", x, MINKOWSKI, x), 4, 6, 6, (3, 1)),
        (lambda x: x[:, 0] * x[:, 1], 2, 1, 1, (1, 1)),
        (lambda x: torch.ones(len(x)).double(), 3, 9, 0, None),
        (lambda x: 0 * x[:, 0], 2, 4, 0, None),
        (lambda x: x[:, 0] + x[:, 1] ** 2, 2, 0, 0, None),
    ],
)
def test_known_dimensions(f, d, dim, informative, signature):
    report: SymmetryReport = discover_symmetries(f, _points(100, d), affine=False)
    assert (report.dim, report.informative) == (dim, informative)
    assert report.signature == signature
    assert report.gap > 1e5 and report.bracket_defect < 1e-10
    flat = report.basis.flatten(1)
    assert torch.allclose(flat @ flat.T, torch.eye(dim).double(), atol=1e-10)


def test_rotations_are_antisymmetric():
    basis = discover_symmetries(lambda x: x.norm(dim=1), _points(60, 4)).basis
    assert len(basis) == 6 and torch.allclose(basis, -basis.transpose(1, 2), atol=1e-10)


def test_the_vectors():
    q, x = (torch.from_numpy(VECTORS[k]) for k in ("lie_Q", "lie_X"))
    report = discover_symmetries(lambda x: torch.einsum("ni,ij,nj->n", x, q, x), x)
    assert report.dim == VECTORS["lie_dim"]
    flat = report.basis.flatten(1)
    # Projectors of float64 null spaces with a gap of 1e10 and more.
    assert np.allclose(flat.T @ flat, VECTORS["lie_projector"], atol=1e-9)


def test_directions_that_never_vary_are_told_apart():
    report = discover_symmetries(lambda x: x[:, :2].square().sum(1), _points(60, 3))
    assert torch.allclose(report.dead.abs(), torch.tensor([[0.0, 0, 1]]).double(), atol=1e-10)
    rotation = report.basis[0]
    assert torch.allclose(rotation, -rotation.T, atol=1e-10)
    assert report.basis[1:, :2].abs().max() < 1e-10  # the others move x₃ alone
    flat = _points(60, 3)
    flat[:, 2] = 0
    report = discover_symmetries(lambda x: x.square().sum(1), flat)
    assert (report.informative, len(report.dead), len(report.unseen)) == (1, 1, 1)
    # 1 + 3 that act on x₃, + 3 that move along it, − 1 counted twice
    assert report.dim == 6


def test_affine_symmetries_turn_around_the_centre():
    centre = torch.tensor([1.0, -2.0]).double()
    f = lambda x: (x - centre).square().sum(1)  # noqa: E731
    report = discover_symmetries(f, _points(60, 2), affine=True)
    assert report.dim == report.informative == 1 and report.basis.shape == (1, 2, 3)
    a = report.basis[0]
    assert torch.allclose(a[:, :2] @ centre, -a[:, 2], atol=1e-10)
    assert discover_symmetries(f, _points(60, 2)).dim == 0
    # The plane's distance between two points keeps two translations and a rotation.
    pair = lambda x: (x[:, :2] - x[:, 2:]).square().sum(1)  # noqa: E731
    report = discover_symmetries(pair, _points(200, 4), affine=True)
    assert report.bracket_defect < 1e-9 and len(report.dead) == 2


def test_vector_outputs_bring_their_own_generator():
    x = _points(100, 3)
    cubic = lambda x: x * x.square().sum(1, keepdim=True)  # noqa: E731
    report = discover_symmetries(cubic, x)
    assert report.dim == 4  # three rotations, and scaling: B = 3A
    for a, b in zip(report.basis, report.out_basis, strict=True):
        scale = a.trace() / 3
        assert torch.allclose(b - a, 2 * scale * torch.eye(3).double(), atol=1e-9)
    assert report.bracket_defect < 1e-9
    fixed = discover_symmetries(cubic, x, output="invariant")
    assert fixed.dim == 0 and fixed.out_basis.shape == (0, 3, 3)
    scalar = discover_symmetries(lambda x: x[:, :1] * x[:, 1:2], x[:, :2], output="equivariant")
    assert scalar.dim == 2  # both scalings


@given(st.integers(0, 1000))
def test_symmetries_move_with_the_basis(seed):
    gen = torch.Generator().manual_seed(seed)
    m = torch.randn(3, 3, generator=gen, dtype=torch.float64) + 3 * torch.eye(3).double()
    x = _points(80, 3, seed)
    f = lambda x: (x @ m.T).square().sum(1)  # noqa: E731
    report = discover_symmetries(f, x)
    assert report.dim == 3
    turned = torch.einsum("ij,gjk,kl->gil", m, report.basis, torch.linalg.inv(m))
    assert torch.allclose(turned, -turned.transpose(1, 2), atol=1e-8)
    assert report.form is not None
    expected = m.T @ m
    assert torch.allclose(
        report.form.abs(), (expected / torch.linalg.eigvalsh(expected)[-1]).abs(), atol=1e-6
    )


def test_a_network_is_left_alone_and_float32_has_its_own_cut():
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4)).eval()
    report = discover_symmetries(net, _points(400, 3).float(), output="invariant")
    assert report.basis.dtype == torch.float32
    assert all(p.grad is None for p in net.parameters())
    ball = discover_symmetries(lambda x: x.square().sum(1), _points(100, 3).float())
    assert ball.dim == 3 and 1e3 < ball.gap < 1e8


def test_a_rough_symmetry_is_not_guessed():
    x = _points(200, 2)
    f = lambda x: x[:, 0] ** 2 + (1 + 1e-3) * x[:, 1] ** 2 + 1e-3 * torch.sin(5 * x[:, 0])  # noqa: E731
    values = discover_symmetries(f, x, dim=1).singular_values
    assert values[1] / values[0] > 50
    assert discover_symmetries(f, x).dim == 0
    with pytest.raises(AmbiguousRank, match="both sides of the cut"):
        discover_symmetries(f, x, tol=float(values[2] / values[-1]) * 1.01)
    assert discover_symmetries(f, x, tol=1e-2).dim == 1


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda x: discover_symmetries(lambda x: x[:, 0], x[:10]), "give at least 18 samples"),
        (lambda x: discover_symmetries(lambda x: x[:, 0], x[0]), r"floating \(N, d\)"),
        (lambda x: discover_symmetries(lambda x: x[:, 0], x.long()), r"floating \(N, d\)"),
        (lambda x: discover_symmetries(lambda x: x.sum(), x), r"to \(N,\) or \(N, m\)"),
        (lambda x: discover_symmetries(lambda x: x[:, 0].abs().sqrt() / 0, x), "not finite"),
        (lambda x: discover_symmetries(lambda x: x[:, 0], x, output="both"), "'invariant' or"),
        (lambda x: discover_symmetries(lambda x: x[:, 0], x, dim=10), "from 0 to 9"),
    ],
)
def test_errors(call, said):
    with pytest.raises(ValueError, match=said):
        call(_points(50, 3))
