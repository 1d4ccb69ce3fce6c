"""Does the almanac find what belongs together, and what a question asks for?

39 short texts in 13 topics, and 13 questions in plain words; what bears the same topic is relevant.
Rankings by words (bm25), by characters and by shipped static vectors, fused as in search and in
related entries. Baselines: words alone, the fused ranking without vectors. Controls: a random
ranking, and questions whose topics were exchanged.

Source: the project's almanac (2026). Its texts were written for it; the order of the texts, which
breaks ties, is shuffled with the seed.

Cost: paper does 50 × the work of quick (num_random), in 1 GB.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from thalweg.almanac.char_ngrams import words
from thalweg.almanac.fusion import fuse
from thalweg.almanac.static_vectors import FILE, centred, retrieval_vectors, unit
from thalweg.almanac.text_index import Text, TextIndex, best_first
from thalweg.studies.figures import Figures, data_hash

__all__ = ["PRESETS", "Config", "run"]


@dataclass(frozen=True)
class Config:
    """Settings.

    Attributes:
        k: of the fusion.
        num_random: random rankings of each text, for the control.
    """

    k: int = 60
    num_random: int = 20


PRESETS = {
    "smoke": Config(num_random=2),
    "quick": Config(),
    "full": Config(num_random=200),
    "paper": Config(num_random=1000),
}


@dataclass(frozen=True)
class _Bench:
    """Texts in the order of the seed; names are positions, so that ties are broken by position."""

    texts: list[Text]
    topics: list[str]
    vectors: np.ndarray  # (39, 256)
    questions: list[str]
    asked: list[str]  # topic of each question

    @property
    def names(self) -> list[str]:
        return [text.name for text in self.texts]


def run(config: Config, seed: int) -> Figures:
    """Rank every text by every other, and the texts by every question."""
    rng = np.random.default_rng(seed)
    bench = _bench(rng)
    index, names = TextIndex(bench.texts), bench.names
    bodies = [text.whole for text in bench.texts]
    forth = np.stack([_dense(index.by_words(body), len(names)) for body in bodies])
    by_words = (forth + forth.T) / 2
    by_characters = np.stack([index.by_characters(body) for body in bodies])
    by_vectors = bench.vectors @ bench.vectors.T

    def related(*tables: np.ndarray) -> float:
        return _related_map(bench, tables, config.k)

    plain, fused = related(_tfidf(bodies)), related(by_words, by_characters)
    asked_words = np.stack([_dense(index.by_words(q), len(names)) for q in bench.questions])
    asked_characters = np.stack([index.by_characters(q) for q in bench.questions])
    answers = _answers((asked_words, asked_characters), names, config.k)
    by_bm25 = _answers((asked_words,), names, config.k)
    mrr, average = _question_figures(bench, answers, bench.asked)
    plain_mrr, plain_average = _question_figures(bench, by_bm25, bench.asked)
    return Figures(
        samples={
            "related_map": fused,
            "related_map_vectors": related(by_characters, by_vectors),
            "query_mrr": mrr,
            "query_map": average,
        },
        baselines={
            "related_map": plain,
            "related_map_vectors": fused,
            "query_mrr": plain_mrr,
            "query_map": plain_average,
        },
        controls={
            "related_map": float(
                np.mean([related(rng.random(by_words.shape)) for _ in range(config.num_random)])
            ),
            "query_mrr": _question_figures(bench, answers, _exchanged(bench.asked, rng))[0],
        },
        data_hash=data_hash(torch.from_numpy(bench.vectors)),
    )


def _bench(rng: np.random.Generator) -> _Bench:
    data = json.loads((FILE.parent / "related_eval.json").read_text("utf-8"))
    order = rng.permutation(len(data["documents"]))
    rows = [data["documents"][i] for i in order]
    vectors = retrieval_vectors()[0]
    return _Bench(
        [Text(f"{i:02d}", row["title"], row["summary"]) for i, row in enumerate(rows)],
        [row["topic"] for row in rows],
        centred(vectors, unit(vectors).mean(0))[order],
        [q["q"] for q in data["queries"]],
        [q["topic"] for q in data["queries"]],
    )


def _dense(scores: dict[int, float], n: int) -> np.ndarray:
    row = np.zeros(n)
    row[list(scores)] = list(scores.values())
    return row


def _tfidf(texts: Sequence[str]) -> np.ndarray:
    """Cosines of whole words, tf·idf with idf = log((1 + N)/(1 + df)) + 1: plain keyword search."""
    cut = [words(text) for text in texts]
    vocabulary = {word: i for i, word in enumerate(sorted({w for row in cut for w in row}))}
    counts = np.zeros((len(texts), len(vocabulary)))
    for row, found in zip(counts, cut, strict=True):
        for word in found:
            row[vocabulary[word]] += 1
    rows = unit(counts * (np.log((1 + len(texts)) / (1 + (counts > 0).sum(0))) + 1))
    return rows @ rows.T


def _ranking(tables: Sequence[np.ndarray], i: int, names: list[str], k: int, own: str) -> list[str]:
    """Fused as in search: a ranking names what it has found, and what none names comes last."""
    rankings = [[n for n in best_first(t[i], len(names), names) if n != own] for t in tables]
    found = [n for n, _ in fuse(rankings, k)] if len(rankings) > 1 else rankings[0]
    return [*found, *(n for n in names if n != own and n not in found)]


def _related_map(bench: _Bench, tables: Sequence[np.ndarray], k: int) -> float:
    names, found = bench.names, []
    for i, name in enumerate(names):
        order = _ranking(tables, i, names, k, name)
        topic = bench.topics[i]
        right = {n for n, t in zip(names, bench.topics, strict=True) if t == topic and n != name}
        found.append(_average_precision(order, right))
    return math.fsum(found) / len(found)


def _answers(tables: Sequence[np.ndarray], names: list[str], k: int) -> list[list[str]]:
    return [_ranking(tables, i, names, k, "") for i in range(len(tables[0]))]


def _question_figures(
    bench: _Bench, answers: list[list[str]], asked: Sequence[str]
) -> tuple[float, float]:
    """Mean reciprocal rank of the first right text, and mean average precision."""
    reciprocal, average = [], []
    for order, topic in zip(answers, asked, strict=True):
        right = {n for n, t in zip(bench.names, bench.topics, strict=True) if t == topic}
        reciprocal.append(1 / (1 + min(order.index(n) for n in right)))
        average.append(_average_precision(order, right))
    return math.fsum(reciprocal) / len(answers), math.fsum(average) / len(answers)


def _average_precision(order: Sequence[str], right: set[str]) -> float:
    """Mean over the right texts of the share of right ones down to each.

    Example:
        >>> _average_precision(["a", "x", "b"], {"a", "b"})  # (1/1 + 2/3) / 2
        0.8333333333333333
    """
    hits, total = 0, 0.0
    for rank, name in enumerate(order, 1):
        if name in right:
            hits += 1
            total += hits / rank
    return total / len(right)


def _exchanged(topics: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Each question with the topic of another."""
    order = rng.permutation(len(topics))
    found = list(topics)
    for here, there in zip(order, np.roll(order, 1), strict=True):
        found[here] = topics[there]
    return found
