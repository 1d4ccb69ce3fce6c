"""Thalweg: observe, explain, predict and steer how neural networks train.

``import thalweg`` imports nothing heavy, not even torch; each name below is fetched from its home
the first time it is used.
"""

from typing import TYPE_CHECKING

from thalweg._lazy import attach

if TYPE_CHECKING:
    from thalweg.doctor.examination import diagnose as diagnose
    from thalweg.errors import ThalwegError as ThalwegError
    from thalweg.recorder.lightning_callback import LightningCallback as LightningCallback
    from thalweg.recorder.record import record as record
    from thalweg.recorder.run import Run as Run
    from thalweg.recorder.transformers_callback import TransformersCallback as TransformersCallback

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = attach(  # pyright: ignore[reportUnsupportedDunderAll]
    __name__,
    {
        "doctor.examination": ["diagnose"],
        "errors": ["ThalwegError"],
        "recorder.lightning_callback": ["LightningCallback"],
        "recorder.record": ["record"],
        "recorder.run": ["Run"],
        "recorder.transformers_callback": ["TransformersCallback"],
    },
)
