import math

import pytest
import torch

from thalweg.almanac import get
from thalweg.laws import Group, equivariance_error
from thalweg.studies import load
from thalweg.studies.symmetry_discovery import _cases, _symmetrised, cnn, p4_net, turn


@pytest.mark.study
def test_smoke_what_is_exact_is_exact_and_learnt_symmetry_is_not():
    study = load("symmetry_discovery")
    figures = study.run(study.config("smoke"), 0)
    entry = get("geometric-deep-learning")
    for claim in entry.claims:
        assert math.isfinite(figures.samples[claim.id])
        assert math.isfinite(figures.baselines[claim.id])
        assert (claim.id in figures.controls) == (claim.control is not None)
    for exact in ("p4_exact", "nullspace_dimensions", "flow_preserves"):
        assert figures.samples[exact] <= entry.claim(exact).threshold
    assert figures.controls["p4_exact"] > 0.1 and figures.controls["flow_preserves"] > 1e-2
    assert figures.samples["p4_rotated_accuracy"] > 0
    gaps = figures.samples, figures.baselines, figures.controls
    trained, exact, untrained = (g["symmetry_gap"] for g in gaps)
    assert exact > 1e6 > trained > 2 * untrained


def test_symmetrised_weights_make_an_invariant_network():
    net = cnn().double()
    x = torch.randn(4, 1, 8, 8, dtype=torch.float64)
    c4 = Group.cyclic(4, rotation=True)
    assert equivariance_error(net, x, c4, turn) > 1e-3
    with torch.no_grad():
        for p, s in zip(net.parameters(), _symmetrised(list(net.parameters())), strict=True):
            p.copy_(s)
    assert equivariance_error(net, x, c4, turn) < 1e-14
    again = _symmetrised(list(net.parameters()))
    for p, s in zip(net.parameters(), again, strict=True):
        assert torch.allclose(p, s, atol=1e-15)


def test_sizes_and_character_theory():
    assert sum(p.numel() for p in cnn().parameters()) == 2650
    assert sum(p.numel() for p in p4_net().parameters()) == 2482
    assert [case[-1] for case in _cases()] == [2, 2, 5, 14, 2, 2, 5, 15, 6, 2, 1]
