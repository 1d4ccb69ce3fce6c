"""``caa_vector`` and ``steer`` beside steering-vectors: the same numbers, and how long they take.

A GPT-2 of random weights, so that nothing is downloaded; the vector of one block from 64 pairs of
token sequences, and a forward pass that is steered there. Methods take turns, block after block, in
an order that is shuffled; ratios are medians of the ratios within blocks. One process, one thread.
The peer takes prompts through a tokenizer; here its recorder is given tokens, the cheaper way.

    pip install --no-deps --target PEERS steering-vectors
    PYTHONPATH=PEERS python -m benchmarks.steering          # two minutes
    PYTHONPATH=PEERS python -m benchmarks.steering --quick  # small, writes no file
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.machine import facts
from thalweg.instruments import caa_vector, steer

RESULT = Path(__file__).parent / "results" / "steering.json"
PEER = "steering-vectors"
LAYER, ALPHA = 2, 3.0
CONFIG: Any = {"decoder_block": "transformer.h.{num}"}
Call = Callable[[], Tensor]


def timed(methods: dict[str, Call], first: str, blocks: int) -> dict[str, Any]:
    """Seconds of each and ratios to the first, all in turn."""
    wall: dict[str, list[float]] = {name: [] for name in methods}
    order, chance = list(methods), random.Random(0)
    for block in range(blocks + 3):
        chance.shuffle(order)
        for name in order:
            start = time.perf_counter()
            methods[name]()
            if block >= 3:
                wall[name].append(time.perf_counter() - start)
    rows = {}
    for name in methods:
        ratios = [a / b for a, b in zip(wall[name], wall[first], strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4)
        rows[name] = {
            "wall_s": statistics.median(wall[name]),
            "ratio": statistics.median(ratios),
            "ratio_quartiles": [low, high],
        }
    return rows


def main(argv: list[str] | None = None) -> None:
    """Runs and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small, writes no file")
    quick = parser.parse_args(argv).quick
    from steering_vectors import (  # pyright: ignore[reportMissingImports]
        SteeringVector,
        record_activations,
    )
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.set_num_threads(1)
    torch.manual_seed(0)
    busy, blocks = os.getloadavg(), 3 if quick else 30
    model = GPT2LMHeadModel(GPT2Config(n_layer=4, n_embd=256, n_head=4, vocab_size=2000)).eval()
    pos, neg = torch.randint(2000, (2, 64, 24))
    name = f"transformer.h.{LAYER}"

    def ours() -> Tensor:
        return caa_vector(model, name, pos, neg)

    def theirs() -> Tensor:
        with (
            torch.no_grad(),
            record_activations(model, layer_config=CONFIG, layer_nums=[LAYER]) as seen,
        ):
            model(pos)
            model(neg)
        high, low = seen[LAYER]
        return high[:, -1].mean(0) - low[:, -1].mean(0)

    def passes() -> Tensor:
        with torch.no_grad():
            model(pos)
            return model(neg).logits

    vector = ours()
    peer = SteeringVector({LAYER: vector}, "decoder_block")
    one = pos[:1]

    def plain() -> Tensor:
        with torch.no_grad():
            return model(one).logits

    def steered() -> Tensor:
        with torch.no_grad(), steer(model, name, vector, ALPHA):
            return model(one).logits

    def steered_by_peer() -> Tensor:
        with torch.no_grad(), peer.apply(model, layer_config=CONFIG, multiplier=ALPHA):
            return model(one).logits

    result = {
        "blocks": blocks,
        "load_average": [busy[0]],
        "parameters": sum(p.numel() for p in model.parameters()),
        "largest_difference": {
            "vector": float((ours() - theirs()).abs().max()),
            "steered logits": float((steered() - steered_by_peer()).abs().max()),
            "of logits by steering": float((steered() - plain()).abs().max()),
        },
        "vector": timed(
            {"two passes alone": passes, "thalweg": ours, PEER: theirs}, "two passes alone", blocks
        ),
        "steered pass": timed(
            {"a pass alone": plain, "thalweg": steered, PEER: steered_by_peer},
            "a pass alone",
            10 * blocks,
        ),
    }
    result["load_average"].append(os.getloadavg()[0])
    print(json.dumps(result, indent=2))
    if not quick:
        head = {
            "command": "python -m benchmarks.steering",
            **facts("torch", "transformers", PEER),
        }
        RESULT.write_text(json.dumps({**head, **result}, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
