import numpy as np
import pytest

from thalweg.doctor.examination import examine
from thalweg.doctor.laws import broken_law

NAMES = {"eps": "scale: 0", "exact": "balance: 2, 0"}
NOTE = "scale invariance before a norm: exact as its eps (1e-05) goes to 0"
LAWS = [
    {"name": NAMES["eps"], "formula": "‖0.weight‖²", "note": NOTE},
    {"name": NAMES["exact"], "formula": "‖2.weight[:,j]‖² − ‖0.weight[j]‖²", "note": ""},
]


def _run(make_run, values, name=NAMES["exact"], uncertainty=1e-7, laws=LAWS):
    series = {("law_residual", name): values}
    return make_run(series, uncertainty=uncertainty, laws=laws)


def test_a_growing_residual_is_found_with_its_first_step(make_run):
    (found,) = broken_law(_run(make_run, [1e-7, 1e-7, 1e-2, 2e-2, 3e-2]))
    assert found.rule == "broken_law" and found.severity == "warning"
    (evidence,) = found.evidence
    assert evidence.steps == (3,) and evidence.value == 3e-2
    assert "balance: 2, 0: off by 0.03 of its size" in evidence.text


def test_a_residual_that_only_the_last_record_shows_is_found(make_run):
    """Residuals add up over all steps, also those that a busy budget could not record."""
    (found,) = broken_law(_run(make_run, [1e-7, 1e-7, 0.1]))
    assert found.evidence[0].steps == (3,)


@pytest.mark.parametrize(
    ("values", "uncertainty"),
    [
        ([1e-6] * 9, 1e-7),  # above round-off, and of no weight
        ([2e-3] * 9, 1e-4),  # large, and round-off
        ([1e-2, 1e-2, 1e-7, 1e-7, 1e-7], 1e-7),  # over at the end
        ([1e-2, 1e-2], 1e-7),  # too few to tell
    ],
)
def test_round_off_and_passing_moments_are_not(make_run, values, uncertainty):
    assert broken_law(_run(make_run, values, uncertainty=uncertainty)) == []


def test_what_the_eps_of_a_norm_leaves_is_no_fault(make_run):
    growing = np.linspace(1e-3, 1e-1, 20).tolist()
    assert broken_law(_run(make_run, growing, NAMES["eps"])) == []
    assert broken_law(_run(make_run, growing, NAMES["exact"]))


@pytest.mark.parametrize(
    ("name", "judged"),
    [("sums: c.bias", False), ("key bias: c.bias", False), ("sums: c.weight", True)],
)
def test_round_off_in_the_gradient_of_a_bias_is_no_fault(make_run, name, judged):
    assert bool(broken_law(_run(make_run, [0.5] * 9, name, laws=[]))) == judged


def test_frozen_parameters_get_a_treatment_of_their_own(make_run):
    (found,) = broken_law(_run(make_run, [0.1] * 5, "frozen: 0.weight", laws=[]))
    assert "frozen parameter moves" in found.symptom and "requires_grad" in found.treatment


def test_runs_without_laws_say_nothing(make_run):
    assert broken_law(make_run({("loss", ""): [1.0, 0.5, 0.2]})) == []


def test_a_residual_that_ended_before_the_run_is_not_called_sound(make_run):
    series = {("law_residual", NAMES["exact"]): [1e-7] * 3}
    whole = make_run(series, uncertainty=1e-7, laws=LAWS)
    assert "broken_law" not in examine(whole).skipped
    ended = make_run(series, uncertainty=1e-7, laws=LAWS, ends="skipped:budget")
    said = examine(ended).skipped["broken_law"]
    assert said == "law_residual ended at step 3: skipped:budget"
