"""A small transformer learns English, one character at a time, from Python's own documentation.

The text is the docstrings of the standard library, which every Python installation carries.

    python examples/char_transformer.py --steps 60
"""

import argparse
import ast
import sysconfig
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn


def docstrings(most: int = 600_000) -> str:
    """The docstrings of the standard library's modules, in alphabetical order."""
    texts: list[str] = []
    size = 0
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        try:
            tree = ast.parse(path.read_text("utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node)
                if text:
                    texts.append(text)
                    size += len(text)
        if size > most:
            break
    return "".join(c for c in "\n\n".join(texts)[:most] if 32 <= ord(c) < 127 or c == "\n")


class Block(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, d = x.shape
        qkv = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        h = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(h.transpose(1, 2).reshape(b, t, d))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class CharTransformer(nn.Module):
    def __init__(self, vocabulary: int, context: int, dim: int, depth: int, heads: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, dim)
        self.position = nn.Embedding(context, dim)
        self.blocks = nn.Sequential(*[Block(dim, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, vocabulary, bias=False)
        self.head.weight = self.embed.weight
        nn.init.normal_(self.embed.weight, std=0.02)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        where = torch.arange(tokens.shape[1], device=tokens.device)
        return self.head(self.norm(self.blocks(self.embed(tokens) + self.position(where))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--accumulate", type=int, default=2, help="micro-batches per step")
    parser.add_argument("--context", type=int, default=64)
    parser.add_argument("--dim", type=int, default=224)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.manual_seed(args.seed)

    text = docstrings()
    letters = sorted(set(text))
    code = {c: i for i, c in enumerate(letters)}
    tokens = torch.tensor([code[c] for c in text], device=args.device)
    cut = int(0.95 * len(tokens))

    model = CharTransformer(len(letters), args.context, args.dim, args.depth, 4).to(args.device)
    count = sum(p.numel() for p in model.parameters())
    print(f"{len(text):,} characters, {len(letters)} letters, {count:,} parameters", flush=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.1)
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=max(1, args.steps // 5))

    def batch(low: int, high: int) -> tuple[torch.Tensor, torch.Tensor]:
        start = torch.randint(low, high - args.context - 1, (args.batch,))
        rows = torch.stack([tokens[int(s) : int(s) + args.context + 1] for s in start])
        return rows[:, :-1], rows[:, 1:]

    begun = time.perf_counter()
    for step in range(1, args.steps + 1):
        model.train()
        for _ in range(args.accumulate):
            x, y = batch(0, cut)
            loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
            (loss / args.accumulate).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        warm.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 20 == 0 or step == args.steps:
            model.eval()
            with torch.no_grad():
                losses = []
                for _ in range(4):
                    x, y = batch(cut, len(tokens))
                    losses.append(F.cross_entropy(model(x).flatten(0, 1), y.flatten()).item())
            print(
                f"step {step:4d}  train {loss.item():.3f}  held out {sum(losses) / 4:.3f}  "
                f"{(time.perf_counter() - begun) / step * 1e3:.0f} ms/step",
                flush=True,
            )


if __name__ == "__main__":
    main()
