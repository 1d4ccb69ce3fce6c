"""``python -m benchmarks``: every benchmark in turn; arguments are handed to each."""

import importlib
import pkgutil
import sys

import benchmarks


def main() -> None:
    """Runs each module of this package that has a ``main``."""
    for info in pkgutil.iter_modules(benchmarks.__path__):
        if info.name in ("__main__", "tables"):
            continue
        module = importlib.import_module(f"benchmarks.{info.name}")
        if hasattr(module, "main"):
            print(f"== {info.name}", flush=True)
            module.main(sys.argv[1:])


if __name__ == "__main__":
    main()
