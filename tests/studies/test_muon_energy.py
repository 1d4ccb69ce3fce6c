import math

import pytest
import torch

from thalweg.almanac import get
from thalweg.optim import orthogonalize
from thalweg.studies import load
from thalweg.studies.muon_energy import _interior, particles, smoothed_polar


@pytest.mark.study
def test_smoke_the_energy_falls_where_the_loss_rises():
    study = load("muon_energy")
    figures = study.run(study.config("smoke"), 0)
    entry = get("muon-hamiltonian")
    for claim in entry.claims:
        assert math.isfinite(figures.samples[claim.id])
        assert (claim.id in figures.baselines) == (claim.baseline is not None)
        assert (claim.id in figures.controls) == (claim.control is not None)
    for exact in ("energy_monotone", "dissipation_identity"):
        claim = entry.claim(exact)
        assert figures.samples[exact] <= claim.threshold
        assert figures.controls[exact] >= claim.control.threshold
    assert figures.baselines["energy_monotone"] > 1e-4
    assert -0.8 < figures.samples["chaos_rate"] < -0.2
    shares = figures.curves["share of steps with rising energy against step size"][1]
    assert max(shares) > 0.05 and shares[-1] == 0


def test_the_closed_form_of_the_smoothed_factor():
    P = torch.randn(20, 3, 2, dtype=torch.float64)
    want = orthogonalize(P, "regularized", eps=0.05)
    assert torch.allclose(smoothed_polar(P, 0.05), want, atol=1e-10)


def test_forces_on_particles_are_gradients():
    """One tiny step of gradient flow lowers the loss by h N ‖∇‖²."""
    config = load("muon_energy").config("smoke")
    W = torch.randn(1, 5, 3, 2, dtype=torch.float64, requires_grad=True)
    x, target = torch.randn(2, 32, 3, dtype=torch.float64)
    output = torch.einsum("bnm,bnk->bmk", torch.tanh(W[..., 0] @ x.T), W[..., 1]) / 5
    loss = 0.5 * (output - target).square().mean((1, 2))
    (gradient,) = torch.autograd.grad(loss.sum(), W)
    from dataclasses import replace

    with torch.no_grad():
        once = particles(W, x, target, replace(config, particle_time=0.02), muon=False)
        by_hand = W - 0.02 * 5 * gradient
        want = particles(by_hand, x, target, replace(config, particle_time=0.0), muon=False)
    assert torch.allclose(once, want, atol=1e-12)


def test_the_sweep_goes_on_until_its_optimum_is_interior():
    tried = []

    def loss(lr):
        tried.append(lr)
        return (math.log2(lr) - 3.2) ** 2

    assert _interior(loss, 0.5) == pytest.approx(0.04)
    assert max(tried) == 16.0
