"""A Lightning callback that records a fit: ``Trainer(callbacks=[thalweg.LightningCallback()])``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from thalweg.errors import ThalwegError
from thalweg.recorder.record import Recording, open_recording

# Any exception: a torchvision that does not load beside this torch breaks these imports with a
# RuntimeError, not an ImportError.
_why: list[str] = []
Callback: Any = None
for _name in ("lightning.pytorch", "pytorch_lightning"):
    try:
        Callback = __import__(_name, fromlist=["Callback"]).Callback
        break
    except Exception as _error:
        _why.append(f"{_name}: {_error!r}")
if Callback is None:
    raise ThalwegError(
        "LightningCallback needs Lightning: pip install lightning. " + "; ".join(_why)
    )

__all__ = ["LightningCallback"]


class LightningCallback(Callback):
    """Records ``Trainer.fit``; metrics of validation come along as ``user/<name>``.

    Args:
        out: run directory; default ``runs/<script>-<time>``.
        **settings: ``overhead``, ``instruments``, ``overwrite``, ``resume``: see
            ``thalweg.record``.

    Attributes:
        recording: the recording under way or ended, None before ``fit``.
    """

    def __init__(self, out: str | Path | None = None, **settings: Any) -> None:
        super().__init__()
        self.recording: Recording | None = None
        self._out, self._settings = out, {"quiet": True, **settings}

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Starts recording."""
        self.recording = open_recording(self._out, models=[pl_module], **self._settings)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Keeps the metrics that the module logged."""
        if self.recording is not None and not trainer.sanity_checking:
            self.recording.log(
                {k: float(v) for k, v in trainer.callback_metrics.items() if v.numel() == 1}
            )

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Ends the recording as failed or interrupted."""
        if self.recording is not None:
            self.recording.event("exception", error=f"{type(exception).__name__}: {exception}")
            interrupted = isinstance(exception, KeyboardInterrupt)
            self.recording.close("interrupted" if interrupted else "failed")

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Ends the recording."""
        if self.recording is not None:
            self.recording.close()
