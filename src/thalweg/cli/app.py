"""The ``thalweg`` command: its verbs, and what becomes of errors and exit codes.

A verb is a plain function in a file of its own that imports what it needs when it is called, so
that ``thalweg --help`` imports neither torch nor pyarrow. It returns its exit code: 0 fine, 1
findings; 2 (wrong usage or input) and 3 (internal) are given here.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from thalweg import __version__
from thalweg.cli.almanac import almanac
from thalweg.cli.check import check
from thalweg.cli.check_accumulation import check_accumulation
from thalweg.cli.compare import compare
from thalweg.cli.diff import diff
from thalweg.cli.doctor import doctor
from thalweg.cli.export import export
from thalweg.cli.extrapolate import extrapolate
from thalweg.cli.help_page import HelpPage
from thalweg.cli.laws import laws
from thalweg.cli.record import record, split
from thalweg.cli.replay import replay
from thalweg.cli.report import report
from thalweg.cli.show import show
from thalweg.cli.study import study
from thalweg.cli.trajectory import trajectory
from thalweg.cli.web import web
from thalweg.errors import ThalwegError

__all__ = ["app", "main"]

app = App(
    name="thalweg",
    help="Learning dynamics for PyTorch: observe, explain, predict and steer training.",
    help_epilogue="Example: thalweg show runs/digits",
    help_format="plaintext",
    help_formatter=HelpPage(),
    version=__version__,
    result_action="return_value",
    exit_on_error=False,
    print_error=False,
    suppress_keyboard_interrupt=False,
)


def version() -> int:
    """Print the version of Thalweg."""
    print(__version__)
    return 0


app.command(
    record,
    usage="Usage: thalweg record [OPTIONS] SCRIPT|-m MODULE [ARGS...]",
    help_epilogue="Example: thalweg record --out runs/a train.py --lr 0.1",
)
app.command(show, help_epilogue="Example: thalweg show runs/digits --instrument loss")
app.command(compare, help_epilogue="Example: thalweg compare runs/adam runs/sgd")
app.command(report, help_epilogue="Example: thalweg report runs/digits -o digits.html")
app.command(export, help_epilogue="Example: thalweg export runs/digits --to csv -o digits.csv")
app.command(check, help_epilogue="Example: thalweg check runs/digits")
app.command(
    check_accumulation,
    name="check-accumulation",
    help_epilogue="Example: thalweg check-accumulation train.py:build --splits 2,8",
)
app.command(doctor, help_epilogue="Example: thalweg doctor runs/digits")
app.command(laws, help_epilogue="Example: thalweg laws model.py:build --group symmetric:4")
app.command(diff, help_epilogue="Example: thalweg diff base/ tuned/ --plot change.svg")
app.command(extrapolate, help_epilogue="Example: thalweg extrapolate runs/digits --to 5000")
app.command(trajectory, help_epilogue="Example: thalweg trajectory runs/digits --plot path.svg")
app.command(study)
app.command(almanac)
app.command(
    replay,
    usage="Usage: thalweg replay [OPTIONS] [RUN] [-- SCRIPT [ARGS...]]",
    help_epilogue="Example: thalweg replay runs/digits --steps 5",
)
app.command(web, help_epilogue="Example: thalweg web runs --port 8000")
app.command(version, help_epilogue="Example: thalweg version")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments after the program's name; those of the process if left out.

    Returns:
        The exit code: 0 fine, 1 findings, 2 wrong usage or input, 3 internal error.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments[:1] == ["record"]:
            arguments = ["record", *split(arguments[1:])]
        result = app(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough; the flush at exit must not fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (CycloptsError, ThalwegError, ValueError) as error:
        if os.environ.get("THALWEG_DEBUG"):
            traceback.print_exc()
        print(f"thalweg: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if os.environ.get("THALWEG_DEBUG"):
            traceback.print_exc()
        what = " ".join(f"{type(error).__name__}: {error}".split())
        hint = "an error of Thalweg's own; THALWEG_DEBUG=1 shows where"
        print(f"thalweg: {what} ({hint})", file=sys.stderr)
        return 3
    return result if isinstance(result, int) else 0
