import pytest

from thalweg import ThalwegError
from thalweg.almanac.code_hash import code_hash, entry_files, home_of

SOURCE = '"""Doc."""\nimport math\n\n\ndef f(x):\n    """Doubles."""\n    return 2 * x\n'


def _hash(tmp_path, text):
    (tmp_path / "a.py").write_text(text)
    return code_hash([tmp_path / "a.py"])


def test_form_does_not_matter_and_meaning_does(tmp_path):
    first = _hash(tmp_path, SOURCE)
    assert _hash(tmp_path, SOURCE.replace("Doubles", "Twice") + "\n# the end\n") == first
    assert _hash(tmp_path, SOURCE.replace("2 * x", "(2\n            * x)")) == first
    assert _hash(tmp_path, SOURCE.replace("2 * x", "3 * x")) != first
    assert _hash(tmp_path, SOURCE.replace("2 * x", "2 - x")) != first
    assert _hash(tmp_path, SOURCE.replace("import math", "import maths")) != first


def test_order_and_repetition_of_files_do_not_matter(tmp_path):
    a, b = tmp_path / "a.py", tmp_path / "b.py"
    a.write_text("x = 1")
    b.write_text("x = 2")
    assert code_hash([a, b]) == code_hash([b, a, b]) != code_hash([a])


def test_a_function_of_docstring_only_is_not_an_empty_one_with_code(tmp_path):
    assert _hash(tmp_path, 'def f():\n    """D."""\n') == _hash(tmp_path, 'def f():\n    "E"\n')
    assert _hash(tmp_path, "def f():\n    pass\n") != _hash(tmp_path, 'def f():\n    "E"\n')


def test_homes_are_found_without_importing():
    files = entry_files(["thalweg.laws.Law", "thalweg.numerics.eigsh"], "broken_laws")
    assert [p.name for p in files] == ["law.py", "eigsh.py", "broken_laws.py"]


def test_errors(tmp_path):
    with pytest.raises(ThalwegError, match="defines it"):
        home_of("thalweg.laws.Lore")
    with pytest.raises(ThalwegError, match=r"gone\.py: cannot be hashed"):
        code_hash([tmp_path / "gone.py"])
    with pytest.raises(ThalwegError, match="cannot be hashed"):
        _hash(tmp_path, "def")
