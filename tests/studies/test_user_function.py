import pytest

from thalweg.errors import ThalwegError
from thalweg.studies.user_function import user_function


def test_a_function_of_a_file_which_may_import_its_neighbours(tmp_path):
    (tmp_path / "beside.py").write_text("FACTOR = 3\n")
    (tmp_path / "mine.py").write_text(
        "from beside import FACTOR\ndef f(n):\n    return FACTOR * n\n"
    )
    assert user_function(f"{tmp_path}/mine.py:f", "make_model")(2) == 6


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("mine.py", r"must be FILE\.py:FUNCTION"),
        ("none.py:f", "no file"),
        ("{}/mine.py:g", "unknown function"),
        ("{}/bad.py:f", "make_model .*bad.py:f failed: ZeroDivisionError"),
    ],
)
def test_errors(tmp_path, reference, said):
    (tmp_path / "mine.py").write_text("def f(n):\n    return n\n")
    (tmp_path / "bad.py").write_text("1 / 0\n")
    with pytest.raises(ThalwegError, match=said):
        user_function(reference.format(tmp_path), "make_model")
