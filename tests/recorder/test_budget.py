"""The time budget: what it allows over a training, and how it shares."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.recorder.budget import HEADROOM, UNSEEN_S, WARM_UP, Budget


@given(
    fraction=st.floats(0.005, 0.5),
    prices=st.lists(st.floats(1e-5, 1e-2), min_size=1, max_size=5),
    every_step=st.floats(0, 2e-5),
)
def test_spending_stays_within_the_budget_but_for_the_first_runs(fraction, prices, every_step):
    budget = Budget(fraction)
    for i in range(len(prices)):
        budget.add(str(i))
    step_s = 1e-3
    for _ in range(3000):
        budget.pass_steps(step_s)
        budget.common_s += every_step
        for i, price in enumerate(prices):
            if budget.affords(str(i)):
                budget.charge(str(i), price)
    # What runs at every step is not the budget's to decide; the first runs of each are setup.
    assert budget.common_s == pytest.approx(3000 * (every_step + UNSEEN_S))
    allowed = max(HEADROOM * fraction * budget.bare_s, budget.common_s) + WARM_UP * sum(prices)
    assert budget.spent_s <= allowed * (1 + 1e-9)
    assert budget.achieved == pytest.approx(budget.spent_s / budget.bare_s)


def test_units_of_different_price_get_equal_shares():
    budget = Budget(0.1 / HEADROOM)
    budget.add("cheap")
    budget.add("dear")
    spent = {"cheap": 0.0, "dear": 0.0}
    for _ in range(20_000):
        budget.pass_steps(1e-3)
        for unit, price in (("cheap", 1e-5), ("dear", 2e-3)):
            if budget.affords(unit):
                budget.charge(unit, price)
                spent[unit] += price
    # A tenth of 20 s, less what is booked every step, halved.
    assert spent["dear"] == pytest.approx((2.0 - 20_000 * UNSEEN_S) / 2, rel=0.03)
    assert spent["cheap"] == pytest.approx(0.2, rel=0.02)  # every step; it needs no more


def test_a_declared_cost_keeps_the_first_run_until_it_is_affordable():
    budget = Budget(0.05 / HEADROOM + UNSEEN_S / 1e-3 / HEADROOM)
    budget.add("curvature", cost=100)  # steps
    ran_at = None
    for step in range(5000):
        budget.pass_steps(1e-3)
        if ran_at is None and budget.affords("curvature"):
            ran_at = step
    assert ran_at == pytest.approx(2000, rel=0.01)


def test_steps_until_foresees_the_next_run():
    budget = Budget(0.05)
    budget.add("norms")
    budget.pass_steps(1e-3)
    budget.charge("norms", 5e-3)
    foreseen = budget.steps_until("norms")
    waited = 0
    while not budget.affords("norms"):
        budget.pass_steps(1e-3)
        waited += 1
    assert waited == pytest.approx(foreseen, abs=1)


def test_what_comes_before_the_first_step_is_no_part_of_a_step():
    budget = Budget(0.05)
    assert math.isnan(budget.step_s)
    budget.pass_steps(5.0)  # imports and reading of data, and the first step
    assert budget.step_s == pytest.approx(5.0, rel=1e-3)
    budget.pass_steps(0.1, 10)
    assert budget.step_s == pytest.approx(0.01, rel=1e-2)


def test_a_removed_unit_leaves_its_share_to_the_others():
    budget = Budget(0.05)
    budget.add("a")
    budget.add("b")
    budget.remove("b")
    assert not budget.affords("b")
    for _ in range(1000):
        budget.pass_steps(1e-3)
    purse = HEADROOM * budget.fraction * budget.bare_s - budget.common_s
    for _ in range(WARM_UP + 1):
        budget.charge("a", 0.49 * purse)  # twice that is all there is
        assert budget.affords("a")
    budget.charge("a", 0.49 * purse)
    assert not budget.affords("a")


@pytest.mark.parametrize("fraction", [0, -1, float("nan"), float("inf")])
def test_nonsense_budgets_are_refused(fraction):
    with pytest.raises(ValueError, match="overhead must be a positive fraction"):
        Budget(fraction)
