"""Makes ``vectors.npz``: static vectors of the entries and of the retrieval benchmark.

python -m benchmarks.almanac_vectors   # needs the extra [semantic]
"""

from __future__ import annotations

import json

import numpy as np

from thalweg.almanac.catalogue import entries
from thalweg.almanac.corpus import entry_text
from thalweg.almanac.static_vectors import FILE, embed

BENCH = FILE.parent / "related_eval.json"

if __name__ == "__main__":
    found = entries()
    bench = json.loads(BENCH.read_text("utf-8"))
    texts = [f"{d['title']}. {d['summary']}" for d in bench["documents"]]
    np.savez_compressed(
        FILE,
        slugs=np.array([e.slug for e in found]),
        vectors=embed([entry_text(e) for e in found]).astype(np.float16),
        texts=embed(texts).astype(np.float16),
        queries=embed([q["q"] for q in bench["queries"]]).astype(np.float16),
    )
    print(f"{FILE.name}: {FILE.stat().st_size:,} bytes")
