"""How a change is spread: closed forms, and the numbers of the authors' script."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from thalweg.trajectory.change_figures import (
    change_spectrum,
    coordinate_energy,
    hill_exponent,
    mask_shares,
)
from thalweg.trajectory.matrix_spectrum import matrix_spectrum
from thalweg.trajectory.pair_spectra import PairSpectra

VECTORS = Path(__file__).parents[1] / "vectors"
PEER = np.load(VECTORS / "opd-geometry.npz", allow_pickle=False)
OWN = np.load(VECTORS / "rlvr-off-principals.npz", allow_pickle=False)


def spectrum(delta, topk=(1, 2)):
    return change_spectrum(matrix_spectrum(delta), float(delta.norm()), min(delta.shape), topk)


def test_one_direction_and_all_directions():
    one = spectrum(0.3 * torch.outer(torch.ones(5), torch.ones(4)).double())
    assert one.stable_rank == pytest.approx(1) and one.top_energy[1] == pytest.approx(1)
    assert one.numerical_rank[1e-5] == 1 / 4 and one.entropy_rank == pytest.approx(1, abs=1e-5)
    all_ = spectrum(2 * torch.eye(6).double())
    assert all_.stable_rank == pytest.approx(6) and all_.entropy_rank == pytest.approx(6)
    assert all_.top_energy[2] == pytest.approx(2 / 6) and all_.hill > 1e6
    assert hill_exponent(torch.ones(5)) == math.inf


def test_hill_finds_the_power():
    for a in (0.8, 2.0):
        i = torch.arange(1, 200_001, dtype=torch.float64)
        assert hill_exponent(i ** (-1 / a)) == pytest.approx(a, rel=1e-3)
        assert hill_exponent(i[:2] ** (-1 / a)) == pytest.approx(a / math.log(2))
    assert math.isnan(hill_exponent(torch.ones(1))) and math.isnan(hill_exponent(torch.zeros(3)))
    delta = torch.from_numpy(OWN["W1"] - OWN["W0"])
    assert spectrum(delta).hill == pytest.approx(float(OWN["hill_k10"]), rel=1e-6)


def test_gaussian_coordinates():
    delta = torch.randn(400_000, generator=torch.Generator().manual_seed(0))
    assert coordinate_energy(delta, [0.01])[0.01] == pytest.approx(0.0845, abs=1e-3)
    assert math.isnan(coordinate_energy(torch.zeros(10), [0.1])[0.1])


def test_randomised_spectra_say_what_they_lack():
    delta = torch.randn(30, 20)
    found = change_spectrum(
        matrix_spectrum(delta, 4, svd="randomized"), float(delta.norm()), 20, (1, 4, 8)
    )
    assert math.isnan(found.entropy_rank) and set(found.top_energy) == {1, 4}
    assert math.isnan(found.numerical_rank[1e-6])


def test_masks_of_chance():
    W = torch.randn(40, 30)
    spectra = PairSpectra(W, W, 30)
    shares = mask_shares(W, spectra, torch.ones(40, 30, dtype=torch.bool), 0.1)
    assert shares["principal"] == shares["low"] == 0.1
    assert shares["not_principal_or_low"] == pytest.approx(1 - shares["principal_not_low"])


def test_vectors_of_the_authors_script():
    W0, W1 = torch.from_numpy(PEER["W0"]), torch.from_numpy(PEER["W1"])
    found = spectrum(W1 - W0, (1, 2, 4, 8, 16, 32, 64))
    # Theirs is a float32 decomposition.
    assert found.spectral_norm == pytest.approx(float(PEER["svd_spectral_norm"]), rel=1e-5)
    assert found.stable_rank == pytest.approx(float(PEER["svd_stable_rank"]), rel=1e-5)
    assert found.entropy_rank == pytest.approx(float(PEER["svd_effective_rank_entropy"]), rel=1e-4)
    for k, share in found.top_energy.items():
        assert share == pytest.approx(float(PEER[f"svd_top{k}_energy_ratio"]), rel=1e-5)
    for tol in (4, 5, 6):
        assert found.numerical_rank[10**-tol] == float(PEER[f"svd_rank_pct_tol_1e_{tol}"])
