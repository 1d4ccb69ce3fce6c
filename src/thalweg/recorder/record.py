"""``thalweg.record``: record a training from inside, in a notebook or under a framework."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from thalweg.recorder.at_inputs import FixedLoss
from thalweg.recorder.plan import Plan
from thalweg.recorder.ranks import agree_on_directory, this_rank
from thalweg.recorder.run import Run
from thalweg.recorder.session import Session
from thalweg.recorder.store import Store

__all__ = ["Recording", "default_directory", "open_recording", "record", "unrecorded"]

_unrecorded = False


class Recording:
    """A recording under way.

    Attributes:
        path: the run directory.
    """

    def __init__(self, session: Session, store: Store) -> None:
        self._session, self._store = session, store
        self.path = store.path

    @property
    def step(self) -> int:
        """Number of the last optimizer step."""
        return self._session.step

    @property
    def overhead(self) -> float:
        """Share of step time that recording has taken so far; nan before the first step."""
        return self._session.achieved_overhead

    @property
    def optimizers_seen(self) -> int:
        """How many optimizers have stepped."""
        return self._session.optimizers_seen

    def log(self, values: Mapping[str, Any], step: int | None = None) -> None:
        """Records figures of your own; they are read back as ``user/<name>``.

        Args:
            values: name to number (or 0-d tensor), such as ``{"val_acc": 0.93}``.
            step: default the last optimizer step.

        Raises:
            TypeError: if a value is not a number.
        """
        codes, numbers = [], []
        for name, value in values.items():
            try:
                numbers.append(float(value))
            except (TypeError, ValueError, RuntimeError):
                raise TypeError(
                    f"run.log: {name!r} must be a number, got {type(value).__name__}"
                ) from None
            codes.append(self._store.series(f"user/{name}", ""))
        if codes:
            self._store.rows(self.step if step is None else int(step), codes, numbers)

    def event(self, event: str, **fields: Any) -> None:
        """Notes that something happened, such as a checkpoint being written."""
        self._store.event(event, self.step, **fields)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Records nothing inside the block; what is trained in it makes no steps.

        For parts of a script that are no training, such as an inner loop on a copy of the model.
        """
        with self._session.paused():
            yield

    def failed(self, error: BaseException) -> None:
        """Notes that the training ended by an exception; the black box keeps its last steps."""
        self._session.failed(error)

    def run(self) -> Run:
        """What has been recorded so far, read back."""
        self._store.flush()
        return Run(self.path)

    def close(self, status: str = "closed") -> None:
        """Ends the recording; harmless when it has ended already."""
        self._session.close(status)


class _Silent(Recording):
    """Stands in for a recording in a script that is being replayed: it records nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def step(self) -> int:
        return 0

    @property
    def overhead(self) -> float:
        return float("nan")

    @property
    def optimizers_seen(self) -> int:
        return 0

    def log(self, values: Mapping[str, Any], step: int | None = None) -> None: ...
    def event(self, event: str, **fields: Any) -> None: ...
    def failed(self, error: BaseException) -> None: ...
    def close(self, status: str = "closed") -> None: ...

    def run(self) -> Run:
        return Run(self.path)

    @contextmanager
    def paused(self) -> Iterator[None]:
        yield


@contextmanager
def unrecorded() -> Iterator[None]:
    """Inside, ``thalweg.record`` and the callbacks record nothing: a replay runs the script."""
    global _unrecorded
    _unrecorded = True
    try:
        yield
    finally:
        _unrecorded = False


@contextmanager
def record(
    model: nn.Module | Sequence[nn.Module] | None = None,
    optimizer: Optimizer | Sequence[Optimizer] | None = None,
    out: str | Path | None = None,
    *,
    loss_fn: Callable[[Any, Any], Tensor] | None = None,
    probe: Any = None,
    overhead: float = 0.05,
    instruments: Iterable[str] | None = None,
    blackbox_mb: float | None = None,
    overwrite: bool = False,
    resume: bool = False,
    quiet: bool = True,
) -> Iterator[Recording]:
    """Records the training inside the ``with`` block.

    Hooks are in place for the block only; training is bit for bit what it is without.

    Args:
        model: the module or modules that are trained; default: found when first run.
        optimizer: record only these; default: every optimizer that steps.
        out: run directory; default ``runs/<script>-<time>``.
        loss_fn: ``(model, batch) -> scalar``, which costly instruments evaluate on ``probe``;
            without it, or without a batch, they take the captured loss of each step.
        probe: the batch for ``loss_fn``.
        overhead: share of step time that recording may take.
        instruments: names; default all cheap ones.
        blackbox_mb: megabytes that the black box may hold for ``thalweg replay``; 0: none;
            default 512, if that fits the time budget.
        overwrite: replace the run that lies at ``out``.
        resume: continue it as a new segment.
        quiet: no messages on stderr.

    Yields:
        The recording, for ``.log``, ``.step`` and ``.path``.

    Raises:
        ThalwegError: if ``out`` is taken or cannot be made, or an instrument is unknown.
        TypeError: if ``model`` or ``optimizer`` is none, or ``loss_fn`` can't be called.
        ValueError: if ``overhead`` is not positive.

    Example:
        >>> import tempfile, torch, thalweg
        >>> model = torch.nn.Linear(2, 1)
        >>> sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with thalweg.record(model, sgd, tempfile.mkdtemp() + "/a") as run:
        ...     for _ in range(3):
        ...         sgd.zero_grad()
        ...         model(torch.ones(4, 2)).square().mean().backward()
        ...         sgd.step()
        ...     run.log({"val_acc": 0.5})
        >>> thalweg.Run(run.path).steps.tolist()
        [1, 2, 3]
    """
    models = _listed(model, nn.Module, "model")
    optimizers = _listed(optimizer, Optimizer, "optimizer")
    if loss_fn is not None and not callable(loss_fn):
        raise TypeError(f"record: loss_fn must be callable, got {type(loss_fn).__name__}")
    fixed = None
    if loss_fn is not None and probe is not None:
        if not isinstance(model, nn.Module):
            raise TypeError("record: loss_fn with probe needs the one model that it is called with")
        fixed = FixedLoss(loss_fn, model, probe)
    recording = open_recording(
        out,
        probe_loss=fixed,
        models=models,
        optimizers=optimizers,
        overhead=overhead,
        instruments=instruments,
        blackbox_mb=blackbox_mb,
        overwrite=overwrite,
        resume=resume,
        quiet=quiet,
    )
    try:
        yield recording
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        recording.failed(error)
        recording.close("interrupted" if interrupted else "failed")
        raise
    recording.close()


def open_recording(
    out: str | Path | None,
    *,
    script: Path | None = None,
    arguments: Sequence[str] | None = None,
    models: Sequence[nn.Module] = (),
    optimizers: Sequence[Optimizer] = (),
    probe_loss: Callable[[], Tensor] | None = None,
    overhead: float = 0.05,
    instruments: Iterable[str] | None = None,
    blackbox_mb: float | None = None,
    overwrite: bool = False,
    resume: bool = False,
    quiet: bool = False,
) -> Recording:
    """Starts a recording that the caller closes: the part all doors share.

    Args and errors: as ``record``; ``script`` and ``arguments`` say how the training was started,
    ``probe_loss`` evaluates the loss for costly instruments.
    """
    if not 0 < overhead < float("inf"):
        raise ValueError(
            f"overhead must be a positive fraction of step time, such as 0.05; got {overhead}"
        )
    if blackbox_mb is not None and not 0 <= blackbox_mb < float("inf"):
        raise ValueError(f"the black box takes megabytes ≥ 0, such as 512; got {blackbox_mb}")
    plan = Plan(instruments)
    if _unrecorded:
        return _Silent(Path(out) if out is not None else Path("runs"))
    rank, world_size = this_rank()
    script = script if script is not None else _main_script()
    path, header, segment, first_step = agree_on_directory(
        None if out is None else Path(out),
        lambda: default_directory(script),
        overwrite=overwrite,
        resume=resume,
    )
    store = Store(
        path,
        header,
        rank=rank,
        world_size=world_size,
        segment=segment,
        first_step=first_step,
        script=script,
        arguments=sys.argv if arguments is None else arguments,
        overhead=overhead,
        instruments=plan.names,
        quiet=quiet,
    )
    try:
        session = Session(
            store,
            plan=plan,
            overhead=overhead,
            models=models,
            optimizers=optimizers,
            probe_loss=probe_loss,
            blackbox_mb=blackbox_mb,
        )
    except BaseException:
        store.close("failed", last_step=first_step, overhead={"budget": overhead})
        raise
    return Recording(session, store)


def default_directory(script: Path | None) -> Path:
    """``runs/<script>-<time>``, with a number appended if it exists."""
    name = script.stem if script is not None else "run"
    base = Path("runs") / f"{name}-{datetime.now():%Y%m%d-%H%M%S}"
    path, n = base, 1
    while path.exists():
        n += 1
        path = base.with_name(f"{base.name}-{n}")
    return path


def _main_script() -> Path | None:
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path(os.fspath(file)) if file else None


def _listed(value: Any, kind: type, name: str) -> list[Any]:
    if value is None:
        return []
    values = list(value) if isinstance(value, list | tuple) else [value]
    for v in values:
        if not isinstance(v, kind):
            raise TypeError(
                f"record: {name} must be a {kind.__name__} or a list of them, "
                f"got {type(v).__name__}"
            )
    return values
