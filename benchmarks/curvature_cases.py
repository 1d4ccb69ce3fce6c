"""Networks whose curvature is measured, with a batch and a loss, trained a little."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

__all__ = ["Batch", "Transformer", "conv_case", "loss_fn", "mlp_case", "transformer_case"]

Batch = tuple[Tensor, Tensor]


class Transformer(nn.Module):
    """Four blocks, causal, 2.5 M parameters; gives one row of logits per token."""

    def __init__(self, vocab: int = 256, width: int = 224, depth: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocab, width)
        block = nn.TransformerEncoderLayer(
            width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True, activation="gelu"
        )
        self.blocks = nn.TransformerEncoder(block, depth, enable_nested_tensor=False)
        self.head = nn.Linear(width, vocab)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (B·T, vocab) for tokens (B, T)."""
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        with sdpa_kernel(SDPBackend.MATH):  # the peers can't differentiate the fused one twice
            return self.head(self.blocks(self.embed(tokens), mask=mask)).flatten(0, 1)


def loss_fn(model: nn.Module, batch: Batch) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def trained(model: nn.Module, batch: Batch, num_steps: int) -> nn.Module:
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(num_steps):
        optimizer.zero_grad()
        loss_fn(model, batch).backward()
        optimizer.step()
    model.zero_grad()
    return model


def mlp_case(width: int = 256) -> tuple[nn.Module, Batch]:
    """Digits, 256 of them, and three layers; 85 k parameters at the usual width."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    batch = torch.tensor(x[:256] / 16.0, dtype=torch.float32), torch.tensor(y[:256])
    first, second, third = nn.Linear(64, width), nn.Linear(width, width), nn.Linear(width, 10)
    return trained(nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), third), batch, 40), batch


def conv_case() -> tuple[nn.Module, Batch]:
    """Digits and a small convolutional network, 57 k parameters."""
    layers = [nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 16, 3, padding=1), nn.ReLU()]
    layers += [nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    layers += [nn.Linear(512, 100), nn.ReLU(), nn.Linear(100, 10)]
    batch = mlp_case()[1]
    return trained(nn.Sequential(*layers), batch, 40), batch


def transformer_case() -> tuple[nn.Module, Batch]:
    tokens = torch.randint(32, (8, 33)) * torch.arange(1, 34) % 256
    batch = tokens[:, :-1].contiguous(), tokens[:, 1:].reshape(-1)
    return trained(Transformer(), batch, 20), batch
