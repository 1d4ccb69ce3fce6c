from dataclasses import replace

import pytest

from thalweg import ThalwegError
from thalweg.almanac import get
from thalweg.almanac.evidence import write_evidence
from thalweg.studies import Figures, StudyRun, load, run_study
from thalweg.studies.executor import Outcome
from thalweg.studies.made_evidence import evidence_of
from thalweg.studies.runner import default_seeds, forget, plan_study, run_plans


class Here:
    """Performs tasks at once with made figures, and dies when told to."""

    def __init__(self, die_at=None):
        self.seeds, self.die_at = [], die_at

    def run(self, tasks):
        for i, task in enumerate(tasks):
            if task.seed == self.die_at:
                raise KeyboardInterrupt
            self.seeds.append(task.seed)
            made = {"recursion_exact": 1e-15 * (task.seed + 1)}
            curve = {"loss": ([1.0, 2.0], [1.0, float("nan")])}
            figures = Figures(made, {"recursion_exact": 0.5}, {"recursion_exact": 0.1}, curve, "d")
            yield Outcome(i, figures, 1.0)


def test_finished_seeds_survive_a_kill_and_are_not_repeated():
    first, second, said = Here(die_at=2), Here(), []
    with pytest.raises(KeyboardInterrupt):
        run_study("broken_laws", executor=first)
    run = run_study("broken_laws", executor=second, progress=lambda *a: said.append(a))
    assert (first.seeds, second.seeds) == ([0, 1], [2])
    assert run.samples("recursion_exact") == pytest.approx((1e-15, 2e-15, 3e-15), rel=1e-12)
    assert [a[2] for a in said] == [None, None, 2]
    forget(run)
    third = Here()
    run_study("broken_laws", executor=third)
    assert third.seeds == [0, 1, 2]
    fresh = Here()
    run_study("broken_laws", executor=fresh, fresh=True)
    assert fresh.seeds == [0, 1, 2]


def test_other_settings_do_not_share_finished_seeds():
    run_study("broken_laws", executor=Here())
    other = Here()
    config = replace(load("broken_laws").config("quick"), lr=0.5)
    run = run_study("broken_laws", executor=other, config=config)
    assert other.seeds == [0, 1, 2] and not run.as_preset


def test_evidence_follows_from_the_run(tmp_path):
    run = run_study("broken_laws", executor=Here())
    item = evidence_of(run, get("conservation-laws"), ["thalweg", "study"])
    assert item.verdict == item.computed_verdict() == "reproduced"
    assert set(item.samples) == {"recursion_exact"}  # the other claims have another study
    assert item.seeds == (0, 1, 2) and len(item.curves["loss"]["y"]) == 3
    assert item.config["momentum"] == 0.9
    assert write_evidence(item, tmp_path).exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"preset": "smoke"}, "evidence needs a preset"),
        ({"as_preset": False}, "evidence needs a preset"),
        ({"seeds": (0, 1)}, "at least 3 seeds"),
        ({"figures": (Figures({"other": 1.0}),) * 3}, "nothing among its samples"),
        ({"figures": (Figures({"recursion_exact": 1.0}),) * 3}, "nothing among its baselines"),
    ],
)
def test_what_is_no_evidence(change, said):
    run: StudyRun = replace(run_study("broken_laws", executor=Here()), **change)
    with pytest.raises(ThalwegError, match=said):
        evidence_of(run, get("conservation-laws"))


def test_curves_with_other_x_for_some_seeds_are_refused():
    run = run_study("broken_laws", executor=Here())
    first, *others = run.figures
    for curve in (([1.0, 3.0], [1.0, 1.0]), ([1.0], [1.0])):
        odd = replace(run, figures=(replace(first, curves={"loss": curve}), *others))
        with pytest.raises(ThalwegError, match="curve 'loss' has other x for some seeds"):
            evidence_of(odd, get("conservation-laws"), ["thalweg", "study"])


def test_a_failing_seed_is_named():
    class Failing:
        def run(self, tasks):
            yield Outcome(1, None, 0.1, "Traceback\nValueError: no")

    with pytest.raises(ThalwegError, match="seed 1 failed:\nTraceback"):
        run_study("broken_laws", executor=Failing())


def test_seeds():
    assert default_seeds("broken_laws", "smoke") == (0,)
    assert default_seeds("broken_laws", "quick") == (0, 1, 2)
    with pytest.raises(ThalwegError, match="seeds must be different"):
        run_study("broken_laws", seeds=[1, 1])


class Choosy:
    """Performs tasks at once; those with a large learning rate fail."""

    def run(self, tasks):
        for i, task in enumerate(tasks):
            if task.config.lr > 1:
                yield Outcome(i, None, 0.1, "Traceback\nValueError: diverged")
            else:
                yield Outcome(i, Figures({"recursion_exact": task.config.lr}), 1.0)


def test_settings_are_one_heap_of_tasks_and_a_failing_one_spares_the_others():
    quick = load("broken_laws").config("quick")
    plans = [plan_study("broken_laws", config=replace(quick, lr=lr)) for lr in (0.1, 9.0, 0.2)]
    told, ended = [], {}
    with pytest.raises(ThalwegError, match=r"seed 0 failed:\nTraceback[^$]*\n2 more failed"):
        for place, run in run_plans(plans, executor=Choosy(), progress=lambda *a: told.append(a)):
            ended[place] = run.samples("recursion_exact")
    assert ended == {0: (0.1,) * 3, 2: (0.2,) * 3}
    assert [a[:4] for a in told] == [(p, n + 1, 3, n) for p in (0, 2) for n in range(3)]
    assert [place for place, _ in run_plans(plans[::2], executor=Choosy())] == [0, 1]
