"""Five small models of different architecture, and the real data that they learn.

The data are the handwritten digits of scikit-learn and the docstrings of the standard library.
"""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib import import_module
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "Autoencoder",
    "Dense",
    "Recurrent",
    "Residual",
    "Scalar",
    "Transformer",
    "digits",
    "text",
]

CONTEXT = 24


@lru_cache
def digits() -> tuple[Tensor, Tensor]:
    """1,797 images, (n, 64) in [0, 1], and their labels, shuffled once."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return torch.tensor(images, dtype=torch.float32)[order] / 16, torch.tensor(labels)[order]


@lru_cache
def text() -> tuple[Tensor, Tensor]:
    """Windows of the docstrings, (n, CONTEXT), and the characters that follow each."""
    sys.path.insert(0, str(Path(__file__).parent.parent))
    docstrings = import_module("examples.char_transformer").docstrings
    letters = docstrings(120_000)
    code = {c: i for i, c in enumerate(sorted(set(letters)))}
    tokens = torch.tensor([code[c] for c in letters])
    rows = tokens[: len(tokens) // (CONTEXT + 1) * (CONTEXT + 1)].view(-1, CONTEXT + 1)
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    return rows[:, :-1], rows[:, 1:]


class Block(nn.Module):
    """A transformer block with ReLU."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.act, self.down = nn.Linear(dim, 4 * dim), nn.ReLU(), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        h = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + self.out(h)
        return x + self.down(self.act(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """Two blocks over characters."""

    def __init__(self, vocabulary: int = 96, dim: int = 32, dropout: float = 0.0) -> None:
        super().__init__()
        self.embed, self.position = nn.Embedding(vocabulary, dim), nn.Embedding(CONTEXT, dim)
        self.blocks = nn.Sequential(Block(dim), Block(dim))
        self.drop, self.norm, self.neck = nn.Dropout(dropout), nn.LayerNorm(dim), nn.Identity()
        self.head = nn.Linear(dim, vocabulary)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x) + self.position.weight[: x.shape[1]]
        return self.head(self.neck(self.norm(self.drop(self.blocks(h)))))


class Residual(nn.Module):
    """Convolutions with batch normalisation and a shortcut."""

    def __init__(self, width: int = 8, dropout: float = 0.0) -> None:
        super().__init__()
        self.stem, self.norm0 = nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width)
        self.conv1, self.norm1 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.act, self.drop = nn.ReLU(), nn.Dropout(dropout)
        self.fc, self.neck, self.head = nn.Linear(16 * width, 32), nn.Identity(), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm0(self.stem(x.view(-1, 1, 8, 8))))
        h = F.relu(h + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(h))))))
        h = F.max_pool2d(h, 2).flatten(1)
        return self.head(self.drop(self.neck(self.act(self.fc(h)))))


class Recurrent(nn.Module):
    """A GRU over the rows of an image."""

    def __init__(self, dim: int = 32, dropout: float = 0.0) -> None:
        super().__init__()
        self.gru, self.fc, self.act = (
            nn.GRU(8, dim, batch_first=True),
            nn.Linear(dim, 32),
            nn.ReLU(),
        )
        self.drop, self.neck, self.head = nn.Dropout(dropout), nn.Identity(), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.gru(x.view(-1, 8, 8))[0][:, -1]
        return self.head(self.drop(self.neck(self.act(self.fc(h)))))


class Dense(nn.Module):
    """Two hidden layers."""

    def __init__(self, dropout: float = 0.0, act: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.fc1, self.act1, self.fc2, self.act2 = (
            nn.Linear(64, 64),
            act(),
            nn.Linear(64, 32),
            act(),
        )
        self.drop, self.neck, self.head = nn.Dropout(dropout), nn.Identity(), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.neck(self.act2(self.fc2(self.act1(self.fc1(x)))))))


class Autoencoder(nn.Module):
    """64-32-12-32-64."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.fc1, self.act1 = nn.Linear(64, 32), nn.ReLU()
        self.code, self.drop, self.fc2 = nn.Linear(32, 12), nn.Dropout(dropout), nn.Linear(12, 32)
        self.act2, self.neck, self.head = nn.ReLU(), nn.Identity(), nn.Linear(32, 64)

    def forward(self, x: Tensor) -> Tensor:
        h = self.drop(self.code(self.act1(self.fc1(x))))
        return self.head(self.neck(self.act2(self.fc2(h))))


class Scalar(nn.Module):
    """One number per sample from a model's features, (B, 1): a regression."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.out = nn.Linear(model.head.out_features, 1)  # pyright: ignore

    def forward(self, x: Tensor) -> Tensor:
        h = self.model(x)
        return self.out(h if h.ndim == 2 else h.mean(1))
