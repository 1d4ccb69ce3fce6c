"""The almanac: published results as data, the evidence for them, and where they stand.

Nothing here imports torch.
"""

from typing import TYPE_CHECKING

from thalweg._lazy import attach

if TYPE_CHECKING:
    from thalweg.almanac.catalogue import entries as entries
    from thalweg.almanac.catalogue import get as get
    from thalweg.almanac.entry import Claim as Claim
    from thalweg.almanac.entry import Entry as Entry
    from thalweg.almanac.evidence import Evidence as Evidence
    from thalweg.almanac.standings import Standing as Standing
    from thalweg.almanac.standings import standing as standing
    from thalweg.almanac.verdict import claim_verdict as claim_verdict
    from thalweg.almanac.verdict import entry_verdict as entry_verdict
    from thalweg.almanac.verification import verify as verify

__getattr__, __dir__, __all__ = attach(  # pyright: ignore[reportUnsupportedDunderAll]
    __name__,
    {
        "catalogue": ["entries", "get"],
        "entry": ["Claim", "Entry"],
        "evidence": ["Evidence"],
        "standings": ["Standing", "standing"],
        "verdict": ["claim_verdict", "entry_verdict"],
        "verification": ["verify"],
    },
)
