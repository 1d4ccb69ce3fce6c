"""Nothing half done: every public name is documented and tested, every entry has all its parts.

Reads the source, imports nothing, so that it can be tried on a planted tree.
"""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = (
    *("numerics", "optim", "losses", "nn", "data", "laws", "trajectory", "instruments", "theory"),
    *("recorder", "continual", "rl", "unlearning", "generative", "doctor", "studies", "almanac"),
    *("report", "web"),
)
SOURCE = re.compile(r"arXiv[: ]\s*\d{4}\.\d{4,5}|doi\.org|\b(19|20)\d\d\b")


def problems(package: Path, tests: Path) -> list[str]:
    """What is missing, one line each."""
    found: list[str] = []
    homes: dict[str, tuple[Path, ast.AST]] = {}
    for floor in FLOORS:
        folder = package / floor
        if not folder.is_dir():
            continue
        mentioned = "\n".join(p.read_text() for p in (tests / floor).rglob("*.py"))
        for path in sorted(folder.rglob("*.py")):
            tree = ast.parse(path.read_text())
            where = path.relative_to(package)
            if not ast.get_docstring(tree):
                found.append(f"{where}: the module has no docstring")
            if path.name in ("utils.py", "helpers.py", "common.py", "misc.py"):
                found.append(f"{where}: a name that says nothing")
            if path.name == "__init__.py":
                continue
            public = _all(tree)
            if public is None:
                found.append(f"{where}: no __all__")
                continue
            defined = {
                n.name: n
                for n in tree.body
                if isinstance(n, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef)
            }
            for name in public:
                if name in defined and not ast.get_docstring(defined[name]):
                    found.append(f"{where}: {name} has no docstring")
                homes[f"thalweg.{floor}.{name}"] = (path, defined.get(name, tree))
        for name in _exported(folder / "__init__.py"):
            elsewhere = any(home.endswith(f".{name}") for home in homes)  # a lower floor's
            if f"thalweg.{floor}.{name}" not in homes and not elsewhere:
                found.append(f"{floor}/__init__.py: hands on {name}, which no file defines")
            if not re.search(rf"\b{re.escape(name)}\b", mentioned):
                found.append(f"{floor}: {name} is public but no test under tests/{floor} names it")
    for entry in sorted((package / "almanac" / "data" / "entries").glob("*.toml")):
        found += _entry_problems(entry, package, tests, homes)
    return found


def _entry_problems(entry: Path, package: Path, tests: Path, homes: dict) -> list[str]:
    data = tomllib.loads(entry.read_text())
    found = []
    for symbol in data.get("symbols", []):
        if symbol not in homes:
            found.append(f"{entry.name}: names {symbol}, which does not exist")
            continue
        path, node = homes[symbol]
        text = (ast.get_docstring(node) or "") + (
            ast.get_docstring(ast.parse(path.read_text())) or ""
        )
        if not SOURCE.search(text):
            found.append(f"{entry.name}: {symbol} does not say its source")
        test = tests / path.relative_to(package).parent / f"test_{path.stem}.py"
        if not test.exists():
            found.append(
                f"{entry.name}: {symbol} lives in {path.name}, but there is no {test.name}"
            )
    if data.get("symbols"):
        for claim in data.get("claims", []):
            module = str(claim.get("study", "")).partition(":")[0].rpartition(".")[2]
            if not (package / "studies" / f"{module}.py").exists():
                found.append(f"{entry.name}: claim {claim.get('id')} has no study {module!r}")
        if not data.get("claims"):
            found.append(f"{entry.name}: has code but no claims")
    return found


def _all(tree: ast.Module) -> list[str] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets
        ):
            return list(ast.literal_eval(node.value))
    return None


def _exported(init: Path) -> list[str]:
    """Names of a floor's __init__: its __all__, or the values given to the lazy attach."""
    if not init.exists():
        return []
    tree = ast.parse(init.read_text())
    literal = _all(tree)
    if literal is not None:
        return literal
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "attach"
        ):
            return [n for names in ast.literal_eval(node.args[1]).values() for n in names]
    return []


def test_the_house_is_complete():
    assert problems(ROOT / "src" / "thalweg", ROOT / "tests") == []


def _plant(tmp_path: Path) -> tuple[Path, Path]:
    """A complete result in a tree of its own."""
    package, tests = tmp_path / "thalweg", tmp_path / "tests"
    files = {
        package / "optim/__init__.py": '"""Optimizers."""\n__all__ = ["Catapult"]\n',
        package / "optim/catapult.py": (
            '"""Catapult.\n\nSource: A. Author 2024, arXiv 2401.00001.\n"""\n'
            '__all__ = ["Catapult"]\nclass Catapult:\n    """Throws."""\n'
        ),
        package / "studies/__init__.py": '"""Studies."""\n',
        package
        / "studies/catapult.py": '"""Study."""\n__all__ = ["run"]\ndef run():\n    """R."""\n',
        package / "almanac/data/entries/catapult.toml": (
            'slug = "catapult"\nsymbols = ["thalweg.optim.Catapult"]\n'
            '[[claims]]\nid = "far"\nstudy = "thalweg.studies.catapult:run"\n'
        ),
        tests / "optim/test_catapult.py": "Catapult\n",
    }
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return package, tests


def test_a_complete_result_passes(tmp_path):
    assert problems(*_plant(tmp_path)) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("tests/optim/test_catapult.py", "Catapult", "", "no test under tests/optim names it"),
        ("tests/optim/test_catapult.py", None, None, "there is no test_catapult.py"),
        ("thalweg/optim/catapult.py", '"""Throws."""', "pass", "Catapult has no docstring"),
        ("thalweg/optim/catapult.py", "2024, arXiv 2401.00001", "", "does not say its source"),
        ("thalweg/optim/catapult.py", "Catapult", "Trebuchet", "which does not exist"),
        ("thalweg/optim/catapult.py", '__all__ = ["Catapult"]', "", "no __all__"),
        ("thalweg/studies/catapult.py", None, None, "claim far has no study"),
        ("thalweg/almanac/data/entries/catapult.toml", "[[claims]]", "[[x]]", "but no claims"),
    ],
)
def test_a_planted_incomplete_result_is_found(tmp_path, file, old, new, said):
    package, tests = _plant(tmp_path)
    path = tmp_path / file
    if old is None:
        path.unlink()
    else:
        path.write_text(path.read_text().replace(old, new))
    assert any(said in line for line in problems(package, tests)), problems(package, tests)
