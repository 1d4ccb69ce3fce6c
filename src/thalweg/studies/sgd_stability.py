"""Does SGD leave minima whose trace exceeds two over the step size, and what does that select?

Diagonal linear nets f = ⟨a ⊙ b, x⟩ and two-layer ReLU nets are trained by single-sample SGD and by
gradient descent over step sizes (all in one batch, one row a step size); a tanh network by gradient
descent at the edge of stability. Baselines: gradient descent at its own best or largest step size.

Source: Wu & Su 2023, arXiv 2305.17490; Cohen et al. 2021, arXiv 2103.00065.

Cost: paper does 16.7 × the work of quick (sgd_steps * (1e6 + dim)), in 1 GB.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from thalweg.data import digits
from thalweg.instruments import ms_threshold, sharpness
from thalweg.instruments.sgd_stability import half_squared_error
from thalweg.studies.figures import Figures, data_hash, thin

__all__ = ["PRESETS", "Config", "run"]


@dataclass(frozen=True)
class Config:
    """Settings.

    Attributes:
        dim: inputs of the diagonal net.
        num_samples: its training samples.
        sgd_steps: single-sample steps of the diagonal net.
        gd_steps: full-batch steps of the diagonal net.
        escape_runs: runs of SGD from one minimum, at each factor.
        escape_steps: steps in which they may escape.
        eos_steps: steps of the tanh network.
        looks: at its curvature meanwhile.
        relu_sgd_steps: single-sample steps of the ReLU net.
        relu_gd_steps: full-batch steps of it.
    """

    dim: int = 100
    num_samples: int = 40
    sgd_steps: int = 60_000
    gd_steps: int = 6_000
    escape_runs: int = 10
    escape_steps: int = 20_000
    eos_steps: int = 2_000
    looks: int = 40
    relu_sgd_steps: int = 40_000
    relu_gd_steps: int = 4_000


PRESETS = {
    "smoke": Config(
        sgd_steps=20_000,
        gd_steps=2_000,
        escape_runs=4,
        escape_steps=6_000,
        eos_steps=120,
        looks=4,
        relu_sgd_steps=2_000,
        relu_gd_steps=400,
    ),
    "quick": Config(),
    "full": Config(sgd_steps=200_000, gd_steps=20_000, escape_runs=100, relu_sgd_steps=80_000),
    "paper": Config(
        dim=1000,
        num_samples=300,
        sgd_steps=1_000_000,
        gd_steps=100_000,
        escape_runs=100,
        relu_sgd_steps=80_000,
    ),
}

SGD_LRS = [0.001 * 2 ** (i / 2) for i in range(9)]  # to 0.016
GD_LRS = [0.001 * 2 ** (i / 2) for i in range(17)]  # to 0.256
CONVERGED = 1e-4  # loss
CLIP = 100.0  # of the ReLU net's gradient
RELU_SGD_LRS, RELU_GD_LRS = (3e-4, 6e-3), (1e-3, 1.2e-2)
EDGE_LR, SMALL_LR = 0.4, 0.1


def run(config: Config, seed: int) -> Figures:
    """Five small experiments of one seed."""
    diagonal, curves = _diagonal(config, seed)
    edge, edge_curves = _edge(config, seed)
    relu = _relu(config, seed)
    parts = [diagonal, edge, relu]
    return Figures(
        samples={k: v for part in parts for k, v in part[0].items()},
        baselines={k: v for part in parts for k, v in part[1].items()},
        controls={k: v for part in parts for k, v in part[2].items()},
        curves=curves | edge_curves,
        data_hash=data_hash(digits(seed=seed).x),
    )


Part = tuple[dict[str, float], dict[str, float], dict[str, float]]


# -- diagonal nets ---------------------------------------------------------------------------------


def _diagonal(config: Config, seed: int) -> tuple[Part, dict]:
    """SGD and gradient descent over step sizes, then escapes from a minimum of the latter."""
    g = torch.Generator().manual_seed(seed)
    d, n = config.dim, config.num_samples
    x = 3**0.5 * (2 * torch.rand(n, d, generator=g, dtype=torch.float64) - 1)
    target = torch.zeros(d, dtype=torch.float64)
    target[:3] = 1.0
    y = x @ target
    start = torch.randn(2, d, generator=g, dtype=torch.float64)
    sgd = _descend(x, y, start, SGD_LRS, config.sgd_steps, g)
    gd = _descend(x, y, start, GD_LRS, config.gd_steps, None)
    sgd_trace, gd_trace = _trace(x, sgd), _trace(x, gd)
    sgd_lr, gd_lr = torch.tensor(SGD_LRS).double(), torch.tensor(GD_LRS).double()
    sgd_done, gd_done = _loss(x, y, sgd) < CONVERGED, _loss(x, y, gd) < CONVERGED
    if not sgd_done.any() or not gd_done.any():
        nan = float("nan")
        names = ("trace_bound", "sgd_generalises", "threshold")
        return (dict.fromkeys(names, nan), {}, {}), {}
    # x has unit variance, so this is half the mean squared error on fresh inputs
    sgd_test, gd_test = ((w[0] * w[1] - target).square().sum(-1) / 2 for w in (sgd, gd))
    bound = (sgd_lr * sgd_trace / 2)[sgd_done].max().item()
    largest = int(gd_done.nonzero().max())
    top = 2 / ms_threshold(_rows(x, gd[:, largest]), n)
    best_sgd, best_gd = sgd_test[sgd_done].min().item(), gd_test[gd_done].min().item()
    best = int(_loss(x, y, gd).nan_to_num(1.0, 1.0).argmin())
    threshold, exact, descent = _escapes(x, y, gd[:, best], config, g)
    part = (
        {"trace_bound": bound, "sgd_generalises": best_sgd / best_gd, "threshold": threshold},
        {
            "trace_bound": top * GD_LRS[largest] / 2,
            "sgd_generalises": best_gd,
            "threshold": exact,
        },
        {"trace_bound": (gd_lr * gd_trace / 2)[largest].item(), "threshold": descent},
    )
    curves = {}
    for name, lrs, done, test, trace in [
        ("SGD", sgd_lr, sgd_done, sgd_test, sgd_trace),
        ("gradient descent", gd_lr, gd_done, gd_test, gd_trace),
    ]:
        at = lrs.log10().tolist()
        nan = torch.full_like(test, float("nan"))  # a run that did not converge leaves a gap
        curves[f"test error of {name} against log10 of the step size"] = (
            at,
            torch.where(done, test, nan).tolist(),
        )
        title = f"ηtr/2 of {name} against log10 of the step size"
        curves[title] = at, torch.where(done, lrs * trace / 2, nan).tolist()
    curves["ηtr/2 of SGD against log10 of the step size (theory)"] = (
        sgd_lr.log10().tolist(),
        [1.0] * len(sgd_lr),
    )
    return part, curves


def _descend(
    x: Tensor,
    y: Tensor,
    start: Tensor,
    lrs: list[float],
    num_steps: int,
    generator: torch.Generator | None,
) -> Tensor:
    """Weights (2, L, d) after descent at L step sizes; on single samples if there is a generator.

    All step sizes see the same samples. What diverges is left as it is, infinite or nan.
    """
    lr = torch.tensor(lrs, dtype=x.dtype)[:, None]
    a, b = (w.expand(len(lrs), -1).clone() for w in start)
    order = None
    if generator is not None:
        order = torch.randint(len(x), (num_steps,), generator=generator).tolist()
    for step in range(num_steps):
        if order is None:
            error = (a * b) @ x.T - y
            push = lr * (error @ x) / len(x)
        else:
            xi = x[order[step]]
            push = lr * (((a * b) @ xi)[:, None] - y[order[step]]) * xi
        a, b = a - push * b, b - push * a
    return torch.stack([a, b])


def _loss(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
    """½ mean squared error of weights (2, ..., d), (...)."""
    return ((w[0] * w[1]) @ x.T - y).square().mean(-1) / 2


def _trace(x: Tensor, w: Tensor) -> Tensor:
    """Trace of the Gauss–Newton matrix of weights (2, ..., d), (...)."""
    return (w.square().sum(0) * x.square().mean(0)).sum(-1)


def _rows(x: Tensor, w: Tensor) -> Tensor:
    """Gradients of the output at each sample, (n, 2d), at weights (2, d)."""
    return torch.cat([x * w[1], x * w[0]], 1)


def _escapes(
    x: Tensor, y: Tensor, minimum: Tensor, config: Config, g: torch.Generator
) -> tuple[float, float, float]:
    """Share of escapes at 1.1 minus that at 0.9 times 2/tr; exact threshold; share of descent's."""
    lr0 = 2 / _trace(x, minimum).item()
    runs = config.escape_runs
    noise = 1e-4 * torch.randn(2, 3 * runs, x.shape[1], generator=g, dtype=x.dtype)
    w = minimum[:, None] + noise
    first = _loss(x, y, w)
    # SGD below, SGD above, gradient descent above
    factors = torch.tensor([0.9, 1.1, 1.1], dtype=x.dtype).repeat_interleave(runs)[:, None]
    left = torch.zeros(3 * runs, dtype=torch.bool)
    a, b = w
    for step in range(config.escape_steps):
        rows = torch.randint(len(x), (3 * runs,), generator=g)
        xi = x[rows]
        push = (((a * b) * xi).sum(1) - y[rows])[:, None] * xi
        full = (((a * b)[2 * runs :] @ x.T) - y) @ x / len(x)
        push = torch.cat([push[: 2 * runs], full]) * (lr0 * factors)
        a, b = a - push * b, b - push * a
        if step % 50 == 49 or step == config.escape_steps - 1:
            now = _loss(x, y, torch.stack([a, b]))
            left |= ~(now <= 1e4 * first)
            # what has left is put back: it has been counted, and would only overflow
            a, b = (torch.where(left[:, None], m, v) for m, v in zip(minimum, (a, b), strict=True))
    shares = [left[i * runs : (i + 1) * runs].double().mean().item() for i in range(3)]
    return shares[1] - shares[0], ms_threshold(_rows(x, minimum), 1) / lr0, shares[2]


# -- edge of stability -----------------------------------------------------------------------------


def _edge(config: Config, seed: int) -> tuple[Part, dict]:
    """Mean of ηλ/2 over the last third of gradient descent on 200 digits."""
    T = config.eos_steps
    steps, path = _hover(config, seed, EDGE_LR, T)
    # at a small step size also on to the same time η·T, as a flow would: it stays below its edge
    longer = round(T * EDGE_LR / SMALL_LR)
    small_steps, small = _hover(config, seed, SMALL_LR, longer)

    def late(steps: list[int], path: list[float], end: int) -> float:
        return float(
            torch.tensor([v for s, v in zip(steps, path, strict=True) if 2 * end / 3 < s <= end])
            .mean()
        )  # fmt: skip

    part = (
        {"edge_of_stability": late(steps, path, T)},
        {"edge_of_stability": late(small_steps, small, longer) * EDGE_LR / SMALL_LR},
        {"edge_of_stability": late(small_steps, small, T)},
    )
    curves = {
        "ηλ/2 at step size 0.4": (thin(steps), thin(path)),
        "ηλ/2 at step size 0.4 (theory)": (thin(steps), [1.0] * len(thin(steps))),
        "ηλ/2 at step size 0.1": (thin(small_steps), thin(small)),
    }
    return part, curves


def _hover(config: Config, seed: int, lr: float, num_steps: int) -> tuple[list[int], list[float]]:
    """ηλ_max/2 along gradient descent, so many looks for each ``eos_steps`` of them."""
    data = digits(seed=seed)
    x, y = data.x[:200], nn.functional.one_hot(data.y[:200], 10).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 10)
        )
    params: list[Tensor] = list(model.parameters())
    g = torch.Generator().manual_seed(seed)
    every = max(1, config.eos_steps // config.looks)
    steps: list[int] = []
    path: list[float] = []
    vector = None
    for step in range(1, num_steps + 1):
        grads = torch.autograd.grad(half_squared_error(model(x), y), params)
        with torch.no_grad():
            torch._foreach_sub_(params, grads, alpha=lr)
        if step % every == 0:
            top = sharpness(lambda: half_squared_error(model(x), y), params, v0=vector, generator=g)
            vector = top.vector
            steps.append(step)
            path.append(lr * top.value / 2)
    return steps, path


# -- two-layer ReLU nets ---------------------------------------------------------------------------


def _relu(config: Config, seed: int) -> Part:
    """Test error at a small step size over that at a large one, for SGD and gradient descent."""
    g = torch.Generator().manual_seed(seed)
    d, m, k, n = 30, 60, 5, 120

    def sphere(count: int) -> Tensor:
        x = torch.randn(count, d, generator=g, dtype=torch.float64)
        return d**0.5 * nn.functional.normalize(x, dim=1)

    def net(units: int) -> tuple[Tensor, Tensor]:
        w = d**-0.25 * torch.randn(units, d, generator=g, dtype=torch.float64)
        return w, torch.randn(units, generator=g, dtype=torch.float64)

    x, fresh = sphere(n), sphere(2000)
    w, a = net(k)
    y, truth = torch.relu(x @ w.T) @ a, torch.relu(fresh @ w.T) @ a
    start = net(m)

    def test_errors(lrs: tuple[float, ...], num_steps: int, single: bool) -> list[float]:
        w, a = (t.expand(len(lrs), *t.shape).clone() for t in start)
        peak = torch.tensor(lrs, dtype=x.dtype)[:, None]
        order = torch.randint(n, (num_steps,), generator=g).tolist()
        for step in range(num_steps):
            rows = slice(order[step], order[step] + 1) if single else slice(None)
            batch = x[rows]
            h = batch @ w.mT  # (L, B, m)
            active = torch.relu(h)
            error = ((active @ a[..., None])[..., 0] - y[rows]) / len(batch)  # (L, B)
            grad_a = (error[:, None] @ active)[:, 0]
            inner = error[..., None] * (h > 0) * a[:, None]
            grad_w = inner.mT @ batch
            norm = (grad_a.square().sum(1) + grad_w.square().sum((1, 2))).sqrt()[:, None]
            # cosine to zero, clipped by the norm of the whole gradient
            schedule = 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / num_steps)))
            rate = peak * schedule * (CLIP / norm).clamp(max=1.0)
            a, w = a - rate * grad_a, w - rate[..., None] * grad_w
        out = (torch.relu(fresh @ w.mT) @ a[..., None])[..., 0]
        return (out - truth).square().mean(1).tolist()

    sgd = test_errors(RELU_SGD_LRS, config.relu_sgd_steps, single=True)
    gd = test_errors(RELU_GD_LRS, config.relu_gd_steps, single=False)
    descent = gd[0] / gd[1]
    name = "relu_test_falls"
    return {name: sgd[0] / sgd[1]}, {name: descent}, {name: descent}
