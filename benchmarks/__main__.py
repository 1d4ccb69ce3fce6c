"""``python -m benchmarks``: every benchmark in turn; arguments are handed to each."""

import importlib
import pkgutil
import sys

import benchmarks


def main() -> None:
    """Runs each module of this package that has a ``main``."""
    for info in pkgutil.iter_modules(benchmarks.__path__):
        if info.name in ("__main__", "machine", "tables"):
            continue
        print(f"== {info.name}", flush=True)
        module = importlib.import_module(f"benchmarks.{info.name}")
        module.main(sys.argv[1:])


if __name__ == "__main__":
    main()
