"""Do the weights of a small transformer run in a few dimensions, and do its steps know of them?

Attention without MLPs learns marker-based modular addition. From its snapshots come the principal
components of the path of every attention matrix, beside those of a random walk. At five times the
commutators of minibatch steps are split into the parts inside and outside of the leading
components, beside random frames of the same size, and beside components of the steps before only: a
basis that has seen the steps it is compared with leans towards them.

Source: Y. Xu 2026, arXiv 2602.10496, smaller.

Cost: paper does 595 × the work of quick (num_steps * len(ms) * layers * (1e6 + 4 * batch * length *
width**2)), in 2 GB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median

import torch
from torch import Tensor, nn

from thalweg.data import MarkerModAdd
from thalweg.instruments import attention_entropy
from thalweg.studies.figures import Figures, data_hash
from thalweg.trajectory import (
    Alignment,
    CommutatorResult,
    DeltaStore,
    SubspaceBasis,
    commutator,
    commutator_alignment,
    execution_basis,
    trajectory_pca,
)

__all__ = ["PRESETS", "Config", "run"]


@dataclass(frozen=True)
class Config:
    """Settings.

    Attributes:
        length: tokens in a sequence.
        vocab: tokens in all.
        modulus: C.
        ms: numbers of markers.
        width: of the transformer.
        heads: of each layer.
        layers: attention layers.
        lr: of AdamW.
        batch: sequences a step, and in each batch of a commutator.
        num_steps: of training.
        snapshots: kept, evenly spaced.
        times: steps at which commutators are taken; multiples of the spacing of snapshots.
        draws: commutators at each time.
        frames: random frames beside each.
        k: components per matrix.
    """

    length: int = 12
    vocab: int = 32
    modulus: int = 4
    ms: tuple[int, ...] = (1, 2)
    width: int = 48
    heads: int = 4
    layers: int = 2
    lr: float = 1e-3
    batch: int = 128
    num_steps: int = 1500
    snapshots: int = 60
    times: tuple[int, ...] = (100, 400, 750, 1100, 1450)
    draws: int = 5
    frames: int = 10
    k: int = 3


PRESETS = {
    "smoke": Config(
        width=24, num_steps=240, snapshots=24, times=(60, 240), draws=2, frames=3, batch=64
    ),
    "quick": Config(),
    "full": Config(num_steps=6000, snapshots=120, times=(100, 1000, 2500, 4000, 5950)),
    "paper": Config(
        length=16,
        vocab=256,
        modulus=8,
        ms=(1, 2, 3, 4),
        width=128,
        layers=5,
        lr=3e-4,
        num_steps=20_000,
        snapshots=40,
        times=(500, 5000, 10_000, 15_000, 20_000),
        draws=9,
    ),
}
QKV = ("q", "k", "v", "o")


class _Layer(nn.Module):
    """x ← x + W_O Attn(LN x)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in QKV)
        self.heads = heads
        self.attn: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (
            layer(h).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        attn = scores.masked_fill(mask, -torch.inf).softmax(-1)
        self.attn = attn.detach()
        return x + self.o((attn @ v).transpose(1, 2).flatten(2))


class Transformer(nn.Module):
    """Attention only, learned positions, a head on the last token."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embed = nn.Embedding(config.vocab, config.width)
        self.position = nn.Parameter(0.02 * torch.randn(config.length, config.width))
        self.layers = nn.ModuleList(
            _Layer(config.width, config.heads) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, config.modulus)

    def forward(self, x: Tensor) -> Tensor:
        """(n, T) tokens → (n, C) logits."""
        h = self.embed(x) + self.position
        for layer in self.layers:
            h = layer(h)
        return self.head(self.norm(h[:, -1]))


def run(config: Config, seed: int) -> Figures:
    """One training with its snapshots and commutators."""
    task = MarkerModAdd(config.length, config.modulus, config.ms, config.vocab)
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = Transformer(config)
    optimizer = torch.optim.AdamW(model.parameters(), config.lr)
    store = DeltaStore({}, base=_weights(model))
    spacing = config.num_steps // config.snapshots
    commutators: dict[int, list[CommutatorResult]] = {}
    same: list[float] = []
    entropies: list[float] = []
    for step in range(1, config.num_steps + 1):
        loss = _loss(model, task.sample(config.batch, generator))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % spacing == 0:
            store.append(step, _weights(model))
        if step in config.times:
            pairs = [
                [task.sample(config.batch, generator) for _ in range(2)]
                for _ in range(config.draws)
            ]
            commutators[step] = [commutator(_loss, model, a, b) for a, b in pairs]
            same.append(commutator(_loss, model, pairs[0][0], pairs[0][0]).defect)
            entropies.append(_entropy(model))
    names = [name for name in store.tensors if name.endswith(tuple(f".{n}.weight" for n in QKV))]
    ranks = {name: trajectory_pca(store, names=[name]) for name in names}
    walk = trajectory_pca(_walk(store, names[0], seed))
    basis = _basis(store, config.k, None)
    inside = {t: _aligned(commutators[t], basis, config, seed) for t in config.times}
    lagged = {
        t: _aligned(commutators[t], _basis(store, config.k, t - spacing), config, seed)
        for t in config.times
    }
    ratios = {t: median(a.ratio for a in inside[t]) for t in config.times}
    defects = {t: median(c.defect for c in commutators[t]) for t in config.times}
    first, *later = config.times
    outside = {t: median(a.perpendicular for a in inside[t]) for t in config.times}
    random_outside = min(a.perpendicular_random for t in config.times for a in inside[t])
    test_x, test_y = task.sample(1000, generator)
    steps = list(config.times)
    return Figures(
        samples={
            "low_rank_paths": max(pca.r() for pca in ranks.values()),
            "prefers_manifold": median(ratios.values()),
            "preference_fades": ratios[steps[-1]] / ratios[first],
            "mostly_orthogonal": min(outside.values()),
            "defect_grows": max(defects[t] for t in later) / defects[first],
        },
        baselines={
            "low_rank_paths": mean(pca.r() for pca in ranks.values()),
            "prefers_manifold": median(a.ratio for t in steps for a in lagged[t]),
            "preference_fades": ratios[first],
            "mostly_orthogonal": random_outside,
            "defect_grows": defects[first],
        },
        controls={
            "low_rank_paths": walk.r(),
            "prefers_manifold": _frame_in_place(commutators, basis, config, seed),
            "mostly_orthogonal": random_outside,
            "defect_grows": max(same),
        },
        curves={
            "preference for the subspace": (steps, [ratios[t] for t in steps]),
            "preference, earlier steps only": (
                steps,
                [median(a.ratio for a in lagged[t]) for t in steps],
            ),
            "defect": (steps, [defects[t] for t in steps]),
            "attention entropy, first layer": (steps, entropies),
            **{
                f"components of {name.removesuffix('.weight')}": (
                    list(range(1, 11)),
                    pca.explained[:10].cumsum(0).tolist(),
                )
                for name, pca in ranks.items()
            },
            "components of a random walk": (
                list(range(1, 11)),
                walk.null[:10].cumsum(0).tolist(),
            ),
        },
        data_hash=data_hash(test_x, test_y),
    )


def _loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in model.named_parameters()}


def _basis(store: DeltaStore, k: int, last: int | None) -> SubspaceBasis:
    """Leading components of every attention matrix, of the snapshots up to a step."""

    def select(name: str, _: object) -> bool:
        return name.endswith(tuple(f".{n}.weight" for n in QKV))

    return execution_basis(store, k, select=select, steps=slice(None, last))


def _aligned(
    found: Sequence[CommutatorResult], basis: SubspaceBasis, config: Config, seed: int
) -> list[Alignment]:
    g = torch.Generator().manual_seed(seed)
    return [commutator_alignment(c.delta, basis, config.frames, g) for c in found]


def _frame_in_place(
    commutators: dict[int, list[CommutatorResult]],
    basis: SubspaceBasis,
    config: Config,
    seed: int,
) -> float:
    """The median ratio with random directions in the place of the components, block for block."""
    g = torch.Generator().manual_seed(seed)
    blocks = tuple(
        (start, torch.linalg.qr(torch.randn(Q.shape, generator=g).double()).Q)
        for start, Q in basis.blocks
    )
    frame = SubspaceBasis(blocks, basis.dim, {})
    return median(
        a.ratio for found in commutators.values() for a in _aligned(found, frame, config, seed)
    )


def _walk(store: DeltaStore, name: str, seed: int) -> Tensor:
    """A random walk of as many points in as many dimensions as a matrix has."""
    g = torch.Generator().manual_seed(seed)
    return torch.randn(len(store.steps) + 1, store.tensors[name].numel, generator=g).cumsum(0)


def _entropy(model: Transformer) -> float:
    """Of the last query in the first layer, of the batch that it saw last."""
    layer = model.layers[0]
    assert isinstance(layer, _Layer) and layer.attn is not None
    return attention_entropy(layer.attn).item()
