"""A generator and a discriminator, each with its own optimizer, learn eight points on a circle.

python examples/two_optimizers.py --steps 1500
"""

import argparse
import math

import torch
import torch.nn.functional as F
from torch import nn


class Generator(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(4, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2)
        )

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.net(z)


class Discriminator(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(2, width), nn.LeakyReLU(0.2), nn.Linear(width, width), nn.LeakyReLU(0.2),
            nn.Linear(width, 1),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.manual_seed(args.seed)

    g, d = Generator(args.width).to(args.device), Discriminator(args.width).to(args.device)
    g_optimizer = torch.optim.Adam(g.parameters(), lr=1e-3, betas=(0.5, 0.99))
    d_optimizer = torch.optim.Adam(d.parameters(), lr=1e-3, betas=(0.5, 0.99))
    for step in range(1, args.steps + 1):
        angle = torch.randint(0, 8, (args.batch,), device=args.device) * (math.pi / 4)
        real = torch.stack([angle.cos(), angle.sin()], 1)
        real = real + 0.02 * torch.randn_like(real)
        fake = g(torch.randn(args.batch, 4, device=args.device))

        d_optimizer.zero_grad()
        d_loss = F.softplus(-d(real)).mean() + F.softplus(d(fake.detach())).mean()
        d_loss.backward()
        d_optimizer.step()

        g_optimizer.zero_grad()
        g_loss = F.softplus(-d(fake)).mean()
        g_loss.backward()
        g_optimizer.step()
        if step % 500 == 0:
            radius = fake.detach().norm(dim=1)
            print(
                f"step {step:5d}  discriminator {d_loss.item():.3f}  generator {g_loss.item():.3f}"
                f"  radius {radius.mean():.3f} +- {radius.std():.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
