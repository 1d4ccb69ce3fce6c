"""Noise that as many stored weights feel: exact counts, and the definition by brute force."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.trajectory import bf16_visible
from thalweg.trajectory.matched_noise import matched_noise, visible_noise_mask


@given(
    seed=st.integers(0, 10**6),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    count=st.integers(0, 300),
)
def test_the_mask_is_what_some_scale_of_the_noise_changes(seed, dtype, count):
    g = torch.Generator().manual_seed(seed)
    W = torch.randn(300, generator=g)
    W[:20] = 0
    W[20:60] = 2.0 ** torch.randint(-4, 4, (40,), generator=g)  # spacing differs on both sides
    W = W.to(dtype)
    noise = torch.randn(300, generator=g)
    mask = visible_noise_mask(W, noise, count)
    assert int(mask.sum()) == count
    # Bisection over the scale, on the definition.
    low, high = 0.0, 1e6
    for _ in range(200):
        s = (low * high) ** 0.5 if low else high / 4
        seen = bf16_visible(W, W.double().add(s * noise.double()).float(), 0.0)
        low, high = (s, high) if int(seen.sum()) < count else (low, s)
    # float32 of the sum may tip entries that lie on a boundary
    assert int((seen ^ mask).sum()) <= 2


def test_rounding_alone_prefers_small_weights():
    """Gaussian weights, α = 0.3: at density 0.28 noise puts 0.65 on the smallest, not 0.3."""
    g = torch.Generator().manual_seed(0)
    W = 0.02 * torch.randn(512, 512, generator=g)
    low = W.abs() <= W.abs().flatten().kthvalue(int(0.3 * W.numel())).values
    for density, share in ((0.9, 0.33), (0.47, 0.52), (0.28, 0.65)):
        count = int(density * W.numel())
        seen = visible_noise_mask(W, torch.randn(W.shape, generator=g), count)
        assert (low & seen).sum().item() / count == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_noise_has_the_norm_of_the_change(dtype):
    g = torch.Generator().manual_seed(0)
    W0, W1 = torch.randn(20, 30, generator=g).to(dtype), torch.randn(20, 30, generator=g).to(dtype)
    change = (W1.double() - W0.double()).norm().item()
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    for kind in ("isotropic", "shuffle"):
        noise = matched_noise(W0, W1, kind, torch.Generator().manual_seed(1))
        assert noise.dtype == wide and noise.norm().item() == pytest.approx(change, rel=1e-5)
        again = matched_noise(W0, W1, kind, torch.Generator().manual_seed(1))
        assert torch.equal(noise, again)
    assert torch.equal(
        noise.flatten().sort().values, (W1.to(wide) - W0.to(wide)).flatten().sort().values
    )
