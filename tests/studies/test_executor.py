import pytest

from thalweg.studies import Executor, Figures, LocalExecutor
from thalweg.studies.executor import Task, perform
from thalweg.studies.study import load


def test_workers_give_what_one_process_gives():
    config = load("broken_laws").config("smoke")
    tasks = [Task("broken_laws", config, seed) for seed in (0, 1)]
    executor: Executor = LocalExecutor(2)
    outcomes = {o.index: o for o in executor.run(tasks)}
    assert set(outcomes) == {0, 1}
    assert outcomes[0].figures != outcomes[1].figures
    here = perform(0, tasks[0])
    assert outcomes[0].figures == here.figures and isinstance(here.figures, Figures)


def test_a_failing_seed_gives_its_traceback():
    outcome = perform(0, Task("broken_laws", config="nonsense", seed=0))
    assert outcome.figures is None and "AttributeError" in outcome.error


def test_no_worker():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        LocalExecutor(0)
