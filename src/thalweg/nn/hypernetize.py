"""A module whose parameters are predicted from hyper-inputs, one set of them for each.

Source: J. J. Gonzalez Ortiz, J. Guttag, A. V. Dalca 2023, arXiv 2304.07645. Departure from the
authors' code, which exchanges attributes: the module is called functionally, with one set of
weights for each hyper-input of a batch (``torch.func``).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from thalweg.nn.hypernetwork import HyperNet

__all__ = ["HyperModule", "hypernetize"]


class HyperModule(nn.Module):
    """A module that is called with hyper-inputs first.

    Made by ``hypernetize``. Its parameters are those of the hypernetwork and those of the module
    that are not predicted.

    Args:
        module: the primary module; the predicted parameters are taken out of it.
        hypernet: predicts them, under their names in the module.

    Raises:
        ValueError: if the module lacks a parameter that is predicted.

    Source:
        Gonzalez Ortiz et al. 2023, arXiv 2304.07645; entry hypernetwork-mip.
    """

    def __init__(self, module: nn.Module, hypernet: HyperNet) -> None:
        super().__init__()
        known = dict(module.named_parameters(remove_duplicate=False))
        missing = sorted(hypernet.output_shapes.keys() - known.keys())
        if missing:
            raise ValueError(f"the module has no parameter {missing}")
        self.hypernet, self.primary = hypernet, module
        # A parameter that is shared has several names; all of them get what is predicted for one.
        self._names = {
            name: [n for n, p in known.items() if p is known[name]]
            for name in hypernet.output_shapes
        }
        for names in self._names.values():
            for name in names:
                owner, _, leaf = name.rpartition(".")
                module.get_submodule(owner).register_parameter(leaf, None)

    def forward(self, inputs: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        """The module at the weights that belong to the inputs.

        Args:
            inputs: of the hypernetwork, with or without a batch axis B.
            *args: of the module; with a batch of inputs every tensor has B groups, (B, …), and
                group b goes through the module at weights b.
            **kwargs: of the module, the same for all groups.

        Raises:
            ValueError: if a tensor has not as many groups as there are inputs.
        """
        predicted = self.hypernet(**inputs)
        theta = {n: t for name, t in predicted.items() for n in self._names[name]}
        name, shape = next(iter(self.hypernet.output_shapes.items()))
        if predicted[name].ndim == len(shape):
            return functional_call(self.primary, theta, args, kwargs)
        groups = len(predicted[name])
        for x in args:
            if isinstance(x, Tensor) and (x.ndim == 0 or len(x) != groups):
                raise ValueError(
                    f"{groups} inputs need {groups} groups of examples, ({groups}, …), got "
                    f"{tuple(x.shape)}; x.expand({groups}, *x.shape) gives each the same ones"
                )

        def one(weights: dict[str, Tensor], *given: Any) -> Any:
            return functional_call(self.primary, weights, given, kwargs)

        axes = tuple(0 if isinstance(x, Tensor) else None for x in args)
        with sdpa_kernel(
            SDPBackend.MATH
        ):  # the fused kernels of attention take no second batch axis
            return vmap(one, in_dims=(0, *axes), randomness="different")(theta, *args)


def hypernetize(
    module: nn.Module,
    input_shapes: Mapping[str, Sequence[int]],
    parameters: str | Sequence[str] = "all",
    hidden: Sequence[int] = (16, 128),
    **options: Any,
) -> HyperModule:
    """Lets a hypernetwork predict parameters of a module, starting from their present values.

    The module itself is copied and stays as it is. Not covered with a batch of hyper-inputs: layers
    that write to buffers (batch normalisation in training mode) and recurrent layers; call those
    with one hyper-input at a time.

    Args:
        module: the primary module.
        input_shapes: name to shape of each hyper-input.
        parameters: ``all``, a regular expression for whole names, or names.
        hidden: widths of the hypernetwork.
        **options: of ``HyperNet``: ``encoding``, ``residual``, ``activation``, ``generator``, …

    Raises:
        ValueError: if no parameter is meant, or a name is unknown.

    Source:
        Gonzalez Ortiz et al. 2023, arXiv 2304.07645; entry hypernetwork-mip.

    Example:
        >>> import torch
        >>> primary = nn.Linear(2, 1)
        >>> model = hypernetize(primary, {"gamma": (3,)})
        >>> _ = nn.init.zeros_(model.hypernet.output.weight)
        >>> x = torch.ones(5, 2)
        >>> torch.equal(model({"gamma": torch.rand(3)}, x), primary(x))
        True
        >>> model({"gamma": torch.rand(4, 3)}, torch.ones(4, 5, 2)).shape
        torch.Size([4, 5, 1])
    """
    known = [name for name, _ in module.named_parameters()]
    if isinstance(parameters, str):
        pattern = ".*" if parameters == "all" else parameters
        names = [name for name in known if re.fullmatch(pattern, name)]
        if not names:
            raise ValueError(f"no parameter is called {parameters!r}; there are {known}")
    else:
        names = list(parameters)
    net = HyperNet.from_module(module, input_shapes, hidden, names=names, **options)
    return HyperModule(copy.deepcopy(module), net)
