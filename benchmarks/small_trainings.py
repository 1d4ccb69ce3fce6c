"""Five small trainings on real data, into which a fault can be put: ground of the faults suite.

Each is a task with a model of another architecture: a dense network, a transformer, a residual
convolutional network with batch normalisation, a recurrent network, an autoencoder. The data are
the handwritten digits of scikit-learn and the docstrings of the standard library.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import thalweg
from benchmarks.small_models import (
    Autoencoder,
    Dense,
    Recurrent,
    Residual,
    Scalar,
    Transformer,
    digits,
    text,
)
from thalweg.data import corrupt_labels
from thalweg.optim import AccumulationContext

__all__ = ["ARCHITECTURES", "FAULTS", "LAW_FAULTS", "PATH_FAULTS", "Setting", "train"]

Batch = tuple[Tensor, Tensor]


def cross_entropy(out: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(out.flatten(0, -2), y.flatten())


@dataclass(frozen=True)
class Architecture:
    """A task: model, data, loss, and the optimizer with which it trains well.

    ``middle`` is a layer between others; ``relu_input`` the one before a ReLU; ``balanced`` one
    whose weight is in an exact conservation law; ``sgd_lr`` a rate for SGD without momentum.
    """

    model: Callable[..., nn.Module]
    data: Callable[[], Batch]
    optimizer: str
    lr: float
    middle: str
    relu_input: str
    balanced: str
    sgd_lr: float = 0.1
    neck_dim: int = 32
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy
    reconstructs: bool = False
    steps: int = 240


ARCHITECTURES = {
    "mlp": Architecture(Dense, digits, "momentum", 0.03, "fc2", "fc1", "fc2"),
    "transformer": Architecture(
        Transformer,
        text,
        "adamw",
        3e-3,
        "blocks.0.down",
        "blocks.1.up",
        "blocks.0.down",
        0.3,
        steps=150,
    ),
    "resnet": Architecture(Residual, digits, "momentum", 0.03, "conv1", "norm0", "fc"),
    "gru": Architecture(Recurrent, digits, "adam", 5e-3, "fc", "fc", "fc"),
    "autoencoder": Architecture(
        Autoencoder,
        digits,
        "adam",
        3e-3,
        "code",
        "fc2",
        "code",
        0.3,
        loss=F.mse_loss,
        reconstructs=True,
    ),
}

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "momentum": lambda p, lr, **k: torch.optim.SGD(p, lr=lr, momentum=0.9, **k),
    "nesterov": lambda p, lr, **k: torch.optim.SGD(p, lr=lr, momentum=0.9, nesterov=True, **k),
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
    "lbfgs": lambda p, lr, **k: torch.optim.LBFGS(p, lr=lr, max_iter=4),
}


@dataclass(frozen=True)
class Setting:
    """How to train. ``None`` stands for what suits the architecture.

    ``uneven`` micro-batches are of an eighth of ``batch`` to nearly twice as many samples; their
    losses are added up as means, or as sums ``by_counts``. ``bfloat16``: so are the weights.
    """

    architecture: str
    fault: str | None = None
    steps: int | None = None
    batch: int = 32
    optimizer: str | None = None
    lr: float | None = None
    schedule: str = "constant"
    dropout: float = 0.0
    weight_decay: float = 0.0
    clip: float | None = None
    accumulate: int = 1
    uneven: bool = False
    by_counts: bool = False
    validate_every: int = 0
    augment: float = 0.0
    scaler: bool = False
    regression: bool = False
    samples: int | None = None
    full_batch: bool = False
    half_mse: bool = False
    laws: bool = False
    bfloat16: bool = False
    model: dict[str, Any] = field(default_factory=dict)


#: Each fault and the findings that name it. Fixed before the held-out architectures were run.
FAULTS: dict[str, frozenset[str]] = {
    "lr x 1000": frozenset({"lr_too_high", "nonfinite"}),
    "lr x 1000 from the middle on": frozenset({"lr_too_high", "nonfinite"}),
    "lr / 100000": frozenset({"lr_too_low"}),
    "nan in one layer": frozenset({"nonfinite"}),
    "initial weights x 30": frozenset({"exploding_activations", "exploding_gradients"}),
    "eight sigmoid layers": frozenset({"vanishing_gradients"}),
    "dead ReLUs": frozenset({"dead_units"}),
    "layer not in the optimizer": frozenset({"outside_optimizer"}),
    "detach in the middle": frozenset({"never_moves"}),
    "clipped to 1e-4": frozenset({"clipping_always"}),
    "40 samples, wrong labels": frozenset({"overfitting"}),
    "200 samples, 40 % of the labels wrong": frozenset({"overfitting"}),
    "overflow under a gradient scaler": frozenset({"loss_scale_collapse"}),
    "(B, 1) against (B,)": frozenset({"broadcast_loss"}),
    "no zero_grad": frozenset({"gradients_not_cleared"}),
    "one layer's lr x 10000": frozenset({"dominating_layer", "lr_too_high", "nonfinite"}),
    "one layer's lr / 1000000": frozenset({"starved_layer", "never_moves"}),
    "mean of means, uneven micro-batches": frozenset({"uneven_accumulation"}),
    "gradient spikes": frozenset({"gradient_spikes", "nonfinite"}),
    "weights in bfloat16, lr / 100": frozenset({"below_resolution"}),
}
#: Changes in the middle, which the path shows; recorded with frequent sketches.
PATH_FAULTS: dict[str, frozenset[str]] = {
    "lr x 10 from the middle on": frozenset({"path_turned", "lr_too_high"}),
    "classes exchanged in the middle": frozenset({"path_turned"}),
    "inputs permuted in the middle": frozenset({"path_turned"}),
}
#: Faults that leave the loss falling: what training does is not what its optimizer says. Under SGD
#: with momentum and weight decay, recorded with the conservation laws.
LAW_FAULTS: dict[str, frozenset[str]] = dict.fromkeys(
    (
        "weights decayed twice",
        "one tensor's gradient halved by a hook",
        "one tensor's accumulated gradient not divided",
        "a frozen tensor updated",
    ),
    frozenset({"broken_law"}),
)


def train(setting: Setting, seed: int, out: str | Path, *, overhead: float = 1.0) -> float:
    """Trains once, recorded at ``out``.

    Returns:
        Median training loss of the last tenth of the steps over that of the first step.
    """
    torch.manual_seed(seed)
    arch, fault = ARCHITECTURES[setting.architecture], setting.fault
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of the (B, 1) fault, too
        return _train(_fitted(setting), arch, fault, out, overhead)


def _fitted(setting: Setting) -> Setting:
    """Puts in what the architecture, and what a fault, needs of the setting."""
    if setting.steps is None:
        setting = replace(setting, steps=ARCHITECTURES[setting.architecture].steps)
    if setting.fault == "40 samples, wrong labels":
        return replace(setting, samples=40, validate_every=12)
    if setting.fault == "200 samples, 40 % of the labels wrong":
        return replace(setting, samples=200, validate_every=20, steps=600)
    if setting.fault == "(B, 1) against (B,)":
        return replace(setting, regression=True)
    if setting.fault == "overflow under a gradient scaler":
        return replace(setting, scaler=True)
    if setting.fault == "mean of means, uneven micro-batches":
        return replace(setting, accumulate=4, uneven=True)
    if setting.fault == "weights in bfloat16, lr / 100":
        return replace(setting, bfloat16=True)
    if setting.fault in LAW_FAULTS:
        undivided = "not divided" in setting.fault
        return replace(
            setting,
            optimizer="momentum",
            lr=ARCHITECTURES[setting.architecture].sgd_lr / 3,
            weight_decay=1e-3,
            accumulate=4 if undivided else 1,
            laws=True,
        )
    return setting


def _train(
    setting: Setting, arch: Architecture, fault: str | None, out: str | Path, overhead: float
) -> float:
    x, y = arch.data()
    if arch.reconstructs:
        y = x
    if setting.regression:
        y = x.float().flatten(1).std(1) if x.is_floating_point() else (x == x[0, 0]).float().mean(1)
        y = (y - y.mean()) / y.std()
    held_x, held_y = x[-256:], y[-256:]
    x, y = x[: setting.samples or -256], y[: setting.samples or -256]
    if fault == "40 samples, wrong labels":
        y = y[torch.randperm(len(y))] if y.ndim == 1 else _scrambled(y)
    if fault == "200 samples, 40 % of the labels wrong":
        y = _partly_wrong(y, 0.4)
    if setting.half_mse:
        y, held_y = F.one_hot(y, 10).float(), F.one_hot(held_y, 10).float()

    model = _model(setting, arch, fault)
    loss_fn = F.mse_loss if setting.regression else arch.loss
    if setting.half_mse:
        loss_fn = lambda out, y: 0.5 * (out - y).square().sum(1).mean()  # noqa: E731
    optimizer = _optimizer(setting, arch, fault, model)
    scheduler = _scheduler(setting, optimizer, setting.steps or arch.steps)
    scaler = torch.amp.GradScaler("cpu", enabled=setting.scaler)
    losses: list[float] = []
    steps = setting.steps or arch.steps

    def loss_of(chosen: Tensor) -> Tensor:
        inputs = x[chosen]
        if setting.augment and inputs.is_floating_point():
            inputs = inputs + setting.augment * torch.randn_like(inputs)
        if setting.bfloat16 and inputs.is_floating_point():
            inputs = inputs.bfloat16()
        prediction, target = model(inputs), y[chosen]
        if setting.bfloat16:
            prediction = prediction.float()
        if setting.regression and fault != "(B, 1) against (B,)":
            prediction = prediction.squeeze(-1)
        return loss_fn(prediction, target)

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = torch.zeros(())
        for _ in range(setting.accumulate):
            whole = torch.arange(len(x))
            chosen = whole if setting.full_batch else torch.randint(0, len(x), (size(),))
            loss = loss_of(chosen) / setting.accumulate
            scaler.scale(loss).backward()
            total = total + loss.detach()
        return total

    def size() -> int:
        batch = setting.batch
        return (
            int(torch.randint(batch // 8, 2 * batch - batch // 8, ())) if setting.uneven else batch
        )

    def by_counts() -> Tensor:
        context = AccumulationContext(model, optimizer, setting.accumulate)
        with context as scale:
            for _ in range(setting.accumulate):
                chosen = torch.randint(0, len(x), (size(),))
                scale(loss_of(chosen) * len(chosen), len(chosen)).backward()
        assert context.loss is not None
        return context.loss

    instruments = ["default", "laws"] if setting.laws else None
    with thalweg.record(model, optimizer, out, overhead=overhead, instruments=instruments):
        for step in range(steps):
            _put_in(fault, step, steps, arch, model, optimizer)
            if step == steps // 2:
                x, y = _another_task(fault, x, y)
            if setting.optimizer == "lbfgs":
                losses.append(float(optimizer.step(closure)))  # pyright: ignore
                continue
            if fault == "no zero_grad":
                chosen = torch.randint(0, len(x), (setting.batch,))
                loss = loss_of(chosen)
                loss.backward()
                losses.append(float(loss.detach()))
            else:
                losses.append(float(by_counts() if setting.by_counts else closure()))
            if fault == "one tensor's accumulated gradient not divided":
                _balanced(arch, model).grad.mul_(setting.accumulate)  # pyright: ignore
            limit = 1e-4 if fault == "clipped to 1e-4" else setting.clip
            if limit is not None:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(model.parameters(), limit)
            scaler.step(optimizer)
            scaler.update()
            _after(fault, model)
            if scheduler is not None:
                scheduler.step()
            if setting.validate_every and step % setting.validate_every == 0:
                _validate(model, loss_fn, held_x, held_y, setting)
    tail = torch.tensor(losses[-max(1, len(losses) // 10) :])
    return float(tail.median()) / losses[0]


def _validate(model: nn.Module, loss_fn: Any, x: Tensor, y: Tensor, setting: Setting) -> None:
    model.eval()
    with torch.no_grad():
        for xb, yb in zip(x.split(64), y.split(64), strict=True):
            out = model(xb)
            loss_fn(out.squeeze(-1) if setting.regression else out, yb)
    model.train()


def _another_task(fault: str | None, x: Tensor, y: Tensor) -> Batch:
    """The data from the middle on: the same, or with other names for the classes or the inputs."""
    if fault == "classes exchanged in the middle":
        if y.is_floating_point():
            return x, y[:, _exchanged(y.shape[1])]
        return x, _exchanged(int(y.max()) + 1)[y]
    if fault == "inputs permuted in the middle":
        if x.is_floating_point():
            return x[:, _exchanged(x.shape[1])], y
        return _exchanged(int(x.max()) + 1)[x], y
    return x, y


def _exchanged(count: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(count))


def _scrambled(y: Tensor) -> Tensor:
    """Targets that go with other inputs."""
    return y[torch.randperm(len(y))]


def _partly_wrong(y: Tensor, rate: float) -> Tensor:
    """Classes of which a share is another one; of images, a share that goes with other inputs."""
    if y.is_floating_point():
        chosen = torch.randperm(len(y))[: round(rate * len(y))]
        y = y.clone()
        y[chosen] = y[chosen.roll(1)]
        return y
    seed = int(torch.randint(2**31, ()))
    return corrupt_labels(y.flatten(), rate, seed=seed).view_as(y)


def _model(setting: Setting, arch: Architecture, fault: str | None) -> nn.Module:
    model = arch.model(dropout=setting.dropout, **setting.model)
    if fault == "eight sigmoid layers":
        dim = arch.neck_dim
        model.neck = nn.Sequential(
            *[m for _ in range(8) for m in (nn.Linear(dim, dim), nn.Sigmoid())]
        )
    if fault == "initial weights x 30":
        with torch.no_grad():
            for p in model.parameters():
                if p.ndim >= 2:
                    p.mul_(30)
    if fault == "dead ReLUs":
        with torch.no_grad():
            model.get_submodule(arch.relu_input).bias.fill_(-10.0)  # pyright: ignore
    if fault == "detach in the middle":
        model.get_submodule(arch.middle).register_forward_hook(lambda m, a, out: out.detach())
    if fault == "one tensor's gradient halved by a hook":
        _balanced(arch, model).register_hook(lambda grad: 0.5 * grad)
    if fault == "a frozen tensor updated":
        _balanced(arch, model).requires_grad_(False)
    if setting.bfloat16:
        model = model.bfloat16()
    return Scalar(model) if setting.regression else model


def _optimizer(
    setting: Setting, arch: Architecture, fault: str | None, model: nn.Module
) -> torch.optim.Optimizer:
    lr = setting.lr if setting.lr is not None else arch.lr
    lr *= {"lr x 1000": 1e3, "lr / 100000": 1e-5, "weights in bfloat16, lr / 100": 1e-2}.get(
        fault or "", 1.0
    )
    middle = [id(p) for n, m in model.named_modules() if n == arch.middle for p in m.parameters()]
    inside = [p for p in model.parameters() if id(p) in middle]
    others = [p for p in model.parameters() if id(p) not in middle]
    groups: list[dict[str, Any]] = [{"params": [*model.parameters()]}]
    if fault == "layer not in the optimizer":
        groups = [{"params": others}]
    elif fault == "one layer's lr x 10000":
        groups = [{"params": others}, {"params": inside, "lr": lr * 1e4}]
    elif fault == "one layer's lr / 1000000":
        groups = [{"params": others}, {"params": inside, "lr": lr * 1e-6}]
    name = setting.optimizer or arch.optimizer
    if name == "lbfgs":
        return OPTIMIZERS[name](model.parameters(), lr=lr)
    return OPTIMIZERS[name](groups, lr=lr, weight_decay=setting.weight_decay)


def _scheduler(setting: Setting, optimizer: torch.optim.Optimizer, steps: int) -> Any:
    schedules = torch.optim.lr_scheduler
    lr = optimizer.param_groups[0]["lr"]
    return {
        "constant": lambda: None,
        "cosine": lambda: schedules.CosineAnnealingLR(optimizer, steps),
        "warmup": lambda: schedules.LinearLR(optimizer, 0.01, total_iters=steps // 5),
        "step": lambda: schedules.StepLR(optimizer, steps // 3, gamma=0.1),
        "one-cycle": lambda: schedules.OneCycleLR(optimizer, 2 * lr, total_steps=steps + 1),
        "restarts": lambda: schedules.CosineAnnealingWarmRestarts(optimizer, steps // 4),
    }[setting.schedule]()


def _put_in(
    fault: str | None,
    step: int,
    steps: int,
    arch: Architecture,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Faults that begin during the training."""
    begins = step == steps // 2
    raised = {"lr x 1000 from the middle on": 1000, "lr x 10 from the middle on": 10}
    if fault in raised and begins:
        for group in optimizer.param_groups:
            group["lr"] *= raised[fault]
    if fault == "nan in one layer" and begins:
        module = model.get_submodule(arch.middle)
        sound = module.forward
        module.forward = lambda x: sound(x) + (-x.abs() - 1).log().mean()
    if fault == "gradient spikes" and step == 0:
        # Seven steps in a hundred, all gradients alike; from a draw that leaves the batches alone.
        draws = torch.rand(steps, generator=torch.Generator().manual_seed(steps))
        spiked, at = (draws < 0.07).tolist(), [-1]

        def begin(*_: Any) -> None:
            at[0] += 1

        model.register_forward_pre_hook(begin)
        for p in model.parameters():
            p.register_hook(lambda g: 1000 * g if spiked[min(at[0], steps - 1)] else g)
    if fault == "overflow under a gradient scaler" and step == 20:
        first = next(p for p in _weights(model))
        first.register_hook(lambda g: g * float("inf") if torch.rand(()) < 0.8 else g)


def _after(fault: str | None, model: nn.Module) -> None:
    """Faults that write to weights beside the optimizer."""
    for p in model.parameters():
        if fault == "weights decayed twice":
            p.data.mul_(1 - 1e-4)
        elif fault == "a frozen tensor updated" and not p.requires_grad:
            p.data.mul_(1 - 1e-4)


def _balanced(arch: Architecture, model: nn.Module) -> nn.Parameter:
    """A weight that is in an exact conservation law."""
    return model.get_parameter(f"{arch.balanced}.weight")


def _weights(model: nn.Module) -> Iterator[nn.Parameter]:
    return (p for p in model.parameters() if p.ndim >= 2)
