"""Linear layers whose weights and inputs are held in a few bits, and models made of them.

The product takes the quantised input and weight, so the gradient of the weight uses the quantised
input and that of the input the quantised weight; rounding itself passes gradients on unchanged.
Parameters stay in full precision for the optimizer.

Source: T. Huang et al. 2025, arXiv 2502.17055. As there, the head stays in full precision, and so
does all that is no linear layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.nn.fake_quantize import Scheme, check_scheme, fake_quantize

__all__ = ["QuantLinear", "quantize_model"]


class QuantLinear(nn.Linear):
    """A linear layer in few bits: y = q(x) q(W)ᵀ + b.

    Groups of the weight run over the flattened matrix, those of the input along its last axis, so
    that samples do not share scales.

    Args:
        in_features: of the input.
        out_features: of the output.
        bias: whether to add one, in full precision.
        device: of the parameters.
        dtype: of the parameters.
        weight_scheme: scheme of ``fake_quantize`` for the weight; None for full precision.
        act_scheme: that for the input.
        bits: of both.
        group_size: of both.
        act_topk: so many largest inputs of each group stay exact.
        stochastic: whether inputs are rounded by chance; so they are in evaluation, too.
        generator: of that chance.

    Raises:
        ValueError: as ``fake_quantize``.

    Source:
        Huang et al. 2025, arXiv 2502.17055; entry stable-spam.

    Example:
        >>> layer = QuantLinear(2, 1, bias=False, weight_scheme="fp4_official", act_scheme=None)
        >>> layer.weight.data = torch.tensor([[1.0, 0.6]])
        >>> layer(torch.tensor([[1.0, 1.0]]))
        tensor([[1.5000]], grad_fn=<MmBackward0>)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        weight_scheme: Scheme | None = "fp4_e2m1",
        act_scheme: Scheme | None = "fp4_e2m1",
        bits: int = 4,
        group_size: int = 64,
        act_topk: int = 0,
        stochastic: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, device, dtype)
        if weight_scheme is not None:
            check_scheme(weight_scheme, bits, group_size)
        if act_scheme is not None:
            check_scheme(act_scheme, bits, group_size, act_topk, stochastic)
        self.weight_scheme: Scheme | None = weight_scheme
        self.act_scheme: Scheme | None = act_scheme
        self.bits, self.group_size, self.act_topk = bits, group_size, act_topk
        self.stochastic, self.generator = stochastic, generator

    def forward(self, input: Tensor) -> Tensor:  # named as in nn.Linear
        """(…, in_features) to (…, out_features)."""
        weight = self.weight
        if self.weight_scheme is not None:
            weight = fake_quantize(
                weight, bits=self.bits, scheme=self.weight_scheme, group_size=self.group_size
            )
        if self.act_scheme is not None:
            input = fake_quantize(
                input,
                bits=self.bits,
                scheme=self.act_scheme,
                group_size=self.group_size,
                topk=self.act_topk,
                dim=-1,
                stochastic=self.stochastic,
                generator=self.generator,
            )
        return nn.functional.linear(input, weight, self.bias)

    def extra_repr(self) -> str:
        """Features, schemes and groups."""
        return (
            f"{super().extra_repr()}, weight_scheme={self.weight_scheme}, "
            f"act_scheme={self.act_scheme}, bits={self.bits}, group_size={self.group_size}"
        )


def quantize_model(
    model: nn.Module,
    *,
    weight: Scheme | None = "fp4_e2m1",
    act: Scheme | None = "fp4_e2m1",
    bits: int = 4,
    group_size: int = 64,
    act_topk: int = 0,
    stochastic: bool = False,
    generator: torch.Generator | None = None,
    skip: Sequence[str] = ("head", "lm_head"),
) -> nn.Module:
    """Put a ``QuantLinear`` in the place of every ``nn.Linear`` of a model.

    Parameters stay the same objects under the same names: optimizers made before, tied weights and
    state dicts go on to work. Subclasses of ``nn.Linear`` are left alone, among them the projection
    of ``nn.MultiheadAttention``, whose forward never calls it.

    Args:
        model: changed in place.
        weight: scheme of the weights; None for full precision.
        act: that of the inputs.
        bits: see ``QuantLinear``, as all that follow.
        group_size: see there.
        act_topk: see there.
        stochastic: see there.
        generator: see there.
        skip: modules that stay as they are, by full name or by its last part.

    Returns:
        The model.

    Raises:
        ValueError: if there is nothing to replace, or a layer has hooks, which would be lost.

    Source:
        Huang et al. 2025, arXiv 2502.17055; entry stable-spam.

    Example:
        >>> model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> [type(m).__name__ for m in quantize_model(model, skip=["2"])]
        ['QuantLinear', 'ReLU', 'Linear']
    """
    settings: dict[str, Any] = {
        "weight_scheme": weight,
        "act_scheme": act,
        "bits": bits,
        "group_size": group_size,
        "act_topk": act_topk,
        "stochastic": stochastic,
        "generator": generator,
    }
    found = {
        name: module
        for name, module in model.named_modules(remove_duplicate=False)
        if type(module) is nn.Linear and name and not {name, name.rpartition(".")[2]} & {*skip}
    }
    if not found:
        raise ValueError(
            f"the model has no nn.Linear inside to quantise, or all are skipped: skip={list(skip)}"
        )
    made: dict[nn.Module, QuantLinear] = {}
    for name, linear in found.items():
        if linear._forward_hooks or linear._forward_pre_hooks or linear._backward_hooks:
            raise ValueError(f"{name!r} has hooks, which would be lost: quantise before hooking")
        if linear not in made:
            made[linear] = _of(linear, settings)
    for name, linear in found.items():
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, made[linear])
    return model


def _of(linear: nn.Linear, settings: dict[str, Any]) -> QuantLinear:
    """With the same parameters, mode included."""
    new = QuantLinear(
        linear.in_features, linear.out_features, linear.bias is not None, "meta", **settings
    )
    new.weight, new.bias = linear.weight, linear.bias
    return new.train(linear.training)
