import pytest
import torch

from thalweg.almanac import get
from thalweg.studies import load
from thalweg.studies.digits_bandit import bf16_stored, noisy, pretrained


@pytest.mark.study
def test_smoke_small_steps_change_fewer_stored_weights():
    study = load("rlvr_off_principals")
    figures = study.run(study.config("smoke"), 0)
    named = {c.id: c for c in get("rlvr-off-principals").claims}
    assert set(figures.samples) == set(named)
    for kind, given in (("baseline", figures.baselines), ("control", figures.controls)):
        assert set(given) == {i for i, c in named.items() if getattr(c, kind) is not None}
    assert figures.samples["sparser_than_sft"] > 0 and figures.samples["keeps_spectrum"] < 1
    assert figures.samples["keeps_directions"] < figures.controls["keeps_directions"]
    assert figures.controls["off_principal"] == pytest.approx(1, abs=0.25)
    assert figures.controls["favours_small_weights"] == pytest.approx(1, abs=0.1)


def test_noise_and_storage():
    _, data = pretrained(0, hidden=8, num_steps=1)
    once, again = noisy(data, 3, std=0.2), noisy(data, 3, std=0.2)
    assert torch.equal(once.x, again.x) and torch.equal(once.y, data.y)
    assert (once.x - data.x).std().item() == pytest.approx(0.2, rel=0.05)
    stored = bf16_stored({"w": torch.tensor([1 + 2**-9, 2.0])})
    assert stored["w"].tolist() == [1.0, 2.0] and stored["w"].dtype == torch.float32
