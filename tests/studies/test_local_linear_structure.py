import pytest
import torch

from thalweg.almanac import get
from thalweg.data import digits
from thalweg.studies import load
from thalweg.studies.damaged_digits import Recovery, damaged, drawn, loss, positioned, trained
from thalweg.trajectory import task_gradients


@pytest.mark.study
def test_smoke_gradients_share_directions_and_the_prefix_tells_more_than_chance():
    study = load("local_linear_structure")
    figures = study.run(study.config("smoke"), 0)
    named = {c.id: c for c in get("local-linear-structure").claims}
    assert set(figures.samples) == set(named)
    for kind, given in (("baseline", figures.baselines), ("control", figures.controls)):
        assert set(given) == {i for i, c in named.items() if getattr(c, kind) is not None}
    assert figures.samples["gradients_low_rank"] > figures.controls["gradients_low_rank"]
    assert figures.samples["prefix_captures"] > figures.controls["prefix_captures"]
    assert figures.samples["static_misses"] > 1
    assert figures.samples["step_like_steering"] > figures.controls["step_like_steering"]
    assert figures.curves["overlap with the first window"][1][0] == pytest.approx(1)
    low, high = figures.curves["accuracy before and after the recovery"][1]
    assert high > low


def net(seed=0):
    data, g = digits(seed=seed), torch.Generator().manual_seed(seed)
    return trained(data, hidden=16, num_steps=3, seed=seed, generator=g), data, g


def test_positions():
    x = torch.arange(128.0).view(2, 64)
    assert torch.equal(positioned(x, 0)[:, :64], x)
    turned = positioned(x, torch.tensor([1, 3]))
    assert torch.equal(turned[0, :64].view(8, 8), x[0].view(8, 8).rot90())
    assert torch.equal(turned[1, :64].view(8, 8).rot90(), x[1].view(8, 8))
    assert turned[:, 64:].tolist() == [[0, 1, 0, 0], [0, 0, 0, 1]]


def test_damage_and_adapters():
    model, data, g = net()
    state = g.get_state()
    one, other = (damaged(model, n, rank=2, generator=g.set_state(state)) for n in (0.0, 2.0))
    x, _ = drawn(data, 0, 8, g)
    torch.testing.assert_close(one(x), model(x))
    assert not torch.allclose(other(x), model(x))
    noise = (other[2].linear.weight - model[2].weight).detach()
    assert float(noise.std() / model[2].weight.detach().std()) == pytest.approx(2, rel=0.15)
    assert torch.equal(one[2].lora_A, other[2].lora_A)
    bank = task_gradients(other, loss, [drawn(data, 0, 8, g) for _ in range(2)])
    assert bank.names == ("2.lora_A", "2.lora_B", "4.lora_A", "4.lora_B")


def test_recovery_keeps_its_path():
    model, data, g = net()
    start = damaged(model, 1.0, rank=2, generator=g)
    before = {k: v.clone() for k, v in start.state_dict().items()}
    path = Recovery.of(start, data, task=1, lr=1e-2, batch=8, num_steps=3, generator=g)
    assert len(path.states) == 4 and path.gradients.shape == (3, 128)
    assert all(torch.equal(v, before[k]) for k, v in start.state_dict().items())
    assert float(path.products()[0]["2"].abs().max()) == 0
    end = start
    end.load_state_dict(path.states[-1], strict=False)
    with torch.no_grad():
        right = end(positioned(data.x_test, 1)).argmax(1) == data.y_test
    start.load_state_dict(before)
    want = right.double().mean().item()
    assert path.accuracy(data, 1, path.displacement) == pytest.approx(want)
