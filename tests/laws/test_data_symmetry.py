import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from thalweg.laws import (
    LiftedGroup,
    augment_fully,
    conservation_laws,
    extra_laws,
    fields_from_model,
    lifted_group,
    linear_extra_laws,
)
from thalweg.numerics import Group

VECTORS = np.load(Path(__file__).parents[1] / "vectors/conservation-laws.npz", allow_pickle=False)


def _linear(*widths):
    return nn.Sequential(*[nn.Linear(a, b, bias=False) for a, b in itertools.pairwise(widths)])


class Power(nn.Module):
    """Σ u_j (v_j·x)^k."""

    def __init__(self, units, k):
        super().__init__()
        torch.manual_seed(0)
        self.u, self.v = nn.Parameter(torch.randn(units)), nn.Parameter(torch.randn(units, 2))
        self.k = k

    def forward(self, x):
        return (((x @ self.v.T) ** self.k) @ self.u)[:, None]


@pytest.mark.parametrize(
    ("group", "rank", "plain", "augmented"),
    [
        (Group.symmetric(4), 1, 1, 3),
        (Group.symmetric(4), 2, 3, 5),
        (Group.cyclic(4), 1, 1, 2),
        (Group.cyclic(4), 2, 3, 3),
        (Group.cyclic(5), 1, 1, 3),
    ],
)
def test_linear_networks_gain_what_the_formula_says(group, rank, plain, augmented):
    report = extra_laws(_linear(group.dim, rank, 1), group)
    assert report.n_laws == augmented and report.n_laws - report.n_extra == plain
    assert linear_extra_laws(lifted_group(group), rank) == report.n_extra
    assert sum(t.dim * t.multiplicity for t in report.isotypes) == group.dim


def test_equivariant_targets():
    group = Group.symmetric(4)
    report = extra_laws(_linear(4, 1, 4), group, out_rep=group.elements)
    assert (report.n_laws, report.n_extra) == (3, 2)
    lifted = lifted_group(group)
    # Both layers meet the same isotype: q = min((a + b) r, d) = 2, so 2·(3 − 2) = 2.
    assert linear_extra_laws(lifted, 1, lifted.isotypes) == 2


@pytest.mark.parametrize(("k", "orders"), [(2, {3, 5, 6, 7, 8}), (3, {5, 7, 8}), (4, {5, 7})])
def test_the_sharp_rule_for_rotations(k, orders):
    found = {
        n for n in range(1, 9) if extra_laws(Power(1, k), Group.cyclic(n, rotation=True)).n_extra
    }
    rule = {n for n in range(1, 9) if (n > k if n % 2 else n > 2 * k)}
    assert found == orders == rule


def test_two_units_give_an_identity_and_no_law():
    report = extra_laws(Power(2, 2), Group.cyclic(5, rotation=True))
    assert report.history == (2, 3, 4) and (report.n_laws, report.n_extra) == (2, 0)


def test_logistic_loss_gains_nothing():
    def sample(g):
        x = torch.randn(8, 4, generator=g)
        return x, torch.where(torch.rand(8, generator=g) < 0.5, -1.0, 1.0)

    family = fields_from_model(_linear(4, 1, 1), "logistic", sample, Group.symmetric(4))
    assert conservation_laws(family, method="brackets").n_laws == 1


@pytest.mark.parametrize(
    ("group", "dim"),
    [(Group.symmetric(4), 3), (Group.symmetric(5), 6), (Group.cyclic(4), 1), (Group.cyclic(1), 0),
     (Group.dihedral(5), 1)],
)  # fmt: skip
def test_the_lifted_group_is_continuous(group, dim):
    lifted: LiftedGroup = lifted_group(group)
    assert lifted.dim == dim
    for a in lifted.algebra:
        assert torch.allclose(a.T, -a, atol=1e-12)
    real = [t for t in lifted if t.kind == "real" and not t.trivial]
    if all(t.kind == "real" for t in lifted):
        assert dim == sum(t.dim * (t.dim - 1) // 2 for t in real)


def test_augmentation_gives_every_image():
    group = Group.cyclic(3)
    x, y = torch.arange(6.0).reshape(2, 3), torch.tensor([1.0, 2.0])
    images, targets = augment_fully((x, y), group)
    assert images.tolist()[:3] == [[0, 1, 2], [2, 0, 1], [1, 2, 0]]
    assert targets.tolist() == [1, 1, 1, 2, 2, 2]
    _, moved = augment_fully((x, x), group, group.elements)
    assert torch.equal(moved, images)


@pytest.mark.parametrize("rank", [1, 2])
def test_gradient_on_augmented_data_is_that_of_an_independent_implementation(rank):
    x, y = torch.from_numpy(VECTORS["lin_X"]), torch.from_numpy(VECTORS["lin_Y"]).reshape(-1, 1)
    theta = torch.from_numpy(VECTORS[f"lin_theta0_r{rank}"])
    expected = torch.from_numpy(VECTORS[f"lin_grad_aug_r{rank}"])
    images, targets = augment_fully((x, y), Group.symmetric(4))
    theta = theta.clone().requires_grad_()
    u, v = theta[:rank].reshape(1, rank), theta[rank:].reshape(4, rank)
    loss = ((images @ v @ u.T - targets) ** 2).mean() / 2
    (grad,) = torch.autograd.grad(loss, theta)
    assert torch.allclose(grad, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("rank", [1, 2])
def test_the_span_of_the_first_layer_is_constant_along_the_published_flow(rank):
    def spans(trajectory):
        out = []
        for theta in torch.from_numpy(trajectory):
            v = theta[rank:].reshape(4, rank)
            centred = v - v.mean(0)
            q, _ = torch.linalg.qr(centred)
            out.append(q @ q.T)
        return max((s - out[0]).abs().max().item() for s in out)

    # The integrator's tolerance.
    assert spans(VECTORS[f"lin_traj_aug_r{rank}"]) < 1e-11
    assert spans(VECTORS[f"lin_traj_plain_r{rank}"]) > 1e-2


@pytest.mark.parametrize("k", [2, 3])
@pytest.mark.parametrize("order", range(1, 9))
def test_the_angle_is_constant_along_the_published_flow_where_the_rule_says_so(k, order):
    v = VECTORS[f"poly_traj_k{k}_C{order}"][:, 1:]
    angle = np.arctan2(v[:, 1], v[:, 0])
    drift = abs(angle - angle[0]).max()
    conserved = order > k if order % 2 else order > 2 * k
    assert drift < 1e-11 if conserved else drift > 1e-3


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: augment_fully((torch.ones(2, 3), torch.ones(2)), Group.cyclic(4)), "acts on 4"),
        (lambda: augment_fully((torch.ones(2, 3), torch.ones(1)), Group.cyclic(3)), "2 samples"),
        (lambda: augment_fully((torch.ones(2, 3), torch.ones(2, 2)), Group.cyclic(3), torch.eye(2)),
         "out_rep must have shape"),
        (lambda: extra_laws(_linear(8, 4, 4), Group.cyclic(8)), "too many for brackets"),
        (lambda: lifted_group(torch.ones(1, 2, 2)), "not orthogonal"),
    ],
)  # fmt: skip
def test_errors(call, said):
    with pytest.raises(ValueError, match=said):
        call()
