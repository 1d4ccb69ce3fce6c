"""The whole state of a training between two steps: gathered as tensors and JSON, and put back.

Weights, buffers, what the optimizers keep, the gradient scaler, and the random state of torch,
CUDA, numpy and Python. No pickle: tensors go by name, everything else as plain JSON, and what is
neither is refused by name.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from thalweg.errors import ThalwegError

__all__ = ["decode", "digest", "encode", "gather", "restore"]


def gather(
    models: Sequence[nn.Module],
    optimizers: Sequence[Optimizer],
    scaler: Any = None,
    *,
    gradients: bool = False,
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state as it is now.

    Args:
        models: their parameters and buffers, persistent or not.
        optimizers: their state and settings, and parameters that no model owns.
        scaler: the gradient scaler, if there is one.
        gradients: whether ``.grad`` belongs to it: where nobody clears it.

    Returns:
        Tensors by name, references and not copies, and what else there is, as JSON.

    Raises:
        TypeError: if an optimizer keeps something that is neither tensor nor plain value.
    """
    tensors = dict(_weights(models, optimizers))
    if gradients:
        held = {f"grad.{name}": t.grad for name, t in tensors.items()}
        tensors.update((name, grad) for name, grad in held.items() if grad is not None)
    rest: dict[str, Any] = {
        "models": [type(model).__name__ for model in models],
        "optimizers": [_optimizer(o, f"optimizer{i}", tensors) for i, o in enumerate(optimizers)],
        "scaler": None if scaler is None else encode(scaler.state_dict(), "scaler", tensors),
        "random": _random(tensors),
    }
    return tensors, rest


def restore(
    tensors: dict[str, Tensor],
    rest: dict[str, Any],
    models: Sequence[nn.Module],
    optimizers: Sequence[Optimizer],
    scaler: Any = None,
) -> None:
    """Puts a gathered state back, in place.

    Raises:
        ThalwegError: if the models or optimizers are others than those it was gathered from.
    """
    classes = [type(optimizer).__name__ for optimizer in optimizers]
    kept = [optimizer["class"] for optimizer in rest["optimizers"]]
    if classes != kept:
        raise ThalwegError(f"expected the optimizers {kept}, the script made {classes}")
    with torch.no_grad():
        for name, t in _weights(models, optimizers):
            value = tensors.get(name)
            if value is None or value.shape != t.shape:
                was = "not there" if value is None else f"of shape {tuple(value.shape)}"
                raise ThalwegError(
                    f"the script builds another model than was recorded: {name} is of shape "
                    f"{tuple(t.shape)} and was {was}. Replay the script as it was recorded"
                )
            t.copy_(value)
            grad = tensors.get(f"grad.{name}")
            if grad is not None:  # otherwise the training clears those that are there
                t.grad = grad.clone().to(t.device)
    for optimizer, kept in zip(optimizers, rest["optimizers"], strict=True):
        params = [p for g in optimizer.param_groups for p in g["params"]]
        optimizer.state.clear()
        for index, state in kept["state"]:
            p = params[index]
            # Counters stay on the host where the optimizer keeps them there; the rest goes along.
            optimizer.state[p] = decode(state, tensors, p.device)
        for group, settings in zip(optimizer.param_groups, kept["groups"], strict=True):
            group.update(decode(settings, tensors, None))
    if scaler is not None and rest["scaler"] is not None:
        scaler.load_state_dict(decode(rest["scaler"], tensors, None))
    _restore_random(rest["random"], tensors)


def digest(models: Sequence[nn.Module], optimizers: Sequence[Optimizer]) -> str:
    """SHA-256 over the bytes of all weights and buffers."""
    total = hashlib.sha256()
    for _, t in _weights(models, optimizers):
        flat = t.detach().to("cpu").contiguous().reshape(-1)
        if flat.numel():
            total.update(flat.view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def encode(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """A value as JSON; its tensors are added to ``tensors`` under names led by ``name``.

    Raises:
        TypeError: for anything but tensors, numbers, strings, None, lists, tuples and dicts.
    """
    if isinstance(value, Tensor):
        tensors[name] = value
        return {"tensor": name, "host": value.is_cpu}
    if value is None or isinstance(value, bool | int | float | str):
        return {"value": value}
    if isinstance(value, list | tuple):
        items = [encode(v, f"{name}.{i}", tensors) for i, v in enumerate(value)]
        return {"list" if isinstance(value, list) else "tuple": items}
    if isinstance(value, dict) and all(isinstance(k, str | int) for k in value):
        return {"dict": [[k, encode(v, f"{name}.{k}", tensors)] for k, v in value.items()]}
    raise TypeError(f"{name} is of type {type(value).__name__}")


def decode(value: Any, tensors: dict[str, Tensor], device: torch.device | None) -> Any:
    """What ``encode`` was given; tensors are new, those not on the host before on ``device``."""
    if "tensor" in value:
        t = tensors[value["tensor"]].clone()
        return t if value["host"] or device is None else t.to(device)
    if "list" in value:
        return [decode(v, tensors, device) for v in value["list"]]
    if "tuple" in value:
        return tuple(decode(v, tensors, device) for v in value["tuple"])
    if "dict" in value:
        return {k: decode(v, tensors, device) for k, v in value["dict"]}
    return value["value"]


def _weights(
    models: Sequence[nn.Module], optimizers: Sequence[Optimizer]
) -> Iterator[tuple[str, Tensor]]:
    """Every parameter and buffer once, by name; then parameters that no model owns."""
    seen: set[int] = set()
    for i, model in enumerate(models):
        for name, t in [*model.named_parameters(), *model.named_buffers()]:
            if id(t) not in seen:
                seen.add(id(t))
                yield f"model{i}.{name}", t
    for i, optimizer in enumerate(optimizers):
        for k, p in enumerate(p for g in optimizer.param_groups for p in g["params"]):
            if id(p) not in seen:
                seen.add(id(p))
                yield f"param{i}.{k}", p


def _optimizer(optimizer: Optimizer, name: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    params = [p for g in optimizer.param_groups for p in g["params"]]
    state = [
        [i, encode(optimizer.state[p], f"{name}.state{i}", tensors)]
        for i, p in enumerate(params)
        if p in optimizer.state
    ]
    groups = [
        encode(settings(group), f"{name}.group{i}", tensors)
        for i, group in enumerate(optimizer.param_groups)
    ]
    return {"class": type(optimizer).__name__, "state": state, "groups": groups}


def settings(group: dict[str, Any]) -> dict[str, Any]:
    """The settings in a param group: all but its parameters and what is no plain value."""
    plain = (bool, int, float, str, tuple, Tensor, type(None))
    return {k: v for k, v in group.items() if k != "params" and isinstance(v, plain)}


def _random(tensors: dict[str, Tensor]) -> dict[str, Any]:
    kind, keys, *numbers = np.random.get_state()  # noqa: NPY002 - the global one
    tensors["random.torch"] = torch.get_rng_state()
    tensors["random.numpy"] = torch.from_numpy(np.asarray(keys).astype(np.int64))
    devices = torch.cuda.device_count() if torch.cuda.is_initialized() else 0
    for i in range(devices):
        tensors[f"random.cuda{i}"] = torch.cuda.get_rng_state(i)
    return {"python": random.getstate(), "numpy": [kind, *numbers], "cuda": devices}


def _restore_random(kept: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    version, keys, gauss = kept["python"]
    random.setstate((version, tuple(keys), gauss))
    kind, *numbers = kept["numpy"]
    keys = tensors["random.numpy"].numpy().astype(np.uint32)
    np.random.set_state((kind, keys, *numbers))  # noqa: NPY002 - the global one
    torch.set_rng_state(tensors["random.torch"])
    for i in range(min(kept["cuda"], torch.cuda.device_count())):
        torch.cuda.set_rng_state(tensors[f"random.cuda{i}"], i)
