import sys
from types import ModuleType

import numpy as np
import pytest

from thalweg.almanac import entries, static_vectors
from thalweg.almanac.static_vectors import (
    DIM,
    FILE,
    centred,
    embed,
    entry_vectors,
    retrieval_vectors,
    unit,
)
from thalweg.errors import ThalwegError


def test_every_entry_has_a_shipped_vector():
    slugs, vectors, mean = entry_vectors()
    assert set(slugs) == {e.slug for e in entries()}
    assert vectors.shape == (len(slugs), DIM) and mean.shape == (DIM,)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    with np.load(FILE, allow_pickle=False) as data:
        assert data["vectors"].dtype == np.float16
    assert FILE.stat().st_size < 60_000


def test_centring_takes_away_what_all_share():
    texts, queries = retrieval_vectors()
    assert texts.shape == (39, DIM) and queries.shape == (13, DIM)
    mean = unit(texts).mean(0)
    before, after = unit(texts) @ unit(texts).T, centred(texts, mean) @ centred(texts, mean).T
    assert before.mean() > 0.2 > abs(after.mean()) * 5
    assert centred(np.zeros((1, 3)), np.zeros(3)).tolist() == [[0, 0, 0]]


def test_new_texts_need_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "wordllama", None)
    static_vectors._model.cache_clear()
    with pytest.raises(ThalwegError, match=r"pip install 'thalweg\[semantic\]'"):
        embed(["text"])
    assert embed([]).shape == (0, DIM)


def test_the_model_is_told_where_it_lies_and_not_to_download(monkeypatch, tmp_path):
    asked = {}

    class Model:
        @staticmethod
        def load(**options):
            asked.update(options)
            return Model()

        def embed(self, texts):
            return np.ones((len(texts), DIM))

    fake = ModuleType("wordllama")
    fake.__file__ = str(tmp_path / "wordllama" / "__init__.py")
    fake.WordLlama = Model
    monkeypatch.setitem(sys.modules, "wordllama", fake)
    static_vectors._model.cache_clear()
    try:
        assert embed(["a", "b"]).shape == (2, DIM)
    finally:
        static_vectors._model.cache_clear()
    assert asked == {"cache_dir": tmp_path / "wordllama", "disable_download": True, "dim": DIM}
