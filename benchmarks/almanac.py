"""How long does it take to read in 5,000 papers and to search them?

Generated papers (words of the catalogue by Zipf's law, 150 to 200 an abstract) in ten Atom
documents: reading in with scoring and relations, the index in memory, search, related entries,
feeds. Beside it the ranking of arxiv-sanity-lite, scikit-learn's tf-idf of words and word pairs
with a linear kernel, on the same texts and questions, asked by turns. One process, one thread.

    python -m benchmarks.almanac           # 5,000 papers, a few minutes
    python -m benchmarks.almanac --quick   # 300 papers, writes no file
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

from benchmarks.machine import facts

RESULT = Path(__file__).parent / "results" / "almanac.json"
DOCUMENT = 500


def generated(n: int, seed: int) -> list[tuple[str, str, str]]:
    """Id, title and abstract of made-up papers."""
    from thalweg.almanac import entries
    from thalweg.almanac.char_ngrams import words
    from thalweg.almanac.corpus import entry_text

    rng = np.random.default_rng(seed)
    counts: dict[str, int] = {}
    for entry in entries():
        claims = " ".join(f"{c.statement} {c.setting}" for c in entry.claims)
        for word in words(f"{entry_text(entry)} {claims}"):
            counts[word] = counts.get(word, 0) + 1
    # Half of the vocabulary is not ours: papers are about other things.
    known = sorted(counts, key=lambda w: (-counts[w], w))
    strange = ["".join(rng.choice(list("aeioubcdlmnrst"), rng.integers(5, 12))) for _ in known]
    vocabulary = [w for pair in zip(known, strange, strict=True) for w in pair]
    weights = 1 / np.arange(1, len(vocabulary) + 1)
    weights /= weights.sum()
    found = []
    for i in range(n):
        title = " ".join(rng.choice(vocabulary[40:], 8))
        abstract = " ".join(rng.choice(vocabulary, rng.integers(150, 201), p=weights))
        found.append((f"{2401 + i // 90_000}.{i:05d}v1", title, abstract))
    return found


def documents(papers: list[tuple[str, str, str]], folder: Path) -> list[Path]:
    """Atom documents of up to 500 papers."""
    paths = []
    for start in range(0, len(papers), DOCUMENT):
        rows = "".join(
            f"<entry><id>http://arxiv.org/abs/{i}</id><title>{escape(title)}</title>"
            f"<published>2024-0{1 + start % 9}-01T00:00:00Z</published>"
            f"<summary>{escape(abstract)}</summary></entry>"
            for i, title, abstract in papers[start : start + DOCUMENT]
        )
        path = folder / f"{start:05d}.xml"
        path.write_text(f'<feed xmlns="http://www.w3.org/2005/Atom">{rows}</feed>')
        paths.append(path)
    return paths


def questions(papers: list[tuple[str, str, str]], n: int, seed: int) -> list[str]:
    """Three to eight words out of one abstract or title each."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        _, title, abstract = papers[rng.integers(len(papers))]
        found.append(" ".join(rng.choice(f"{title} {abstract}".split(), rng.integers(3, 9))))
    return found


def peer(texts: list[str]) -> Callable[[str], Any]:
    """The 20 best by arxiv-sanity-lite's features: TfidfVectorizer as in its compute.py."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(
        strip_accents="unicode",
        stop_words="english",
        token_pattern=r"(?u)\b[a-zA-Z_][a-zA-Z0-9_]+\b",
        ngram_range=(1, 2),
        max_features=20_000,
        norm="l2",
        sublinear_tf=True,
        max_df=0.1,
        min_df=5,
    )
    matrix = vectorizer.fit_transform(texts)

    def ask(question: str) -> Any:
        scores = (matrix @ vectorizer.transform([question]).T).toarray()[:, 0]  # type: ignore
        return np.argsort(-scores)[:20]

    return ask


def run(n: int, asked: int) -> dict[str, Any]:
    """Everything once, in a data folder of its own."""
    from thalweg.almanac import export, importance_of, ingest, related, search
    from thalweg.almanac.corpus import corpus, entry_corpus
    from thalweg.almanac.store import papers, store_file

    made = generated(n, 0)
    importance_of("almanac")  # the catalogue is there before papers are
    _ = entry_corpus().index
    with tempfile.TemporaryDirectory() as folder:
        paths = documents(made, Path(folder))
        ingest_s = _timed(lambda: [ingest(path) for path in paths])
        again_s = _timed(lambda: [ingest(path) for path in paths])
    index_s = _timed(lambda: corpus().index)
    search("a first question")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    begun = time.perf_counter()
    ask = peer([f"{title}. {abstract}" for _, title, abstract in made])
    peer_index_s = time.perf_counter() - begun
    ours, theirs, filtered = [], [], []
    for question in questions(made, asked, 1):
        ours.append(_timed(lambda q=question: search(q)))
        theirs.append(_timed(lambda q=question: ask(q)))
        filtered.append(_timed(lambda q=question: search(q, kind="paper", year=2024)))
    near = [_timed(lambda i=i: related(i)) for i in [f"arxiv:{p[0][:-2]}" for p in made[:50]]]
    return {
        "papers": n,
        "questions": asked,
        "ingest_s": round(ingest_s, 2),
        "ingest_again_s": round(again_s, 2),
        "index_s": round(index_s, 2),
        "search_ms": _quantiles(ours),
        "search_filtered_ms": _quantiles(filtered),
        "related_ms": _quantiles(near),
        "export_atom_s": round(_timed(lambda: export("atom")), 3),
        "papers_s": round(_timed(papers), 3),
        "file_mb": round(store_file().stat().st_size / 2**20, 1),
        "peak_rss_mb": round(peak),
        "tfidf": {"index_s": round(peer_index_s, 2), "search_ms": _quantiles(theirs)},
        "load_1_min": round(os.getloadavg()[0], 1),
    }


def _timed(call: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def _quantiles(seconds: list[float]) -> dict[str, float]:
    return {f"p{q}": round(1e3 * float(np.quantile(seconds, q / 100)), 2) for q in (50, 95, 99)}


def main(argv: list[str] | None = None) -> None:
    """Runs and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="300 papers, no file")
    quick = parser.parse_args(argv).quick
    with tempfile.TemporaryDirectory() as folder:
        os.environ["THALWEG_DATA"] = folder
        result = run(300 if quick else 5000, 30 if quick else 300)
        del os.environ["THALWEG_DATA"]
    print(json.dumps(result, indent=2))
    if not quick:
        head = {"command": "python -m benchmarks.almanac", **facts("numpy", "scipy")}
        RESULT.write_text(json.dumps({**head, **result}, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
