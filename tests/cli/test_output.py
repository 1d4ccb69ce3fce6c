import json

import numpy as np
import pytest

from thalweg.cli.output import figures, number, print_json, sparkline


def test_numbers_fit_their_column():
    rng = np.random.default_rng(0)
    values = [*rng.lognormal(0, 200, 200), *-rng.lognormal(0, 200, 200), np.inf, -np.inf, np.nan]
    assert max(len(number(float(value))) for value in values) <= 9
    assert number(None) == "-"


def test_long_names_get_a_line_of_their_own():
    assert figures("loss", ["1"], count="3") == ["loss" + " " * 25 + "1" + " " * 7 + "3"]
    assert figures("a" * 30, ["1"]) == ["a" * 30, " " * 29 + "1"]


def test_a_spike_of_one_step_is_seen():
    values = np.ones(10_000)
    values[5_000] = 9.0
    assert sparkline(values, 11) == "▁▁▁▁▁█▁▁▁▁▁"
    values[5_000] = np.nan
    assert sparkline(values, 11) == "▁▁▁▁▁×▁▁▁▁▁"


@pytest.mark.filterwarnings("error")
def test_odd_series():
    assert sparkline(np.array([]), 10) == ""
    assert sparkline(np.array([np.nan, np.inf]), 10) == "××"
    assert sparkline(np.array([2.0]), 10) == "▁"
    assert sparkline(np.array([-1.7e308, 1.7e308]), 10) == "▁█"


def test_json_spells_what_it_lacks(capsys):
    print_json({"a": [float("nan"), float("inf"), -float("inf"), 1.5], 2: None})
    said = json.loads(capsys.readouterr().out)
    assert said == {"schema_version": 1, "data": {"a": ["nan", "inf", "-inf", 1.5], "2": None}}
