"""No file that thalweg reads can run code: nothing is unpickled, anywhere in the package."""

import ast
from pathlib import Path

import thalweg

PACKAGE = Path(thalweg.__file__).parent
#: Whole modules; and calls with the argument that makes them safe.
MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
#: A cluster's workers unpickle what the command that started them sends; never a file.
SENT = {"studies/ray_executor.py: pickle"}
SAFE = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}


def unsafe(source: str) -> list[str]:
    """What could unpickle, by line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        found += [f"{node.lineno}: {n}" for n in names if n.split(".")[0] in MODULES]
        if isinstance(node, ast.Call) and (call := ast.unparse(node.func)) in SAFE:
            name, value = SAFE[call]
            said = {k.arg: ast.literal_eval(k.value) for k in node.keywords if k.arg == name}
            if said.get(name) is not value:
                found.append(f"{node.lineno}: {call} without {name}={value}")
    return found


def test_nothing_is_unpickled():
    files = sorted(PACKAGE.rglob("*.py"))
    found = [
        (p.relative_to(PACKAGE).as_posix(), line) for p in files for line in unsafe(p.read_text())
    ]
    assert len(files) > 100
    assert {f"{path}:{line.partition(':')[2]}" for path, line in found} == SENT


def test_what_would_be_is_found():
    bad = "import pickle, os\nfrom dill import x\ntorch.load(f)\nnp.load(f, allow_pickle=True)\n"
    assert [line[0] for line in unsafe(bad)] == ["1", "2", "3", "4"]
    good = (
        "torch.load(f, mmap=True, weights_only=True)\nnp.load(f, allow_pickle=False)\njson.load(f)"
    )
    assert unsafe(good) == []
