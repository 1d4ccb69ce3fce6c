from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from thalweg.instruments import isometry_defect, jacobian_spectrum

CI = settings(max_examples=25, deadline=None, derandomize=True)
VECTORS = Path(__file__).parents[1] / "vectors" / "adamo-isometry.npz"


def test_known_matrices():
    Q = torch.linalg.qr(torch.randn(6, 3, generator=torch.Generator().manual_seed(0))).Q
    found = isometry_defect([Q, Q.T, 2 * torch.eye(3), torch.zeros(2, 5), torch.ones(4)])
    assert found.each[:4].tolist() == pytest.approx([0, 0, 9, 1], abs=1e-6)
    assert found.each[4].isnan() and found.total.item() == pytest.approx(2.5)
    assert isometry_defect([]).total.isnan() and isometry_defect([torch.ones(2)]).total.isnan()
    assert isometry_defect([torch.full((2, 2), float("nan"))]).total.isnan()


def test_vectors():
    data = np.load(VECTORS, allow_pickle=False)
    W = [torch.from_numpy(data[f"adamo_W_{k}0"]) for k in ("tall", "wide")]
    expected = [data["iso_pen_tall"] / 3, data["iso_pen_wide"] / 2]
    np.testing.assert_allclose(isometry_defect(W).each, expected)


@CI
@given(seed=st.integers(0, 10**6), n=st.integers(1, 6), d=st.integers(1, 6))
def test_it_is_the_mean_over_singular_values(seed, n, d):
    W = torch.randn(n, d, 2, generator=torch.Generator().manual_seed(seed)).double()
    s = torch.linalg.svdvals(W.flatten(1))
    torch.testing.assert_close(isometry_defect([W]).each[0], (s**2 - 1).square().mean())


def test_an_isometric_network():
    class MaxMin(nn.Module):
        def forward(self, x):
            return x.view(len(x), -1, 2).sort(-1).values.flatten(1)

    torch.manual_seed(0)
    layers = [nn.utils.parametrizations.orthogonal(nn.Linear(6, 6)) for _ in range(3)]
    model = nn.Sequential(layers[0], MaxMin(), layers[1], MaxMin(), layers[2]).double()
    found = jacobian_spectrum(model, torch.randn(5, 6).double())
    ones = torch.ones(5, 6).double()
    torch.testing.assert_close(found.singular_values, ones, atol=1e-6, rtol=0)
    assert found.rms_defect.max() < 1e-6 and found.condition.max() < 1 + 1e-5


def test_a_linear_map():
    W = torch.diag(torch.tensor([3.0, 1.0]))
    found = jacobian_spectrum(lambda x: x @ W, torch.randn(4, 2))
    assert found.smallest.tolist() == [1.0] * 4 and found.largest.tolist() == [3.0] * 4
    assert found.condition.tolist() == [3.0] * 4
    assert found.rms_defect.tolist() == pytest.approx([2**0.5] * 4)
