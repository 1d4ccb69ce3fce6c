"""The doctor: reads a run and says what is wrong, with the evidence and what to do about it.

Nothing here imports torch: a run is diagnosed from its files alone.
"""

from typing import TYPE_CHECKING

from thalweg._lazy import attach

if TYPE_CHECKING:
    from thalweg.doctor.diagnosis import Diagnosis as Diagnosis
    from thalweg.doctor.diagnosis import Evidence as Evidence
    from thalweg.doctor.examination import Examination as Examination
    from thalweg.doctor.examination import diagnose as diagnose
    from thalweg.doctor.examination import examine as examine

__getattr__, __dir__, __all__ = attach(  # pyright: ignore[reportUnsupportedDunderAll]
    __name__,
    {
        "examination": ["Examination", "diagnose", "examine"],
        "diagnosis": ["Diagnosis", "Evidence"],
    },
)
