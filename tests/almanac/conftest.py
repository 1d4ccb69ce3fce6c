from dataclasses import replace

import pytest

from thalweg.almanac.catalogue import get
from thalweg.almanac.code_hash import code_hash, entry_files
from thalweg.almanac.evidence import Evidence
from thalweg.almanac.standings import claim_bounds


@pytest.fixture(autouse=True)
def own_data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("THALWEG_DATA", str(tmp_path / "data"))


@pytest.fixture
def evidence():
    """Current evidence for the claim of broken_laws, made up."""
    entry = get("conservation-laws")
    claim = entry.claim("recursion_exact")
    item = Evidence(
        entry=entry.slug,
        study="broken_laws",
        preset="quick",
        config={"lr": 0.1},
        run_at="2026-11-24T10:00:00+00:00",
        commit="",
        code_hash=code_hash(entry_files(entry.symbols, "broken_laws")),
        data_hash="0" * 16,
        versions={"torch": "2.13.0"},
        platform="Linux x86_64",
        threads=1,
        seeds=(0, 1, 2),
        bounds={claim.id: claim_bounds(claim)},
        samples={claim.id: (1e-15, 2e-15, 1e-15)},
        baselines={claim.id: (0.5, 0.5, 0.5)},
        controls={claim.id: (0.1, 0.2, 0.1)},
        verdict="",
        wall_s=(1.0, 1.0, 1.0),
    )
    return replace(item, verdict=item.computed_verdict())
