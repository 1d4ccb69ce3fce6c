"""The almanac: published results as data, the evidence for them, and where they stand.

Nothing here imports torch.
"""

from typing import TYPE_CHECKING

from thalweg._lazy import attach

if TYPE_CHECKING:
    from thalweg.almanac.bulletin import Digest as Digest
    from thalweg.almanac.bulletin import digest as digest
    from thalweg.almanac.catalogue import entries as entries
    from thalweg.almanac.catalogue import get as get
    from thalweg.almanac.entry import Claim as Claim
    from thalweg.almanac.entry import Entry as Entry
    from thalweg.almanac.evidence import Evidence as Evidence
    from thalweg.almanac.feeds import export as export
    from thalweg.almanac.finding import Hit as Hit
    from thalweg.almanac.finding import search as search
    from thalweg.almanac.fusion import fuse as fuse
    from thalweg.almanac.intake import IngestReport as IngestReport
    from thalweg.almanac.intake import ingest as ingest
    from thalweg.almanac.paper import IngestError as IngestError
    from thalweg.almanac.paper import Paper as Paper
    from thalweg.almanac.relations import Related as Related
    from thalweg.almanac.relations import related as related
    from thalweg.almanac.scores import Importance as Importance
    from thalweg.almanac.scores import hot_score as hot_score
    from thalweg.almanac.scores import importance as importance
    from thalweg.almanac.standings import Standing as Standing
    from thalweg.almanac.standings import standing as standing
    from thalweg.almanac.store import papers as papers
    from thalweg.almanac.verdict import claim_verdict as claim_verdict
    from thalweg.almanac.verdict import entry_verdict as entry_verdict
    from thalweg.almanac.verification import verify as verify
    from thalweg.almanac.weighing import importance_of as importance_of

__getattr__, __dir__, __all__ = attach(  # pyright: ignore[reportUnsupportedDunderAll]
    __name__,
    {
        "bulletin": ["Digest", "digest"],
        "catalogue": ["entries", "get"],
        "entry": ["Claim", "Entry"],
        "evidence": ["Evidence"],
        "feeds": ["export"],
        "finding": ["Hit", "search"],
        "fusion": ["fuse"],
        "intake": ["IngestReport", "ingest"],
        "paper": ["IngestError", "Paper"],
        "relations": ["Related", "related"],
        "scores": ["Importance", "hot_score", "importance"],
        "standings": ["Standing", "standing"],
        "store": ["papers"],
        "verdict": ["claim_verdict", "entry_verdict"],
        "verification": ["verify"],
        "weighing": ["importance_of"],
    },
)
