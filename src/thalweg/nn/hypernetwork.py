"""A network that predicts the weights of another, free of proportionality to its input.

    θ = θ₀ + h(E(γ); ω),  E(γ) = [cos(πγ/2), sin(πγ/2)],  ‖E(γ)‖ = √d for every γ

A piecewise linear h without biases is homogeneous: h(cγ) = c h(γ), and a primary network of L
predicted layers has outputs ∝ c^L. The encoding makes the norm of the input constant, and the
prediction is a change to ordinary learnable weights θ₀.

Source: J. J. Gonzalez Ortiz, J. Guttag, A. V. Dalca 2023, arXiv 2304.07645; checked against the
authors' code, hyperlight. Departures: the batch axis is kept for a batch of one; input outside
[0, 1] raises where it would be encoded; gains of normalisation layers, at which the authors' code
fails, start at 1; changes of biases start as those of weights do (release 0.0.5 starts them at 0).

Axes: `B` hyper-inputs, `d` their entries in all.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["HyperNet", "encode"]

ENCODINGS = ("cos|sin", "z|1-z", None)
LARGE = 10**8  # entries of the last layer


def encode(gamma: Tensor, mode: str | None = "cos|sin") -> Tensor:
    """Twice as many numbers of constant norm.

    Args:
        gamma: (..., d); in [0, 1] the code is one to one.
        mode: ``cos|sin``, all cosines of πγ/2, then all sines, with Euclidean norm √d for every γ;
            ``z|1-z``, γ and then 1 − γ, with sum of magnitudes d in [0, 1]; None for γ itself.

    Returns:
        (..., 2d), or (..., d) for None.

    Raises:
        ValueError: for another mode.

    Source:
        Gonzalez Ortiz et al. 2023, arXiv 2304.07645; entry hypernetwork-mip.

    Example:
        >>> encode(torch.tensor([0.0, 0.5]), "z|1-z")
        tensor([0.0000, 0.5000, 1.0000, 0.5000])
        >>> encode(torch.tensor([0.0]))
        tensor([1., 0.])
    """
    if mode not in ENCODINGS:
        raise ValueError(f"encoding must be 'cos|sin', 'z|1-z' or None, got {mode!r}")
    if mode is None:
        return gamma
    if mode == "z|1-z":
        return torch.cat([gamma, 1 - gamma], -1)
    angle = gamma * (math.pi / 2)
    return torch.cat([angle.cos(), angle.sin()], -1)


class HyperNet(nn.Module):
    """Dense network from hyper-inputs to named tensors.

    Inputs are flattened and concatenated in the order of their sorted names; outputs are cut in the
    order of ``output_shapes``. θ₀ is the bias of the last layer: give it a group of its own where
    weight decay should not reach it, ``{"params": [net.output.bias], "weight_decay": 0.0}``.

    Args:
        input_shapes: name to shape of each hyper-input; () for a number.
        output_shapes: name to shape of each predicted tensor.
        hidden: widths of the hidden layers.
        encoding: mode of ``encode``; with one, inputs must be in [0, 1].
        residual: whether θ₀ starts as the primary network would (matrices named ``…weight`` by
            Kaiming's normal law with fan-in, vectors of that name at 1, the rest at 0), or at 0.
        activation: class or function that makes the module between layers.
        generator: of the initial weights.
        dtype: of the parameters, and so of what is predicted.
        device: of the parameters.

    Attributes:
        layers: hidden ``nn.Linear`` layers.
        output: last ``nn.Linear``; its bias is θ₀.

    Raises:
        ValueError: for an unknown encoding, or if there is no input, output or a width below 1.

    Source:
        Gonzalez Ortiz et al. 2023, arXiv 2304.07645; entry hypernetwork-mip.

    Example:
        With a last weight of zero every input gives θ₀:

        >>> net = HyperNet({"lr": ()}, {"scale.weight": (2,)})
        >>> _ = nn.init.zeros_(net.output.weight)
        >>> net(lr=torch.tensor([0.1, 0.9]))["scale.weight"].tolist()
        [[1.0, 1.0], [1.0, 1.0]]
    """

    def __init__(
        self,
        input_shapes: Mapping[str, Sequence[int]],
        output_shapes: Mapping[str, Sequence[int]],
        hidden: Sequence[int] = (16, 128),
        encoding: str | None = "cos|sin",
        residual: bool = True,
        activation: Callable[[], nn.Module] = nn.LeakyReLU,
        *,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if not input_shapes or not output_shapes:
            raise ValueError("a hypernetwork needs an input and an output, got none of one")
        if any(width < 1 for width in hidden):
            raise ValueError(f"hidden widths must be at least 1, got {list(hidden)}")
        if encoding not in ENCODINGS:
            raise ValueError(f"encoding must be 'cos|sin', 'z|1-z' or None, got {encoding!r}")
        self.input_shapes = {n: torch.Size(s) for n, s in input_shapes.items()}
        self.output_shapes = {n: torch.Size(s) for n, s in output_shapes.items()}
        self.encoding, self.residual = encoding, residual
        entries = sum(s.numel() for s in self.input_shapes.values())
        widths = [entries if encoding is None else 2 * entries, *hidden]
        total = sum(s.numel() for s in self.output_shapes.values())
        if widths[-1] * total > LARGE:
            warnings.warn(
                f"the last layer has {widths[-1]} × {total} = {widths[-1] * total:.2g} entries: "
                "predict fewer parameters, or use a smaller last hidden width",
                stacklevel=2,
            )
        made: dict[str, Any] = {"dtype": dtype, "device": device}
        self.layers = nn.ModuleList(nn.Linear(a, b, **made) for a, b in itertools.pairwise(widths))
        self.activation = activation()
        self.output = nn.Linear(widths[-1], total, **made)
        self._initialise(generator)

    @classmethod
    def from_module(
        cls,
        primary: nn.Module,
        input_shapes: Mapping[str, Sequence[int]],
        hidden: Sequence[int] = (16, 128),
        *,
        names: Sequence[str] | None = None,
        **options: Any,
    ) -> HyperNet:
        """Predicts a module's parameters; θ₀ are its present, perhaps trained, values.

        Args:
            primary: the module; its parameters share dtype and device.
            input_shapes: as for the class.
            hidden: as for the class.
            names: of the parameters; default all.
            **options: further arguments of the class.

        Raises:
            ValueError: if the module has no parameter, or lacks one that is named.
        """
        known = dict(primary.named_parameters())
        missing = sorted(set(names or ()) - set(known))
        if missing or not known:
            raise ValueError(f"the module has no parameter {missing or 'at all'}")
        chosen = {n: known[n] for n in (known if names is None else names)}
        first = next(iter(chosen.values()))
        options = {"dtype": first.dtype, "device": first.device} | options
        net = cls(input_shapes, {n: p.shape for n, p in chosen.items()}, hidden, **options)
        if net.residual:
            with torch.no_grad():
                net.output.bias.copy_(torch.cat([p.flatten() for p in chosen.values()]))
        return net

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Predicted tensors.

        Args:
            **inputs: each of its shape, or all with one batch axis before it.

        Returns:
            Name to tensor, with the batch axis if the inputs have one, also if B = 1.

        Raises:
            ValueError: if names, shapes or batch sizes do not fit, or an input that is encoded is
                outside [0, 1] (looked at on the CPU only, where it costs no waiting).
        """
        gamma = encode(self._flat(inputs), self.encoding)
        h = gamma.to(self.output.weight.dtype)
        for layer in self.layers:
            h = self.activation(layer(h))
        flat = self.output(h)
        sizes = [s.numel() for s in self.output_shapes.values()]
        cut = zip(self.output_shapes.items(), flat.split(sizes, -1), strict=True)
        return {name: part.reshape(*flat.shape[:-1], *shape) for (name, shape), part in cut}

    def extra_repr(self) -> str:
        """Inputs, number of outputs, form."""
        total = sum(s.numel() for s in self.output_shapes.values())
        shapes = {n: tuple(s) for n, s in self.input_shapes.items()}
        return f"{shapes} -> {total}, encoding={self.encoding!r}, residual={self.residual}"

    def _flat(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """(B, d) or (d,)."""
        if inputs.keys() != self.input_shapes.keys():
            missing = sorted(self.input_shapes.keys() - inputs.keys())
            unknown = sorted(inputs.keys() - self.input_shapes.keys())
            raise ValueError(
                f"expected the inputs {sorted(self.input_shapes)}, got {sorted(inputs)}: "
                f"missing {missing}, unknown {unknown}"
            )
        batches, parts = {}, []
        for name in sorted(inputs):
            x, shape = inputs[name], self.input_shapes[name]
            batched = x.ndim == len(shape) + 1
            if (x.shape[1:] if batched else x.shape) != shape:
                raise ValueError(
                    f"input {name!r} must be {tuple(shape)}, or that behind a batch axis, got "
                    f"{tuple(x.shape)}"
                )
            batches[name] = len(x) if batched else None
            parts.append(x.reshape(*x.shape[: x.ndim - len(shape)], shape.numel()))
        if len(set(batches.values())) > 1:
            raise ValueError(f"inputs must share one batch size or all have none, got {batches}")
        flat = torch.cat(parts, -1)
        looked_at = flat.device.type == "cpu" and not torch.compiler.is_compiling()
        if self.encoding is not None and looked_at and flat.numel():
            low, high = flat.detach().min(), flat.detach().max()
            if not (low >= 0 and high <= 1):
                raise ValueError(
                    f"inputs must be in [0, 1], got {low:.4g} … {high:.4g}: the encoding is not "
                    "one to one elsewhere; rescale them first"
                )
        return flat

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator | None) -> None:
        gain = nn.init.calculate_gain("leaky_relu", 0.01)
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            layer.weight.normal_(0, gain / layer.out_features**0.5, generator=generator)
            layer.bias.zero_()
        sizes = [s.numel() for s in self.output_shapes.values()]
        blocks = zip(
            self.output_shapes.items(),
            self.output.weight.split(sizes),
            self.output.bias.split(sizes),
            strict=True,
        )
        for (name, shape), weight, bias in blocks:
            # As if each predicted tensor had a layer of its own.
            weight.normal_(0, gain / max(1, shape.numel()) ** 0.5, generator=generator)
            bias.zero_()
            if self.residual and name.endswith("weight"):
                if len(shape) > 1:
                    fan_in = shape[1:].numel()
                    bias.normal_(0, (2 / max(1, fan_in)) ** 0.5, generator=generator)
                else:
                    bias.fill_(1.0)
