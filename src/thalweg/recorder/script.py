"""Runs a script or module as Python would, with the recorder around it.

The script sees its own ``sys.argv``, ``__main__``, ``sys.path`` and working directory; its output,
exit code, signals and tracebacks are its own.
"""

from __future__ import annotations

import io
import os
import runpy
import signal
import sys
import types
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from thalweg.errors import ThalwegError
from thalweg.recorder.record import Recording, open_recording

__all__ = ["record_script", "run_file"]

_previous_main: types.ModuleType | None = None


def record_script(
    script: str,
    arguments: Sequence[str] = (),
    *,
    module: bool = False,
    out: str | None = None,
    overhead: float = 0.05,
    instruments: Iterable[str] | None = None,
    blackbox_mb: float | None = None,
    overwrite: bool = False,
    resume: bool = False,
) -> int:
    """Runs a training script and records it.

    Args:
        script: path of the script, or dotted name of a module.
        arguments: what follows it on the command line.
        module: whether ``script`` is a module, as in ``python -m``.
        out: run directory; default ``runs/<script>-<time>``.
        overhead: share of step time that recording may take.
        instruments: names; default all cheap ones.
        blackbox_mb: what the black box may hold; 0: none; default 512, if it is affordable.
        overwrite: replace the run that lies at ``out``.
        resume: continue it as a new segment.

    Returns:
        The script's exit code. Ctrl-C ends this process by SIGINT, as it ends Python.

    Raises:
        ThalwegError: if there is no such script, or the run directory cannot be made.
    """
    path = _find_module(script) if module else _find_script(script)
    command = [script, *arguments] if not module else ["-m", script, *arguments]
    recording = open_recording(
        out,
        script=path,
        arguments=command,
        overhead=overhead,
        instruments=instruments,
        blackbox_mb=blackbox_mb,
        overwrite=overwrite,
        resume=resume,
    )
    store = recording._store
    store.say(f"recording to {recording.path}")
    status, code, interrupted = "closed", 0, False
    try:
        if module:
            sys.argv = [str(path), *arguments]
            sys.path.insert(0, str(Path.cwd()))
            runpy.run_module(script, run_name="__main__", alter_sys=True)
        else:
            run_file(path, [script, *arguments])
    except SystemExit as end:
        code = _exit_code(end)
        status = "closed" if code == 0 else "failed"
        if code != 0:
            recording.event("exit", code=code)
    except KeyboardInterrupt as error:
        status, code, interrupted = "interrupted", 130, True
        _print_traceback(error)
    except BaseException as error:
        status, code = "failed", 1
        recording.failed(error)
        _print_traceback(error)
    _flush_output()
    _finish(recording, status)
    if interrupted:
        # As Python does: die by the signal, so that shells and launchers see an interrupt.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    return code


def _finish(recording: Recording, status: str) -> None:
    store = recording._store
    steps = recording.step - store.first_step
    seen = recording.optimizers_seen
    if seen == 0:
        message = "the script ended before any optimizer stepped: nothing to show"
        if status == "closed":
            message = (
                "no torch.optim optimizer ever stepped in this process, so there is nothing to "
                "show. A script that starts its workers itself is recorded under torchrun: "
                "torchrun --nproc-per-node N -m thalweg record SCRIPT. One that changes its "
                "weights by hand cannot be recorded: step a torch.optim optimizer instead"
            )
        store.event("no optimizer stepped", recording.step, message=message)
        store.warn(message)
        recording.close(status)
        return
    recording.close(status)
    share = recording.overhead
    took = f", recording took {share:.1%} of step time" if share == share else ""
    store.say(f"{status}: {steps} steps{took}")
    store.say(f"look at it with: thalweg show {recording.path}")


def _find_script(script: str) -> Path:
    path = Path(script)
    if path.is_dir() and (path / "__main__.py").is_file():
        return path
    if not path.is_file():
        here = (
            sorted(p.name for p in Path(path.parent).glob("*.py")) if path.parent.is_dir() else []
        )
        hint = f"; here: {', '.join(here[:6])}" if here else ""
        raise ThalwegError(f"no script {script!r}{hint}")
    return path


def _find_module(name: str) -> Path:
    import importlib.util

    # As python -m: the working directory comes first.
    sys.path.insert(0, str(Path.cwd()))
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{name}.__main__")
    except (ImportError, ValueError):
        spec = None
    finally:
        del sys.path[0]
    if spec is None or spec.origin is None:
        raise ThalwegError(f"no module {name!r} that can be run: give what follows `python -m`")
    return Path(spec.origin)


def run_file(path: Path, argv: list[str]) -> None:
    """Executes a file as ``__main__``, in place of ours, which stays in place afterwards.

    ``runpy.run_path`` would take the module away again when the script ends, and with it what its
    threads and exit handlers still use.
    """
    if path.is_dir():
        sys.argv = argv
        runpy.run_path(str(path), run_name="__main__")
        return
    sys.argv = argv
    path = path.absolute()
    sys.path[0:1] = [str(path.resolve().parent)]
    main = types.ModuleType("__main__")
    main.__dict__.update(
        __file__=str(path),
        __builtins__=__builtins__,
        __cached__=None,
        __annotations__={},
    )
    global _previous_main
    _previous_main = sys.modules["__main__"]  # or its globals would be cleared under us
    sys.modules["__main__"] = main
    with io.open_code(str(path)) as file:
        source = file.read()
    code = compile(source, str(path), "exec", dont_inherit=True)
    exec(code, main.__dict__)


def _exit_code(end: SystemExit) -> int:
    if end.code is None:
        return 0
    if isinstance(end.code, int):
        return end.code
    print(end.code, file=sys.stderr)
    return 1


def _print_traceback(error: BaseException) -> None:
    """The script's own traceback, without the frames that are ours."""
    trace: Any = error.__traceback__
    ours = Path(__file__).name
    while trace is not None and (
        Path(trace.tb_frame.f_code.co_filename).name == ours
        or "runpy" in trace.tb_frame.f_code.co_filename
    ):
        trace = trace.tb_next
    sys.excepthook(type(error), error.with_traceback(trace), trace)


def _flush_output() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass
