"""Are the laws of random small networks counted right, and how long does it take?

Linear, deep linear, ReLU with and without biases, convolution with ReLU, softmax attention with and
without biases, SwiGLU and polynomial networks, D ≤ 40, in float64: the number of independent laws
by Lie brackets beside theory. One process, one thread.

    python -m benchmarks.law_counts           # over a hundred networks, about a minute
    python -m benchmarks.law_counts --quick   # two of each kind, writes no file
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.machine import facts
from thalweg.laws import (
    Fields,
    conservation_laws,
    fields_from_map,
    fields_from_model,
    generic_point,
    path_map,
)
from thalweg.laws.rank import certain_rank

RESULT = Path(__file__).parent / "results" / "law_counts.json"
Case = tuple[str, Fields, int]


class Attention(nn.Module):
    """One head with ``head`` rows on inputs of width ``dim``."""

    def __init__(self, dim: int, head: int, bias: bool) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(dim, head, bias=bias) for _ in range(3))
        self.o = nn.Linear(head, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.q(x), self.k(x), self.v(x)
        return self.o((q @ k.transpose(-1, -2)).softmax(-1) @ v)


class SwiGLU(nn.Module):
    """W3 (silu(W1 x) ⊙ W2 x)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(dim, hidden, bias=False), nn.Linear(dim, hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(nn.functional.silu(self.gate(x)) * self.up(x))


class Power(nn.Module):
    """Σ u_j (v_j·x)^k."""

    def __init__(self, dim: int, units: int, k: int) -> None:
        super().__init__()
        self.u, self.v = nn.Parameter(torch.randn(units)), nn.Parameter(torch.randn(units, dim))
        self.k = k

    def forward(self, x: Tensor) -> Tensor:
        return (((x @ self.v.T) ** self.k) @ self.u)[:, None]


def cases(each: int) -> Iterator[Case]:
    """``each`` networks of every kind, with the number of laws that theory gives."""
    generator = torch.Generator().manual_seed(0)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (1,), generator=generator))

    for _ in range(each):
        m, r, n = draw(1, 4), draw(1, 4), draw(1, 4)
        laws = r * (r + 1) // 2 if r <= m + n else (m + n) * r - (m + n) * (m + n - 1) // 2
        yield "linear", _product([n, r, m]), laws
        widths = [draw(1, 3) for _ in range(4)]
        yield "deep linear", _product(widths), _balance(widths, generator)
        for bias in (False, True):
            widths = [draw(1, 3), draw(1, 4), draw(1, 2)]
            phi, dim = path_map(widths, bias=bias)
            kind = "ReLU with biases" if bias else "ReLU"
            yield kind, fields_from_map(phi, dim), widths[1]
        out, channels, into, taps = draw(1, 2), draw(1, 3), draw(1, 2), draw(2, 3)
        yield "convolution, ReLU", _convolution(out, channels, into, taps), channels
        for bias in (False, True):
            head = draw(1, 2)
            module = Attention(2, head, bias)
            kind = "attention with biases" if bias else "attention"
            yield kind, _any(module, (3, 2)), head * (head + 1) + (head if bias else 0)
        hidden = draw(1, 4)
        yield "SwiGLU", _any(SwiGLU(2, hidden), (2,)), hidden
        units = draw(1, 2)
        yield "polynomial", _any(Power(2, units, draw(2, 3)), (2,)), units


def run(each: int) -> dict[str, object]:
    """Counts every network; per kind how many are right, the largest D and the seconds."""
    kinds: dict[str, dict[str, float]] = {}
    smallest, begun = float("inf"), time.perf_counter()
    for kind, family, laws in cases(each):
        start = time.perf_counter()
        report = conservation_laws(family, method="brackets")
        took = time.perf_counter() - start
        row = kinds.setdefault(kind, {"networks": 0, "right": 0, "largest_dim": 0, "wall_s": 0.0})
        row["networks"] += 1
        row["right"] += report.n_laws == laws
        row["largest_dim"] = max(row["largest_dim"], family.dim)
        row["wall_s"] = round(row["wall_s"] + took, 3)
        smallest = min(smallest, report.gap)
        if report.n_laws != laws:
            print(f"{kind}, D = {family.dim}: {report.n_laws} laws, theory says {laws}")
    return {
        "networks": sum(int(k["networks"]) for k in kinds.values()),
        "right": sum(int(k["right"]) for k in kinds.values()),
        "smallest_gap": smallest,
        "wall_s": round(time.perf_counter() - begun, 2),
        "kinds": kinds,
    }


def _product(widths: list[int]) -> Fields:
    shapes = list(zip(widths[1:], widths[:-1], strict=True))
    sizes = [a * b for a, b in shapes]

    def phi(theta: Tensor) -> Tensor:
        parts = [p.reshape(s) for p, s in zip(theta.split(sizes), shapes, strict=True)]
        out = parts[0]
        for weight in parts[1:]:
            out = weight @ out
        return out

    return fields_from_map(phi, sum(sizes))


def _balance(widths: list[int], generator: torch.Generator) -> int:
    """Rank of the Jacobian of all W_{l+1}ᵀW_{l+1} − W_l W_lᵀ."""
    shapes = list(zip(widths[1:], widths[:-1], strict=True))
    sizes = [a * b for a, b in shapes]

    def laws(theta: Tensor) -> Tensor:
        w = [p.reshape(s) for p, s in zip(theta.split(sizes), shapes, strict=True)]
        return torch.cat([(b.T @ b - a @ a.T).reshape(-1) for a, b in itertools.pairwise(w)])

    jacobian = torch.func.jacrev(laws)(generic_point(sum(sizes), generator=generator))
    assert isinstance(jacobian, Tensor)
    return certain_rank(jacobian, what="independent balance laws").rank


def _convolution(out: int, channels: int, into: int, taps: int) -> Fields:
    """A hidden convolution with bias and ReLU, read by another: products of taps per channel."""
    u, v = out * channels * taps, channels * (into * taps + 1)

    def phi(theta: Tensor) -> Tensor:
        second = theta[:u].reshape(out, channels, taps)
        first = theta[u:].reshape(channels, into * taps + 1)
        return torch.einsum("oct,ci->ocit", second, first)

    return fields_from_map(phi, u + v)


def _any(module: nn.Module, shape: tuple[int, ...]) -> Fields:
    def sample(g: torch.Generator) -> tuple[Tensor, Tensor]:
        return torch.randn(8, *shape, generator=g), torch.zeros(8)

    return fields_from_model(module, "any", sample)


def main(argv: list[str] | None = None) -> None:
    """Runs and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two networks of each kind, no file")
    quick = parser.parse_args(argv).quick
    torch.set_num_threads(1)
    torch.manual_seed(0)
    result = run(2 if quick else 12)
    print(json.dumps(result, indent=2))
    if not quick:
        command = "python -m benchmarks.law_counts"
        head = {"command": command, **facts("torch")}
        RESULT.write_text(json.dumps({**head, **result}, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
