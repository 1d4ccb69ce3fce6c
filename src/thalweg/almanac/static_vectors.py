"""Texts as 256-d static vectors: shipped ones for the entries, a small model for new texts.

The vectors of the entries are data (float16), made once by ``data/make_vectors.py``, so that pages
and search need no model. New texts have vectors only where the extra ``[semantic]`` is installed.
Vectors are centred by the mean of the entries: what all texts share tells none apart.

Source: wordllama 0.4.0.post1 (D. Lee Miller 2024, MIT); centring as in J. Mu, S. Bhat, P. Viswanath
2017, arXiv 1702.01417.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from thalweg.errors import ThalwegError

__all__ = ["DIM", "centred", "embed", "entry_vectors", "model_installed", "retrieval_vectors"]

DIM = 256
FILE = Path(__file__).parent / "data" / "vectors.npz"


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1; a row of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-12)


def centred(vectors: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Unit rows minus the mean of unit rows, made unit again."""
    return unit(unit(np.asarray(vectors, np.float32)) - mean)


@cache
def _file() -> dict[str, np.ndarray]:
    with np.load(FILE, allow_pickle=False) as data:
        return {name: data[name] for name in data.files}


def entry_vectors() -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Slugs, their centred vectors (n, 256) float32, and the mean (256,) that was taken away."""
    data = _file()
    mean = unit(data["vectors"].astype(np.float32)).mean(0)
    return tuple(data["slugs"].tolist()), centred(data["vectors"], mean), mean


def retrieval_vectors() -> tuple[np.ndarray, np.ndarray]:
    """Vectors of the texts and the queries of the retrieval benchmark, (39, 256) and (13, 256)."""
    data = _file()
    return data["texts"].astype(np.float32), data["queries"].astype(np.float32)


def model_installed() -> bool:
    """Whether new texts can have vectors."""
    return importlib.util.find_spec("wordllama") is not None


@cache
def _model() -> Any:
    try:
        wordllama: Any = importlib.import_module("wordllama")
    except ImportError as error:
        raise ThalwegError(
            f"this needs the extra: pip install 'thalweg[semantic]' ({error})"
        ) from None
    # It looks for its own tokenizer in the wrong folder, and then in the network: say where.
    folder = Path(wordllama.__file__).parent
    return wordllama.WordLlama.load(cache_dir=folder, disable_download=True, dim=DIM)


def embed(texts: Sequence[str]) -> np.ndarray:
    """Vectors of texts, (n, 256) float32, not centred.

    Raises:
        ThalwegError: if the extra ``[semantic]`` is not installed.
    """
    if not texts:
        return np.zeros((0, DIM), np.float32)
    return np.asarray(_model().embed(list(texts)), np.float32)
