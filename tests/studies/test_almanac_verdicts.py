import ast

import numpy as np
import pytest

from thalweg.almanac import get
from thalweg.studies import load
from thalweg.studies.almanac_verdicts import _edited


@pytest.mark.study
def test_smoke_all_verdicts_follow_and_no_edit_goes_unseen():
    study = load("almanac_verdicts")
    figures = study.run(study.config("smoke"), 0)
    assert {c.id for c in get("almanac").claims if c.study_name == study.name} == set(
        figures.samples
    )
    assert figures.samples["verdicts_follow"] == 1.0
    assert figures.controls["verdicts_follow"] == 0.0


def test_an_edit_changes_what_the_code_says():
    text = '"""Doc."""\nX = 1\n\ndef f(a):\n    """Doc."""\n    return a - 17 if a > X else "y"\n'
    for seed in range(30):
        edited = _edited(text, np.random.default_rng(seed))
        assert ast.dump(ast.parse(edited)) != ast.dump(ast.parse(text))
        assert edited.count("Doc.") == 2
