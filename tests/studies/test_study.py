from dataclasses import dataclass

import pytest

from thalweg import ThalwegError
from thalweg.studies import Study, available, load
from thalweg.studies.study import PRESETS, described, planned, with_settings


@dataclass(frozen=True)
class Config:
    lr: float = 0.1
    steps: int = 10
    name: str = "sgd"
    nesterov: bool = False
    decay: float | None = None

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")


def test_every_study_of_this_version_is_complete():
    assert "broken_laws" in available()
    for name in available():
        study = load(name)
        assert isinstance(study, Study)
        assert set(study.presets) == set(PRESETS)
        assert described(name) and described(name) in " ".join(study.doc.split())


def test_settings_are_parsed_by_their_type():
    changed = with_settings(
        Config(), {"lr": "1e-3", "steps": "5", "name": "x", "nesterov": "true", "decay": "0.5"}
    )
    assert changed == Config(1e-3, 5, "x", True, 0.5)
    assert with_settings(changed, {"decay": "none"}).decay is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rl": "1"}, "unknown setting 'rl'; nearest: 'lr'"),
        ({"lr": "fast"}, "setting 'lr' must be float, got 'fast'"),
        ({"nesterov": "yes"}, "must be bool"),
        ({"steps": "0"}, "steps must be at least 1"),
    ],
)
def test_bad_settings(settings, said):
    with pytest.raises(ThalwegError, match=said):
        with_settings(Config(), settings)


def test_unknown_and_planned_studies():
    with pytest.raises(ThalwegError, match="nearest: 'broken_laws'"):
        load("broken_law")
    waiting = [n for n in planned() if n not in available()]
    for name in waiting[:1]:
        with pytest.raises(ThalwegError, match="planned and not in this version"):
            load(name)
    with pytest.raises(ThalwegError, match="unknown preset"):
        load("broken_laws").config("huge")
