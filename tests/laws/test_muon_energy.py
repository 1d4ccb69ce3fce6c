from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from thalweg.laws import MuonEnergyMonitor
from thalweg.laws.muon_energy import dissipation
from thalweg.optim import Muon, RegularizedMuon

VECTORS = np.load(
    Path(__file__).parents[1] / "vectors" / "muon-hamiltonian.npz", allow_pickle=False
)
A, B = torch.from_numpy(VECTORS["ham_A"]), torch.from_numpy(VECTORS["ham_B"])


def followed(make, num_steps):
    """Energies after every step, and the monitor, on J = ½‖AW − B‖²."""
    W = nn.Parameter(torch.from_numpy(VECTORS["ham_W0"].copy()))
    optimizer = make([W])
    energies = []
    with MuonEnergyMonitor(optimizer, lambda: (A @ W - B).square().sum() / 2) as monitor:
        energies.append(monitor.energy())
        for _ in range(num_steps):
            W.grad = A.T @ (A @ W.detach() - B)
            optimizer.step()
            energies.append(monitor.energy())
    return np.array(energies), monitor, W


def smooth(h, friction=1.0):
    return lambda params: RegularizedMuon(params, h, friction, eps=0.05)


def test_small_steps_keep_the_balance_to_first_order():
    residuals = []
    for h in (0.01, 0.005):
        energies, monitor, _ = followed(smooth(h), round(2 / h))
        assert (np.diff(energies) <= 0).all()
        residuals.append(monitor.dissipation_residual())
        lost = energies[0] - energies[-1]
        assert abs(residuals[-1]) < 0.1 * lost
        assert monitor.dissipated() == pytest.approx(lost + residuals[-1], rel=1e-12)
    assert 0.2 < residuals[1] / residuals[0] < 0.65


def test_the_energy_of_the_vectors():
    """At the prototype's W and P the energy is the prototype's."""
    W = nn.Parameter(torch.from_numpy(VECTORS["ham_W"][7].copy()))
    optimizer = RegularizedMuon([W], 0.01, 1.0, float(VECTORS["ham_eps_gamma"][0]))
    optimizer.state[W]["momentum"] = torch.from_numpy(VECTORS["ham_P"][7].copy())
    monitor = MuonEnergyMonitor(optimizer, lambda: (A @ W - B).square().sum() / 2)
    want = VECTORS["ham_J"][7] + VECTORS["ham_K"][7]
    assert monitor.energy() == pytest.approx(want, rel=1e-12)


def test_large_steps_make_the_energy_rise_and_the_monitor_says_so():
    shares = []
    for h in (0.2, 0.1, 0.02):
        energies, _, _ = followed(smooth(h), round(20 / h))
        shares.append(float((np.diff(energies) > 0).mean()))
    assert shares[0] > 0.2 > shares[1] > 0.1 and shares[2] == 0


def test_without_friction_nothing_is_lost():
    energies, monitor, _ = followed(smooth(1e-3, 0.0), 1000)
    assert monitor.dissipated() == 0 and abs(energies - energies[0]).max() < 1e-2 * energies[0]


@pytest.mark.parametrize("shape_rows", [4, 9])
def test_muon_is_read_as_the_flow_with_its_own_time(shape_rows):
    """Exact factor, no Nesterov: halving η with 1 − μ fixed to η halves the residual."""
    residuals = []
    goal = torch.randn(shape_rows, 4).double()
    for h in (4e-3, 2e-3):
        W = nn.Parameter(torch.zeros(shape_rows, 4).double())
        optimizer = Muon([W], h, 0.0, 1 - h, nesterov=False, backend="svd")
        monitor = MuonEnergyMonitor(optimizer, lambda W=W: (W - goal).square().sum() / 2)
        for _ in range(round(0.2 / h)):
            W.grad = W.detach() - goal
            optimizer.step()
        residuals.append(monitor.dissipation_residual())
        assert abs(residuals[-1]) < 0.05 * monitor.dissipated()
    assert 0.3 < residuals[1] / residuals[0] < 0.7


def test_torchs_muon_is_read_too_and_closing_stops_it():
    W = nn.Parameter(torch.ones(3, 2))
    optimizer = torch.optim.Muon([W], weight_decay=0)
    monitor = MuonEnergyMonitor(optimizer, lambda: W.square().sum())
    W.grad = torch.ones(3, 2)
    optimizer.step()
    taken = monitor.dissipated()
    assert taken > 0
    monitor.close()
    optimizer.step()
    assert monitor.dissipated() == taken


def test_dissipation_of_zero_and_the_nuclear_norm():
    assert dissipation(torch.zeros(2, 3), 0.0) == 0
    P = torch.randn(4, 3, dtype=torch.float64)
    assert torch.allclose(dissipation(P, 0.0), torch.linalg.matrix_norm(P, "nuc"))


def test_errors():
    W = nn.Parameter(torch.ones(2, 2))
    with pytest.raises(TypeError, match="got SGD; other optimizers have no such energy"):
        MuonEnergyMonitor(torch.optim.SGD([W], 0.1), W.sum)
    with pytest.raises(ValueError, match=r"weight_decay must be 0, got 0\.1"):
        MuonEnergyMonitor(Muon([W]), W.sum)
    with pytest.raises(ValueError, match="needs momentum > 0"):
        MuonEnergyMonitor(Muon([W], weight_decay=0, momentum=0), W.sum)
