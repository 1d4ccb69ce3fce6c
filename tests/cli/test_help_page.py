"""What ``--help`` prints: every word of it, in lines that fit the terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.cli.app import app, main
from thalweg.cli.help_page import fill


def _verbs(node=app, above=()):
    for name in node:
        if name.startswith("-"):
            continue
        yield (*above, name)
        yield from _verbs(node[name], (*above, name))


@pytest.mark.parametrize("verb", [(), *_verbs()], ids=" ".join)
def test_help_fits_the_terminal_and_shows_an_example(verb, capsys):
    assert main([*verb, "--help"]) == 0
    said = capsys.readouterr().out
    # The example is a line to copy, so it is never broken.
    lines = said.split("\nExample: ")[0].splitlines()
    assert max(map(len, lines)) <= 80
    assert said.startswith("Usage: thalweg") and "\nExample: thalweg " in said
    assert "\n\n\n" not in said and " object at " not in said


def test_paragraphs_are_filled_and_stay_apart(capsys):
    main(["record", "--help"])
    said = capsys.readouterr().out
    assert (
        "Everything from SCRIPT on belongs to the script; options of thalweg stand before\n" in said
    )
    assert "\n\nUnder torchrun each rank" in said
    assert "runs/<script>-<time> if left out." in said


@given(st.text(alphabet="ab-[ \n", max_size=200), st.integers(10, 100))
def test_filling_keeps_every_word(text, width):
    assert fill(text, width, lead="  ", hang="    ").split() == text.split()
