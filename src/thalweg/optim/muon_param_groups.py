"""Which parameters of a model Muon is for: hidden matrices, and nothing else.

Source: K. Jordan et al. 2024 (github.com/KellerJordan/Muon): embeddings, the output layer, gains
and biases are left to AdamW.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from thalweg.errors import unknown_name

__all__ = ["muon_param_groups"]

# Rows of an embedding are looked up one by one, gates of a recurrent layer are several matrices in
# one, and the kernel of a transposed convolution has its inputs first.
NOT_MATRICES = (nn.Embedding, nn.EmbeddingBag, nn.RNNBase, nn.modules.conv._ConvTransposeNd)


def muon_param_groups(
    model: nn.Module, *, heads: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Splits the trainable parameters of a model: hidden matrices, and the rest.

    Hidden are the weights of at least two dimensions of linear, convolution and attention layers.
    Not hidden: embeddings and what is tied to them, heads, recurrent layers (their gates are
    fused), transposed convolutions, gains, biases, free parameters as position embeddings. A fused
    QKV counts as one matrix; split it in the model if its parts should be orthogonalised apart.

    Args:
        model: any module.
        heads: names of the output layers; by default what ``get_output_embeddings()`` gives in a
            Transformers model, else the last layer with a matrix.

    Returns:
        Two param groups, ``{"params": [...], "use_muon": True}`` and the rest with False, each
        parameter in exactly one.

    Raises:
        ValueError: if ``heads`` names a module that the model does not have.

    Example:
        >>> net = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 9))
        >>> hidden, rest = muon_param_groups(net)
        >>> [tuple(p.shape) for p in hidden["params"]], len(rest["params"])
        ([(4, 4)], 4)
    """
    modules = dict(model.named_modules())
    for name in heads or ():
        if name not in modules:
            raise ValueError(str(unknown_name("head", name, [m for m in modules if m])))
    hidden: set[int] = set()
    layers: list[str] = []
    outside: set[int] = set()
    for name, module in modules.items():
        for key, parameter in module.named_parameters(recurse=False):
            matrix = parameter.ndim >= 2 and (key == "weight" or key.endswith("_weight"))
            if matrix and not isinstance(module, NOT_MATRICES) and not _is_norm(module):
                hidden.add(id(parameter))
                layers.append(name)
            else:
                outside.add(id(parameter))
    if heads is None:
        heads = _heads(model, modules, layers)
    for head in heads:
        outside |= {id(p) for p in modules[head].parameters()}
    groups: tuple[list[Tensor], list[Tensor]] = ([], [])
    for parameter in model.parameters():
        if parameter.requires_grad:
            use = id(parameter) in hidden and id(parameter) not in outside
            groups[0 if use else 1].append(parameter)
    return [{"params": groups[0], "use_muon": True}, {"params": groups[1], "use_muon": False}]


def _is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower()  # every library writes its own


def _heads(model: nn.Module, modules: dict[str, nn.Module], layers: list[str]) -> list[str]:
    told = getattr(model, "get_output_embeddings", None)
    head = told() if callable(told) else None
    if isinstance(head, nn.Module):
        return [name for name, module in modules.items() if module is head]
    return layers[-1:]
