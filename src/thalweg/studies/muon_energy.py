"""Does the energy of Muon's flow fall as the theory says, and does Muon beat tuned baselines?

Follows W' = O_ε(P), P' = −∇J − γP on random least squares in float64: the energy, the balance of
what friction takes, the rate at which the gap closes. Neurons as particles show how fast a finite
network nears the mean-field limit. A network learns digits with its hidden matrix trained by Muon,
SGD with momentum or AdamW, each at its best learning rate.

Source: Mustafi, Mukherjee, Sriperumbudur 2026, arXiv 2605.23871; K. Jordan et al. 2024. The paper's
experiments are not public; the problems are this package's own.

Cost: paper does 25 × the work of quick (train_steps), in 2 GB.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.integrate import simpson, solve_ivp
from torch import Tensor, nn

from thalweg.data import Digits, digits
from thalweg.optim import Muon, RegularizedMuon
from thalweg.studies.figures import Figures, data_hash, thin

__all__ = ["PRESETS", "Config", "run"]

FRICTIONS = (0.5, 1.0, 2.0)
STEP_SIZES = (0.2, 0.1, 0.05, 0.02, 0.01)
# The integrator's tolerance is 1e-11 of the state: a gap below 1e-9 of its start is its error.
FLOOR = 1e-9
SWEEP = 2.0  # ratio of neighbouring learning rates


@dataclass(frozen=True)
class Config:
    """Settings.

    Attributes:
        eps: ε, of all flows.
        time: length of the flows.
        samples: at which they are looked at.
        particles: N of the finite networks.
        reference: N that stands for the limit.
        draws: of the particles, per N.
        particle_time: at which losses are compared.
        train_steps: minibatch steps on digits.
    """

    eps: float = 0.05
    time: float = 20.0
    samples: int = 400
    particles: tuple[int, ...] = (16, 32, 64, 128, 256, 512, 1024)
    reference: int = 4096
    draws: int = 48
    particle_time: float = 1.0
    train_steps: int = 200


PRESETS = {
    "smoke": Config(
        time=12.0, samples=100, particles=(16, 64, 256), reference=1024, draws=8, train_steps=2
    ),
    "quick": Config(),
    "full": Config(draws=256, train_steps=1000),
    "paper": Config(draws=1024, reference=65536, train_steps=5000),
}


@dataclass(frozen=True)
class Path:
    """A flow at its samples: times, loss, smoothed nuclear norm of P, energy that friction took.

    Attributes:
        t: (T,) times.
        loss: (T,) J.
        kinetic: (T,) K_ε(P).
        taken: (T,) γ∫⟨P, O_ε(P)⟩, integrated as one more state.
        power: (T,) γ⟨P, O_ε(P)⟩.
    """

    t: np.ndarray
    loss: np.ndarray
    kinetic: np.ndarray
    taken: np.ndarray
    power: np.ndarray

    @property
    def energy(self) -> np.ndarray:
        """(T,) J + K."""
        return self.loss + self.kinetic


def run(config: Config, seed: int) -> Figures:
    """One seed of every claim."""
    rng = np.random.default_rng(seed)
    A, B, W0 = (rng.standard_normal(s) for s in ((6, 4), (6, 3), (4, 3)))
    paths = {g: flow(A, B, W0, g, config) for g in FRICTIONS}
    path = paths[1.0]
    balance = path.energy + path.taken
    simpsons = abs(path.energy[-1] - path.energy[0] + simpson(path.power, x=path.t))
    least = 0.5 * float(np.linalg.lstsq(A, B, rcond=None)[1].sum())
    descent = gradient_descent(A, B, W0, config) - least
    gaps = {g: p.energy - least for g, p in paths.items()}
    slope, plain_slope, errors = chaos(config, seed)
    trained = tuned(config, seed)
    best = min(trained["SGD"], trained["AdamW"])
    start = path.energy[0]
    return Figures(
        samples={
            "energy_monotone": rise(path.energy),
            "dissipation_identity": abs(balance[-1] - start) / start,
            "exponential_gap": min(straightness(path.t, g) for g in gaps.values()),
            "chaos_rate": slope,
            "muon_beats_tuned": math.log10(trained["Muon"] / best),
        },
        baselines={
            "energy_monotone": rise(path.loss),
            "dissipation_identity": float(simpsons / start),
            "exponential_gap": straightness(path.t, descent),
            "chaos_rate": plain_slope,
            "muon_beats_tuned": math.log10(best),
        },
        controls={
            "energy_monotone": float((np.diff(path.loss) > 0).mean()),
            "dissipation_identity": abs(balance[-1] + 0.01 * path.taken[-1] - start) / start,
        },
        curves={
            "loss along the flow": (thin(path.t), thin(path.loss)),
            "energy along the flow": (thin(path.t), thin(path.energy)),
            "share of steps with rising energy against step size": (
                list(STEP_SIZES),
                [rising(A, B, W0, h, config) for h in STEP_SIZES],
            ),
            "error against number of particles": (list(map(float, config.particles)), errors),
        },
        data_hash=data_hash(*map(torch.from_numpy, (A, B, W0)), digits(seed=seed).x),
    )


def flow(A: np.ndarray, B: np.ndarray, W0: np.ndarray, friction: float, config: Config) -> Path:
    """The flow on J = ½‖AW − B‖² from rest."""
    n, eps = W0.size, config.eps

    def parts(P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        U, s, Vh = np.linalg.svd(P, full_matrices=False)
        return (U * (s / np.hypot(s, eps))) @ Vh, s

    def field(_: float, state: np.ndarray) -> np.ndarray:
        W, P = state[:n].reshape(W0.shape), state[n : 2 * n].reshape(W0.shape)
        velocity, s = parts(P)
        force = -A.T @ (A @ W - B) - friction * P
        power = friction * (s**2 / np.hypot(s, eps)).sum()
        return np.concatenate([velocity.ravel(), force.ravel(), [power]])

    t = np.linspace(0, config.time, config.samples)
    start = np.concatenate([W0.ravel(), np.zeros(n + 1)])
    solved = solve_ivp(field, (0, config.time), start, "DOP853", t, rtol=1e-11, atol=1e-13)
    W, P = (solved.y[i * n : (i + 1) * n].T.reshape(-1, *W0.shape) for i in (0, 1))
    s = np.linalg.svd(P, compute_uv=False)
    return Path(
        t,
        0.5 * ((A @ W - B) ** 2).sum((1, 2)),
        (s**2 / (np.hypot(s, eps) + eps)).sum(1),
        solved.y[-1],
        friction * (s**2 / np.hypot(s, eps)).sum(1),
    )


def gradient_descent(A: np.ndarray, B: np.ndarray, W0: np.ndarray, config: Config) -> np.ndarray:
    """Loss of the plain gradient flow W' = −∇J at the same times, in closed form."""
    values, basis = np.linalg.eigh(A.T @ A)
    limit = np.linalg.lstsq(A, B, rcond=None)[0]
    decay = np.exp(-np.linspace(0, config.time, config.samples)[:, None] * values)
    W = limit + basis @ (decay[:, :, None] * (basis.T @ (W0 - limit)))
    return 0.5 * ((A @ W - B) ** 2).sum((1, 2))


def rise(values: np.ndarray) -> float:
    """Largest rise between neighbours, relative to the first value; 0 if none."""
    return float(max(0.0, np.diff(values).max()) / values[0])


def straightness(t: np.ndarray, gap: np.ndarray) -> float:
    """R² of a line through log gap over the last three decades that it falls."""
    above = gap > FLOOR * gap[0]
    end = len(gap) if above.all() else int(np.argmin(above))
    keep = np.arange(end)[gap[:end] <= 1e3 * gap[:end].min()]
    keep = np.arange(keep[0], end)
    y = np.log10(gap[keep])
    return float(np.corrcoef(t[keep], y)[0, 1] ** 2)


def rising(A: np.ndarray, B: np.ndarray, W0: np.ndarray, h: float, config: Config) -> float:
    """Share of steps of ``RegularizedMuon`` in which the energy rises."""
    W = nn.Parameter(torch.from_numpy(W0.copy()))
    a, b = torch.from_numpy(A), torch.from_numpy(B)
    optimizer = RegularizedMuon([W], h, 1.0, config.eps)
    losses, momenta = [], []
    for _ in range(round(config.time / h)):
        residual = a @ W.detach() - b
        W.grad = a.T @ residual
        optimizer.step()
        losses.append(0.5 * (a @ W.detach() - b).square().sum())
        momenta.append(optimizer.state[W]["momentum"].clone())
    sigma = torch.linalg.svdvals(torch.stack(momenta))
    kinetic = (
        sigma.square() / (torch.hypot(sigma, sigma.new_tensor(config.eps)) + config.eps)
    ).sum(1)
    return float(((torch.stack(losses) + kinetic).diff() > 0).double().mean())


def chaos(config: Config, seed: int) -> tuple[float, float, list[float]]:
    """Slopes of the error in N, of Muon's flow and of gradient flow, and Muon's errors."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(32, 3, generator=generator, dtype=torch.float64)
    target = torch.sin(x @ torch.randn(3, 3, generator=generator, dtype=torch.float64))

    def losses(N: int, draws: int, muon: bool) -> Tensor:
        W = torch.randn(draws, N, 3, 2, generator=generator, dtype=torch.float64)
        return particles(W, x, target, config, muon)

    logs = np.log(config.particles)
    found = []
    for muon in (True, False):
        # Four draws halve what the reference itself is off by.
        limit = losses(config.reference, 4, muon).mean()
        errors = [
            float((losses(N, config.draws, muon) - limit).square().mean().sqrt())
            for N in config.particles
        ]
        found.append((float(np.polyfit(logs, np.log(errors), 1)[0]), errors))
    return found[0][0], found[1][0], found[0][1]


def particles(W: Tensor, x: Tensor, target: Tensor, config: Config, muon: bool) -> Tensor:
    """Loss at a fixed time of networks whose output is the mean of a_i tanh(w_i·x).

    Args:
        W: (draws, N, 3, 2) particles (w_i, a_i).
        x: (M, 3) inputs.
        target: (M, 3).
        config: ε and time; friction 1, steps of 0.02.
        muon: Muon's flow from rest, else W' = −force.

    Returns:
        (draws,).
    """
    h, W = 0.02, W.clone()
    P = torch.zeros_like(W)
    for _ in range(round(config.particle_time / h)):
        hidden = torch.tanh(W[..., 0] @ x.T)  # (draws, N, M)
        residual = (hidden.mT @ W[..., 1]) / W.shape[1] - target  # (draws, M, 3)
        # N times the derivative by W_i of half the mean square over samples and outputs.
        inner = (W[..., 1] @ residual.mT) * (1 - hidden.square())
        force = -torch.stack([inner @ x, hidden @ residual], -1) / target.numel()
        if muon:
            P = (1 - h) * P + h * force
            W = W + h * smoothed_polar(P, config.eps)
        else:
            W = W + h * force
    hidden = torch.tanh(W[..., 0] @ x.T)
    residual = (hidden.mT @ W[..., 1]) / W.shape[1] - target
    return 0.5 * residual.square().mean((1, 2))


def smoothed_polar(P: Tensor, eps: float) -> Tensor:
    """O_ε of (..., m, 2) matrices in closed form, for a decomposition of each would take minutes.

    With S = PᵀP + ε²I and r = √det S, √S = (S + rI)/√(tr S + 2r) by Cayley and Hamilton, and the
    inverse of a 2 × 2 matrix is its adjugate over its determinant.
    """
    S = P.mT @ P + eps**2 * torch.eye(2, dtype=P.dtype)
    r = (S[..., 0, 0] * S[..., 1, 1] - S[..., 0, 1].square()).sqrt()
    t = (S[..., 0, 0] + S[..., 1, 1] + 2 * r).sqrt()
    a, b, d = (S[..., 0, 0] + r) / t, S[..., 0, 1] / t, (S[..., 1, 1] + r) / t
    first, second = P[..., 0], P[..., 1]
    a, b, d = ((q / r).unsqueeze(-1) for q in (a, b, d))
    return torch.stack([d * first - b * second, a * second - b * first], -1)


def tuned(config: Config, seed: int) -> dict[str, float]:
    """Training loss that each optimizer of the hidden matrix reaches at its best learning rate."""
    kinds: dict[str, tuple[float, Callable[[list[Tensor], float], torch.optim.Optimizer]]] = {
        "Muon": (0.04, lambda p, lr: Muon(p, lr, weight_decay=0.0)),
        "SGD": (0.4, lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9)),
        "AdamW": (0.02, lambda p, lr: torch.optim.AdamW(p, lr, weight_decay=0.0)),
    }
    data = digits(seed=seed)
    return {
        name: _interior(lambda lr, make=make: _trained(make, lr, config, seed, data), lr)
        for name, (lr, make) in kinds.items()
    }


def _interior(loss: Callable[[float], float], lr: float) -> float:
    """Least loss over learning rates, widened until the best has a worse one on either side."""
    seen = {i: loss(lr * SWEEP**i) for i in (-1, 0, 1)}
    while (best := min(seen, key=seen.__getitem__)) in (min(seen), max(seen)):
        i = best - 1 if best == min(seen) else best + 1
        seen[i] = loss(lr * SWEEP**i)
    return seen[best]


def _trained(
    make: Callable[[list[Tensor], float], torch.optim.Optimizer],
    lr: float,
    config: Config,
    seed: int,
    data: Digits,
) -> float:
    torch.manual_seed(seed)
    model = nn.Sequential(
        *(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    )
    hidden = model[2].weight
    assert isinstance(hidden, Tensor)
    rest = [p for p in model.parameters() if p is not hidden]
    optimizers = make([hidden], lr), torch.optim.AdamW(rest, 3e-3)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(config.train_steps):
        rows = torch.randint(len(data.y), (64,), generator=generator)
        model.zero_grad()
        nn.functional.cross_entropy(model(data.x[rows]), data.y[rows]).backward()
        for optimizer in optimizers:
            optimizer.step()
    with torch.no_grad():
        loss = float(nn.functional.cross_entropy(model(data.x), data.y))
    return loss if math.isfinite(loss) else math.inf
