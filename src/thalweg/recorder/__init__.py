"""The recorder: runs, the training that leaves them, and how they are read back.

Names are fetched when first used, so that reading a run never imports torch.
"""

from typing import TYPE_CHECKING

from thalweg._lazy import attach

if TYPE_CHECKING:
    from thalweg.recorder.export import export as export
    from thalweg.recorder.integrity import Problem as Problem
    from thalweg.recorder.integrity import check as check
    from thalweg.recorder.record import Recording as Recording
    from thalweg.recorder.record import record as record
    from thalweg.recorder.run import Run as Run
    from thalweg.recorder.run import newest_run as newest_run
    from thalweg.recorder.script import record_script as record_script

__getattr__, __dir__, __all__ = attach(  # pyright: ignore[reportUnsupportedDunderAll]
    __name__,
    {
        "export": ["export"],
        "integrity": ["Problem", "check"],
        "record": ["Recording", "record"],
        "run": ["Run", "newest_run"],
        "script": ["record_script"],
    },
)
