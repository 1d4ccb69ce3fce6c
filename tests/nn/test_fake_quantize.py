"""Quantisers against the vectors of the official code, tables of levels and a slow reference."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.nn import fake_quantize
from thalweg.nn.fake_quantize import NF4, SCHEMES

VECTORS = np.load(Path(__file__).parents[1] / "vectors" / "stable-spam.npz", allow_pickle=False)
E2M1 = (0, 0.5, 1, 1.5, 2, 3, 4, 6)
each = pytest.mark.parametrize("scheme", SCHEMES)


@pytest.mark.parametrize(
    ("x", "wanted", "options"),
    [
        ("W", "int4_dequant", {"scheme": "int_asym", "group_size": 64}),
        ("X", "act_int4_top0", {"scheme": "int_sym", "group_size": 32}),
        ("X", "act_int4_top2", {"scheme": "int_sym", "group_size": 32, "topk": 2}),
        ("fp4_in", "fp4_top2", {"scheme": "fp4_official", "group_size": 256, "topk": 2}),
    ],
)
def test_vectors_of_the_official_code(x, wanted, options):
    x, wanted = (torch.from_numpy(VECTORS[f"quant__{k}"]) for k in (x, wanted))
    # One rounding of float32: products in another order.
    assert torch.allclose(fake_quantize(x, **options), wanted, rtol=1e-6, atol=0)


def test_sixteen_steps_are_exact_in_int4():
    x = torch.arange(16, dtype=torch.float64) * 0.3 - 1.5
    assert torch.allclose(fake_quantize(x, scheme="int_asym"), x, atol=1e-12)


def test_a_group_far_from_zero_is_cut_off_as_in_the_original():
    x = torch.tensor([10.0, 11.0])
    assert fake_quantize(x, scheme="int_asym").max() < 2


@pytest.mark.parametrize(
    ("scheme", "levels"),
    [
        ("fp4_e2m1", [*E2M1, *(-v for v in E2M1)]),
        ("fp4_official", [k / 4 * 6 for k in range(-4, 5)]),
        ("nf4", [6 * v for v in NF4]),
        ("int_sym", [6 * k / 7 for k in range(-7, 8)]),
    ],
)
def test_the_nearest_level_is_taken(scheme, levels):
    x = torch.cat([torch.linspace(-6, 6, 998, dtype=torch.float64), torch.tensor([6.0, -6.0])])
    q = fake_quantize(x, scheme=scheme, group_size=1000)
    levels = torch.tensor(levels, dtype=torch.float64)
    slow = (x[:, None] - levels).abs().amin(1)
    assert torch.allclose((q - x).abs(), slow, atol=1e-12)
    assert len(q.round(decimals=9).unique()) == len(levels.unique())


def test_ties_of_e2m1_go_to_the_even_code():
    ties = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 6.0])
    wanted = [0.0, 1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 6.0]
    assert fake_quantize(ties, scheme="fp4_e2m1").tolist() == wanted
    assert fake_quantize(-ties, scheme="fp4_e2m1").tolist() == [-w for w in wanted]


@each
@given(seed=st.integers(0, 10**6))
def test_scaling_and_quantising_twice(scheme, seed):
    x = torch.randn(3, 50, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    q = fake_quantize(x, scheme=scheme, group_size=16)
    if scheme != "int_asym":  # there the zero point moves where the range lost its ends
        assert torch.allclose(fake_quantize(q, scheme=scheme, group_size=16), q, atol=1e-12)
    twice = fake_quantize(2 * x, scheme=scheme, group_size=16)
    assert torch.allclose(twice, 2 * q, atol=1e-12)


@each
@pytest.mark.parametrize("topk", [0, 2])
def test_groups_do_not_see_each_other_and_the_last_may_be_short(scheme, topk):
    x = torch.randn(4, 21, dtype=torch.float64)
    options = {"scheme": scheme, "topk": topk}
    rows = fake_quantize(x, group_size=8, dim=-1, **options)
    parts = [fake_quantize(x[i, a : a + 8], group_size=8, **options)
             for i in range(4) for a in (0, 8, 16)]  # fmt: skip
    assert torch.equal(rows.flatten(), torch.cat(parts))
    columns = fake_quantize(x.T, group_size=8, dim=0, **options)
    assert torch.equal(columns.T, rows)
    flat = fake_quantize(x, group_size=8, **options)
    assert torch.equal(flat.flatten(), fake_quantize(x.flatten(), group_size=8, **options))


@each
def test_the_largest_stay_exact_and_do_not_count(scheme):
    x = torch.tensor([0.1, -0.3, 100.0, 0.2, -77.7, 0.25])
    q = fake_quantize(x, scheme=scheme, topk=2)
    assert q[2] == 100 and q[4] == x[4]
    assert (q - x).abs().max() < 0.1


@each
def test_the_gradient_passes(scheme):
    x = torch.randn(5, 7, requires_grad=True)
    weights = torch.randn(5, 7)
    (fake_quantize(x, scheme=scheme, group_size=4) * weights).sum().backward()
    assert torch.equal(x.grad, weights)


@pytest.mark.parametrize("scheme", [s for s in SCHEMES if s != "nf4"])
def test_rounding_by_chance_has_no_bias(scheme):
    x = torch.tensor([1.0, -1.0, 0.37, -0.2, 0.61], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    many = fake_quantize(
        x.repeat(20_000, 1), scheme=scheme, dim=-1, stochastic=True, generator=generator
    )
    # The ends of the range are clamped; the spread of one draw is below 0.2.
    assert torch.allclose(many.mean(0)[2:], x[2:], atol=5 * 0.2 / 20_000**0.5)
    assert len(many[:, 2].unique()) == 2


@each
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dtype_and_shape_are_kept(scheme, dtype):
    for shape in ((), (0, 3), (1,), (2, 3, 5)):
        x = torch.randn(shape).to(dtype)
        q = fake_quantize(x, scheme=scheme, group_size=4)
        assert q.dtype == dtype and q.shape == x.shape and q.isfinite().all()
    assert torch.equal(fake_quantize(torch.zeros(5), scheme=scheme), torch.zeros(5))
    assert fake_quantize(torch.tensor([1.0, torch.nan]), scheme=scheme).isnan().all()


def test_more_bits_err_less():
    x = torch.randn(1000)
    for scheme in ("int_asym", "int_sym"):
        errors = [(fake_quantize(x, bits=b, scheme=scheme) - x).norm() for b in (2, 4, 8)]
        assert errors[0] > 3 * errors[1] > 9 * errors[2]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scheme": "fp5"}, "scheme"),
        ({"bits": 8}, "bits must be 4"),
        ({"bits": 1, "scheme": "int_sym"}, "bits must be"),
        ({"group_size": 0}, "group_size"),
        ({"group_size": 4, "topk": 4}, "topk must be"),
        ({"scheme": "nf4", "stochastic": True}, "stochastic must be False"),
    ],
)
def test_settings_out_of_range(options, said):
    with pytest.raises(ValueError, match=said):
        fake_quantize(torch.ones(8), **options)


def test_integers_are_refused():
    with pytest.raises(TypeError, match="floating point"):
        fake_quantize(torch.ones(8, dtype=torch.int64))
