import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.instruments import layer_statistics

CI = settings(max_examples=25, deadline=None, derandomize=True)


def test_known_answers():
    s = layer_statistics(torch.tensor([0.0, 0.0, 2.0, 2.0, math.nan]))
    assert (s.mean.item(), s.std.item(), s.skewness.item(), s.kurtosis.item()) == (1, 1, 0, 1)
    assert (s.min.item(), s.max.item()) == (0, 2)
    assert s.zero_fraction.item() == pytest.approx(0.4)
    assert s.nonfinite_fraction.item() == pytest.approx(0.2)
    gauss = layer_statistics(torch.randn(100_000, generator=torch.Generator().manual_seed(0)))
    assert gauss.kurtosis.item() == pytest.approx(3.0, abs=0.1)


def test_nothing_to_measure():
    assert layer_statistics(torch.empty(0, 3)).mean.isnan()
    bad = layer_statistics(torch.full((3,), math.inf))
    assert bad.mean.isnan() and bad.nonfinite_fraction == 1 and bad.zero_fraction == 0
    assert layer_statistics(torch.ones(3)).skewness.isnan()


@CI
@given(seed=st.integers(0, 10**6), dtype=st.sampled_from([torch.bfloat16, torch.float64]))
def test_shape_scale_and_dtype(seed, dtype):
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(seed)).to(dtype)
    a, b = layer_statistics(x), layer_statistics(4 * x.T)
    assert a.mean.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(4 * a.std, b.std)
    torch.testing.assert_close(a.kurtosis, b.kurtosis)
