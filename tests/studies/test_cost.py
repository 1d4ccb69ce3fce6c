import pytest

from thalweg import ThalwegError
from thalweg.studies import available, load
from thalweg.studies import cost as home
from thalweg.studies.cost import Cost, cost


@pytest.mark.parametrize("name", available())
def test_every_paper_preset_states_a_cost_that_follows_from_its_settings(name):
    study, stated = load(name), cost(name)
    assert "paper" in study.presets
    work = [
        eval(stated.work, {"len": len, "max": max}, dict(vars(study.config(preset))))
        for preset in ("paper", "quick")
    ]
    assert stated.factor == pytest.approx(work[0] / work[1], rel=0.01)
    assert 0.5e9 <= stated.memory <= 64e9
    assert stated.hours is not None and 0 < stated.hours < 1000


def test_the_formula():
    stated = Cost(factor=100.0, work="num_steps", memory=2_000_000_000, quick_s=72.0)
    assert stated.hours == 2.0
    assert stated.told(3) == (
        "about 2 CPU hours a seed, 6 for 3 seeds, 2 GB each (an estimate: 100 times the work of "
        "quick, which took 72 s)"
    )
    unmeasured = Cost(100.0, "num_steps", 2_000_000_000, None)
    assert unmeasured.hours is None
    assert unmeasured.told(3) == "100 times quick for each of 3 seeds, 2 GB each"


def test_a_study_that_states_none(tmp_path, monkeypatch):
    monkeypatch.setattr(home, "_FOLDER", tmp_path)
    (tmp_path / "free.py").write_text('"""A study.\n\nCost: paper is cheap.\n"""\n')
    with pytest.raises(ThalwegError, match="study free does not state its cost"):
        cost("free")
