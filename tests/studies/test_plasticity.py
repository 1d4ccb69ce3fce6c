import math

import pytest
import torch
from torch import nn

from thalweg.almanac import get
from thalweg.losses import isometry_penalty
from thalweg.optim import AdamO
from thalweg.studies import load
from thalweg.studies.plasticity import Crowd, Learner, revived


@pytest.mark.study
def test_smoke_the_figures_are_there_and_dead_units_come_back():
    study = load("plasticity")
    figures = study.run(study.config("smoke"), 0)
    entry = get("adamo-isometry")
    for claim in entry.claims:
        assert math.isfinite(figures.samples[claim.id])
        assert (claim.id in figures.baselines) == (claim.baseline is not None)
        assert (claim.id in figures.controls) == (claim.control is not None)
    claim = entry.claim("revives_dead_units")
    assert figures.samples[claim.id] >= claim.threshold
    assert figures.controls[claim.id] == figures.baselines[claim.id] == 0
    assert 0.3 < figures.samples["keeps_plasticity"] <= 1  # far above chance
    for name in ("penalty in the loss", "AdamO"):
        assert f"accuracy against strength: {name}" in figures.curves


def test_isometry_revives_dead_units_and_nothing_else_does():
    for name in ("Adam", "AdamW"):
        assert revived(name, 300, 1) == [0.0] * 4
    assert revived("AdamO", 400, 1)[0] == 0 and revived("AdamO", 400, 1)[-1] == 1


MEMBERS = [
    Learner("Adam", 3e-3),
    Learner("AdamW", 3e-3, decay=0.5),
    Learner("towards init", 3e-3, towards_init=0.01),
    Learner("penalty in the loss", 3e-3, coupled=0.02),
    Learner("Adam", 1e-3),
    Learner("AdamO", 3e-3, isometry=0.1),
    Learner("AdamO", 3e-3, isometry=1.0),
]


def alone(member, crowd, batches):
    """The same training, one network, every optimizer as it is."""
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    with torch.no_grad():
        for p, start in zip(model.parameters(), crowd.init, strict=True):
            p.copy_(start)
    if member.isometry is None:
        optimizer = torch.optim.AdamW(model.parameters(), member.lr, weight_decay=member.decay)
    else:
        optimizer = AdamO(model.parameters(), member.lr, isometry=member.isometry)
    for x, y in batches:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y) + member.coupled * isometry_penalty(model)
        for p, start in zip(model.parameters(), crowd.init, strict=True):
            loss = loss + member.towards_init * (p - start).square().sum()
        loss.backward()
        optimizer.step()
    return model


def test_networks_side_by_side_are_networks_alone():
    crowd = Crowd(MEMBERS, (6, 5, 4, 3), seed=0)
    batches = [(torch.randn(8, 6), torch.randint(3, (8,))) for _ in range(12)]
    for x, y in batches:
        crowd.step(x, y)
    x, y = batches[-1]
    for k, member in enumerate(MEMBERS):
        model = alone(member, crowd, batches)
        for p, stack in zip(model.parameters(), crowd.stacks, strict=True):
            # Sums in another order, which Adam amplifies where a gradient is tiny.
            assert torch.allclose(p, stack[k], atol=1e-4), member
        assert torch.allclose(model(x), crowd.network(k)(x), atol=1e-3)
        assert torch.allclose(crowd.activations(x)[-1][k], crowd.network(k)(x), atol=1e-6)
        hit = (crowd.network(k)(x).argmax(1) == y).float().mean()
        assert crowd.accuracy(x, y)[k] == hit
        hidden = [crowd.network(k)[:n](x) for n in (2, 4)]
        dead = sum(float((h == 0).all(0).float().mean()) for h in hidden) / 2
        assert crowd.dormant(x)[k] == pytest.approx(dead)


def test_shrink_and_perturb_moves_only_its_own():
    crowd = Crowd([Learner("s", 1e-3, shrink=0.5), MEMBERS[-1]], (4, 4, 2), seed=0)
    before = [s.detach().clone() for s in crowd.stacks]
    crowd.new_task()
    assert all(torch.equal(s[1], b[1]) for s, b in zip(crowd.stacks, before, strict=True))
    assert not torch.equal(crowd.stacks[0][0], before[0][0])
