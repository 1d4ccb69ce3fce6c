import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.instruments import grad_noise_scale

CI = settings(max_examples=25, deadline=None, derandomize=True)


def samples(seed, n, P=20, noise=1.0):
    g = torch.Generator().manual_seed(seed)
    mean = torch.randn(P, generator=g).double()
    return mean + noise * torch.randn(n, P, generator=g).double(), mean


def test_the_mean_over_many_draws_is_the_truth():
    found = [grad_noise_scale(samples(s, 40)[0]) for s in range(200)]
    true = [20 / samples(s, 1)[1].square().sum().item() for s in range(200)]
    ratio = torch.tensor([f.value / t for f, t in zip(found, true, strict=True)])
    assert abs(ratio.mean() - 1) < 0.05
    error = torch.tensor([(f.value - t) / f.uncertainty for f, t in zip(found, true, strict=True)])
    assert 0.7 < error.square().mean().sqrt() < 1.5


def test_equal_micro_batches_are_the_published_estimator():
    g, _ = samples(0, 24)
    b, n = 4, 6
    micro = g.view(n, b, -1).mean(1)
    small, big = micro.square().sum(1).mean(), micro.mean(0).square().sum()
    signal = (n * b * big - b * small) / (n * b - b)
    noise = (small - big) / (1 / b - 1 / (n * b))
    assert grad_noise_scale(micro, [b] * n).value == pytest.approx((noise / signal).item())


@CI
@given(seed=st.integers(0, 10**6), scale=st.sampled_from([1e-6, 1.0, 1e6]))
def test_scale_order_and_layout_do_not_matter(seed, scale):
    g, _ = samples(seed, 8, noise=0.5)
    sizes = [1, 2, 3, 4, 1, 2, 3, 4]
    base = grad_noise_scale(g, sizes)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(seed))
    mixed = grad_noise_scale(scale * g[order], [sizes[i] for i in order])
    parts = grad_noise_scale([[row[:5], row[5:].view(3, 5)] for row in g], sizes)
    for other in (mixed, parts):
        assert other.status == base.status
        assert other.value == pytest.approx(base.value, nan_ok=True)
        assert other.uncertainty == pytest.approx(base.uncertainty, nan_ok=True)


def test_pure_noise_and_bad_gradients_have_a_status():
    noise = torch.randn(6, 50, generator=torch.Generator().manual_seed(1))
    noise = noise - noise.mean(0)
    assert grad_noise_scale(noise).status.startswith("unsupported:")
    assert grad_noise_scale(torch.full((4, 3), float("inf"))).status == "nonfinite"


def test_errors():
    for args in ((torch.ones(2, 3),), (torch.ones(4, 3), [1, 2]), (torch.ones(3, 3), [0, 1, 1])):
        with pytest.raises(ValueError, match="3 or more"):
            grad_noise_scale(*args)
    with pytest.raises(ValueError, match="shapes"):
        grad_noise_scale([[torch.ones(2)], [torch.ones(3)], [torch.ones(2)]])
