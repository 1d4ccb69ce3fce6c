from pathlib import Path

import numpy as np
import pytest
import torch

from thalweg.numerics import spectral_density

VECTORS = Path(__file__).parents[1] / "vectors" / "sgd-dynamical-stability.npz"


def test_all_steps_give_the_exact_nodes():
    A = torch.diag(torch.tensor([1.0, 2.0, 5.0, -3.0]).double())
    v = torch.tensor([1.0, 2.0, 3.0, 4.0]).double()[:, None]
    phi = spectral_density(A, 1, 4, sigma=0.1, v0=v)
    torch.testing.assert_close(phi.nodes[0], A.diagonal().sort().values)
    torch.testing.assert_close(phi.weights.sum(1), torch.ones(1).double())
    unit = v[:, 0] / v.norm()
    mean = (phi.weights * phi.nodes).sum()
    torch.testing.assert_close(mean, unit @ A @ unit)
    assert phi.stderr.isnan().all()


def test_vectors():
    data = np.load(VECTORS, allow_pickle=False)
    v = torch.from_numpy(data["est__Omega"][:, :1])
    phi = spectral_density(torch.from_numpy(data["est__A"]), 1, 10, v0=v)
    np.testing.assert_allclose(phi.nodes[0], data["est__slq_nodes"], atol=1e-12)
    np.testing.assert_allclose(phi.weights[0], data["est__slq_weights"], atol=1e-12)


def test_two_clusters_hold_their_shares():
    A = torch.diag(torch.cat([torch.zeros(150), torch.full((50,), 10.0)]))
    phi = spectral_density(A, num_probes=30, lanczos_steps=5, sigma=0.2)
    high = phi.grid > 5
    share = torch.trapezoid(phi.values[high], phi.grid[high]).item()
    error = torch.trapezoid(phi.stderr[high], phi.grid[high]).item()
    assert abs(share - 0.25) < 4 * error < 0.1
    assert torch.trapezoid(phi.values, phi.grid).item() == pytest.approx(1.0, abs=1e-3)


def test_errors():
    with pytest.raises(ValueError, match="num_probes"):
        spectral_density(torch.eye(2), 0)
    with pytest.raises(ValueError, match="sigma"):
        spectral_density(torch.eye(2), sigma=-1.0)
    with pytest.raises(ValueError, match="symmetric"):
        spectral_density(torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
