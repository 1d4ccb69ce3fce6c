"""On-policy distillation against closed forms, a slow reference, and its own policy gradient."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.losses import opd_loss

KINDS = ("reverse_kl", "forward_kl", "jsd")


def draw(*shape, seed=0, dtype=torch.float64):
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_logits_give_zero_and_no_gradient(kind):
    z = draw(2, 3, 7).requires_grad_()
    loss = opd_loss(z, z.detach(), kind=kind)
    loss.backward()
    assert loss.abs() < 1e-14 and z.grad.abs().max() < 1e-15


def test_gradient_in_closed_form():
    z, t = draw(1, 9).requires_grad_(), draw(1, 9, seed=1)
    loss = opd_loss(z, t)
    loss.backward()
    p, ratio = z.detach().softmax(1), z.detach().log_softmax(1) - t.log_softmax(1)
    torch.testing.assert_close(z.grad, p * (ratio - loss.detach()))


@given(
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 10**6),
    temperature=st.sampled_from([0.5, 1.0, 3.0]),
)
def test_the_definition_token_by_token(kind, seed, temperature):
    z, t = draw(2, 4, 6, seed=seed), draw(2, 4, 6, seed=seed + 1)
    mask = torch.rand(2, 4, generator=torch.Generator().manual_seed(seed)) < 0.6
    each = opd_loss(z, t, mask, kind=kind, temperature=temperature, reduction="none")
    expected = torch.zeros(2, 4, dtype=torch.float64)
    for i in range(2):
        for j in range(4):
            if not mask[i, j]:
                continue
            p, q = (a[i, j].div(temperature).exp() for a in (z, t))
            p, q = p / p.sum(), q / q.sum()
            m = (p + q) / 2
            kl = lambda a, b: float((a * (a / b).log()).sum())  # noqa: E731
            expected[i, j] = {
                "reverse_kl": kl(p, q),
                "forward_kl": kl(q, p),
                "jsd": (kl(p, m) + kl(q, m)) / 2,
            }[kind]
    torch.testing.assert_close(each, expected, rtol=1e-9, atol=1e-12)
    total = opd_loss(z, t, mask, kind=kind, temperature=temperature, reduction="sum")
    torch.testing.assert_close(total, expected.sum())
    mean = opd_loss(z, t, mask, kind=kind, temperature=temperature)
    torch.testing.assert_close(mean, expected.sum() / max(int(mask.sum()), 1))


def test_gradcheck():
    z, t = draw(2, 5).requires_grad_(), draw(2, 5, seed=1)
    for kind in KINDS:
        assert torch.autograd.gradcheck(lambda a, kind=kind: opd_loss(a, t, kind=kind), z)


def test_the_policy_gradient_has_the_mean_of_reverse_kl():
    z, t = draw(1, 6), draw(1, 6, seed=1)
    exact = z.clone().requires_grad_()
    opd_loss(exact, t).backward()
    total = torch.zeros_like(z)
    for y, weight in enumerate(z.softmax(1)[0]):  # every token, by its probability
        each = z.clone().requires_grad_()
        opd_loss(each, t, kind="policy_gradient", tokens=torch.tensor([y])).backward()
        total += weight * each.grad
    torch.testing.assert_close(total, exact.grad)
    drawn = z.expand(200_000, -1).clone().requires_grad_()
    g = torch.Generator().manual_seed(0)
    opd_loss(drawn, t.expand_as(drawn), kind="policy_gradient", generator=g).backward()
    torch.testing.assert_close(drawn.grad.sum(0), exact.grad[0], atol=0.02, rtol=0)


def test_the_likeliest_tokens():
    z, t = draw(3, 8), draw(3, 8, seed=1)
    for kind in KINDS:
        torch.testing.assert_close(opd_loss(z, t, kind=kind, top_k=8), opd_loss(z, t, kind=kind))
        assert opd_loss(z, t, kind=kind, top_k=1).abs() < 1e-14
    likely = z.topk(3).indices
    cut = opd_loss(z.gather(1, likely), t.gather(1, likely))
    torch.testing.assert_close(opd_loss(z, t, top_k=3), cut)


def test_padding_and_tokens_ruled_out():
    z, t = draw(2, 3, 4, dtype=torch.float32), draw(2, 3, 4, seed=1, dtype=torch.float32)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    clean = opd_loss(z, t, mask)
    z[mask == 0] = float("nan")
    z.requires_grad_()
    loss = opd_loss(z, t, mask)
    loss.backward()
    assert torch.equal(loss, clean) and not z.grad[mask == 0].any()
    ruled = torch.cat([z.detach()[0, :2], torch.full((2, 1), -math.inf)], 1).requires_grad_()
    other = torch.cat([t[0, :2], torch.full((2, 1), -math.inf)], 1)
    for kind in KINDS:
        ruled.grad = None
        loss = opd_loss(ruled, other, kind=kind)
        loss.backward()
        torch.testing.assert_close(loss, opd_loss(z.detach()[0, :2], t[0, :2], kind=kind))
        assert ruled.grad.isfinite().all()
    assert opd_loss(z, t, torch.zeros(2, 3)) == 0
    tokens = torch.tensor([[1, 2, -100], [0, -100, -100]])
    assert opd_loss(z, t, mask, kind="policy_gradient", tokens=tokens).isfinite()


def test_half_precision_is_computed_in_float32():
    z, t = draw(4, 50, dtype=torch.float32), draw(4, 50, seed=1, dtype=torch.float32)
    low = opd_loss(z.bfloat16().requires_grad_(), t.bfloat16())
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, opd_loss(z.bfloat16().float(), t.bfloat16().float()))


def test_errors():
    z = draw(2, 5)
    with pytest.raises(ValueError, match="5 tokens and the teacher 6; both need one tokeniser"):
        opd_loss(z, draw(2, 6))
    with pytest.raises(ValueError, match="one shape"):
        opd_loss(z, draw(3, 5))
    with pytest.raises(ValueError, match=r"mask must be \(2,\)"):
        opd_loss(z, z, torch.ones(3))
    with pytest.raises(ValueError, match="expected kind of reverse_kl"):
        opd_loss(z, z, kind="kl")
    with pytest.raises(ValueError, match="top_k >= 1"):
        opd_loss(z, z, top_k=0)
    with pytest.raises(ValueError, match="temperature > 0"):
        opd_loss(z, z, temperature=0)
