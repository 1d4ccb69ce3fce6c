"""``python -m thalweg``: the command line, so that ``torchrun -m thalweg record …`` works."""

from thalweg.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
