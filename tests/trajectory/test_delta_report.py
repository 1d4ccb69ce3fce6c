"""The report on a change: known answers, the authors' numbers, groups, errors."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from thalweg.errors import ThalwegError
from thalweg.trajectory import DeltaReport, TensorDelta, delta_report

PEER = np.load(Path(__file__).parents[1] / "vectors" / "opd-geometry.npz", allow_pickle=False)


def one(W0, W1, **settings) -> TensorDelta:
    return delta_report({"w": W0}, {"w": W1}, **settings).tensors[0]


@pytest.mark.parametrize(
    ("prefix", "dtype"), [("tensor", torch.float32), ("tensorbf16", torch.bfloat16)]
)
def test_coordinates_of_the_authors_script(prefix, dtype):
    t = one(torch.from_numpy(PEER["W0"]), torch.from_numpy(PEER["W1"]), dtype=dtype)

    def theirs(name):
        return float(PEER[f"{prefix}_{name}"])

    # In bfloat16 the script also rounds the difference; here it is exact.
    rel = 1e-5 if dtype == torch.float32 else 1e-3
    assert t.norm == pytest.approx(theirs("src_fro_norm"), rel=1e-5)
    assert t.change_norm == pytest.approx(theirs("delta_fro_norm"), rel=rel)
    assert t.relative_norm == pytest.approx(theirs("relative_delta_fro"), rel=rel)
    assert t.unchanged == pytest.approx(theirs("frac_delta_eq_0"), abs=1e-12)
    for tau, share in t.below.items():
        assert share == pytest.approx(theirs(f"frac_abs_delta_lt_1e{round(math.log10(tau))}"))
    for tau, share in t.below_rms.items():
        name = f"frac_abs_delta_lt_1e{round(math.log10(tau))}_src_rms"
        assert share == pytest.approx(theirs(name), abs=1.5 / 1920)
    for share, name in ((0.001, "0p1"), (0.01, "1"), (0.05, "5")):
        assert t.coordinates[share] == pytest.approx(
            theirs(f"coord_top_{name}pct_energy_ratio"), rel=10 * rel
        )


def test_geometry_of_the_authors_script():
    t = one(torch.from_numpy(PEER["W0"]), torch.from_numpy(PEER["W1"]), dtype=torch.float32)
    for ratio in t.energy:
        pct = round(100 * ratio)
        names = ("", "left_", "right_")
        theirs = [float(PEER[f"base_{s}principal_projection_energy_ratio_{pct}pct"]) for s in names]
        assert t.energy[ratio] == pytest.approx(theirs, rel=1e-3)
        # √(1 − cos²) in float32 is 3e-4 off near 0; sines are not.
        rotation = float(PEER[f"base_top_subspace_rotation_{pct}pct"])
        assert t.rotation[ratio] == pytest.approx(rotation, abs=5e-4)
    assert t.drift == pytest.approx(float(PEER["base_spectral_drift_l2_ratio"]), rel=2e-3)
    over = float(PEER["base_spectral_drift_to_delta_fro_ratio"])
    assert t.drift_over_change == pytest.approx(over, rel=2e-3)


def test_a_multiple_of_the_source():
    W = torch.randn(12, 8, dtype=torch.float64)
    t = one(W, 1.5 * W, dtype=torch.float64, ratios=(0.25,))
    S = torch.linalg.svdvals(W).square()
    assert t.energy[0.25][0] == pytest.approx(float(S[:2].sum() / S.sum()))
    assert t.drift_over_change == pytest.approx(1) and t.rotation[0.25] < 1e-6


def test_noise_is_its_own_control():
    W = 0.02 * torch.randn(80, 60)
    W = W.bfloat16().float()
    t = one(W, W + 1e-4 * torch.randn(80, 60), dtype=torch.float32)
    assert t.spectrum.stable_rank == pytest.approx(t.spectrum_control.stable_rank, rel=0.3)
    assert t.spectrum.top_energy[16] == pytest.approx(t.spectrum_control.top_energy[16], rel=0.1)
    stored = one(W, W + 3e-5 * torch.randn(80, 60))
    assert stored.masks[0.2]["low"] > 0.3  # far above chance, and no more than noise
    assert stored.masks[0.2]["low"] == pytest.approx(stored.masks_control[0.2]["low"], rel=0.1)
    assert t.coordinates[0.01] == pytest.approx(0.0845, abs=0.02)


def test_groups_and_json():
    base = {
        "layers.0.q_proj.weight": torch.randn(8, 8),
        "layers.1.up_proj.weight": torch.randn(9, 8),
    }
    base |= {"norm.weight": torch.ones(8), "n": torch.tensor(1)}
    tuned = {k: v.clone() for k, v in base.items()}
    tuned["layers.0.q_proj.weight"] += 0.1
    report = delta_report(base, tuned)
    assert isinstance(report, DeltaReport) and list(report.layers) == [0, 1]
    q, up = report.modules["q"], report.modules["up"]
    assert q.energy_share == 1 and up.energy_share == 0 and up.unmoved == 1
    assert math.isnan(up.stable_rank) and report.summary.unmoved == 2
    assert q.numel_share == pytest.approx(64 / 144)
    data = json.loads(report.to_json())
    assert data["tensors"][1]["spectrum"] is None and data["skipped"] == {
        "n": "int64, not floating"
    }
    assert data["summary"]["below"]["1e-05"] == pytest.approx(80 / 144)


def test_no_control_and_large_matrices():
    W = torch.randn(20, 12)
    t = one(W, W + 1, control=None, max_exact_dim=5)
    assert t.spectrum_control is None and not t.masks_control and math.isnan(t.drift)
    assert one(W, W + 1, max_exact_dim=5).spectrum_control is not None
    assert one(W, W + 1, control="shuffle").masks_control


def test_errors():
    W = torch.ones(2, 2)
    with pytest.raises(ValueError, match="ratios in"):
        one(W, W, ratios=(0.0,))
    with pytest.raises(ValueError, match="control isotropic"):
        one(W, W, control="pink")
    with pytest.raises(ThalwegError, match="not finite"):
        one(W, W / 0)
