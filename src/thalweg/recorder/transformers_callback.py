"""A Transformers callback: ``Trainer(..., callbacks=[thalweg.TransformersCallback()])``."""

from __future__ import annotations

import atexit
from pathlib import Path
from typing import Any

from thalweg.errors import ThalwegError
from thalweg.recorder.record import Recording, open_recording

try:
    from transformers.trainer_callback import TrainerCallback
except Exception as _error:  # a broken torchvision raises RuntimeError here, not ImportError
    raise ThalwegError(
        f"TransformersCallback needs Transformers: pip install transformers accelerate ({_error!r})"
    ) from None

__all__ = ["TransformersCallback"]


class TransformersCallback(TrainerCallback):
    """Records ``Trainer.train``; evaluation metrics come along as ``user/<name>``.

    Args:
        out: run directory; default ``runs/<script>-<time>``.
        **settings: ``overhead``, ``instruments``, ``overwrite``, ``resume``: see
            ``thalweg.record``.

    Attributes:
        recording: the recording under way or ended, None before ``train``.
    """

    def __init__(self, out: str | Path | None = None, **settings: Any) -> None:
        self.recording: Recording | None = None
        self._out, self._settings = out, {"quiet": True, **settings}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Starts recording."""
        self._fail()
        self.recording = open_recording(self._out, models=[kwargs["model"]], **self._settings)
        # Trainer tells its callbacks nothing when training raises.
        atexit.register(self._fail)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keeps the evaluation's metrics."""
        metrics = kwargs.get("metrics") or {}
        if self.recording is not None:
            self.recording.log({k: v for k, v in metrics.items() if isinstance(v, int | float)})

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ends the recording."""
        if self.recording is not None:
            self.recording.close()
        atexit.unregister(self._fail)

    def _fail(self) -> None:
        if self.recording is not None:
            self.recording.close("failed")
