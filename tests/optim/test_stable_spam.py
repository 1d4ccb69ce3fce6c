"""StableSPAM against the vectors of its authors, its definition, and Adam."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from thalweg.optim import StableSPAM, adaclip, adagn, stable_spam

VECTORS = np.load(Path(__file__).parents[1] / "vectors" / "stable-spam.npz", allow_pickle=False)
CASES = {
    "default_noreset": {"reset_interval": 0},
    "cosine": {"reset_interval": 0, "total_steps": 50},
    "wd_gamma": {"reset_interval": 0, "weight_decay": 0.1, "gamma1": 0.85, "gamma2": 0.99999},
    "reset10_official": {"reset_interval": 10, "reset_compat": "official"},
}


def path(start, gradients, **options):
    """Weights after every step, and the optimizer."""
    p = nn.Parameter(start.clone())
    optimizer = StableSPAM([p], 1e-2, **options)
    found = []
    for g in gradients:
        p.grad = g.clone()
        optimizer.step()
        assert torch.equal(p.grad, g)  # not ours to write to
        found.append(p.detach().clone())
    return torch.stack(found), optimizer.state[p]


def given_case(case):
    start, grads, params = (
        torch.from_numpy(VECTORS[f"{case}__{k}"]) for k in ("p0", "grads", "params")
    )
    return start, grads, params


@pytest.mark.parametrize("foreach", [None, False])
@pytest.mark.parametrize("case", CASES)
def test_vectors_of_the_official_code(case, foreach):
    start, grads, params = given_case(case)
    found, state = path(start, grads, foreach=foreach, **CASES[case])
    # float64: the order of operations differs.
    assert torch.allclose(found, params, rtol=0, atol=1e-14)
    for ours, theirs in (
        *(("max", "m_max"), ("norm", "m_norm"), ("square", "v_norm")),
        *(("exp_avg", "exp_avg"), ("exp_avg_sq", "exp_avg_sq")),
    ):
        last = np.atleast_1d(VECTORS[f"{case}__{theirs}"])
        last = last[-1] if theirs in ("m_max", "m_norm", "v_norm") else last
        assert np.allclose(state[ours], last, rtol=1e-13, atol=1e-15), ours


def slow(start, grads, interval, clip=True, rescale=True):
    """The definition with the intended reset, one tensor, Adam written out."""
    p, m, v, k = start.clone(), torch.zeros_like(start), torch.zeros_like(start), 0
    clip_state = norm_state = None
    found = []
    for t, g in enumerate(grads, start=1):
        if clip:
            g, clip_state = adaclip(g, clip_state)
        if rescale:
            g, norm_state = adagn(g, norm_state)
        if interval and t % interval == 0:
            m, v, k = torch.zeros_like(m), torch.zeros_like(v), 0
        k += 1
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        p = p - 1e-2 * (m / (1 - 0.9**k)) / ((v / (1 - 0.999**k)).sqrt() + 1e-8)
        found.append(p)
    return torch.stack(found)


@pytest.mark.parametrize(("clip", "rescale"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("interval", [0, 7])
def test_a_slow_reference(interval, clip, rescale):
    start, grads, _ = given_case("default_noreset")
    ours, _ = path(start, grads, reset_interval=interval, adaclip=clip, adagn=rescale)
    assert torch.allclose(ours, slow(start, grads, interval, clip, rescale), atol=1e-13)


def test_without_both_halves_it_is_adam():
    start, grads, _ = given_case("default_noreset")
    ours, _ = path(start, grads, adaclip=False, adagn=False)
    p = nn.Parameter(start.clone())
    adam = torch.optim.Adam([p], 1e-2)
    for g in grads:
        p.grad = g.clone()
        adam.step()
    assert torch.allclose(ours[-1], p.detach(), atol=1e-13)


def test_a_constant_gradient_gives_adam_on_its_direction():
    g = torch.tensor([3.0, -4.0], dtype=torch.float64)
    ours, _ = path(torch.zeros(2, dtype=torch.float64), [g] * 5)
    p = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    adam = torch.optim.Adam([p], 1e-2)
    for _ in range(5):
        p.grad = g / 5
        adam.step()
    assert torch.allclose(ours[-1], p.detach(), atol=1e-9)  # ε of the rescaling


def test_the_intended_reset_forgets_the_moments_and_keeps_the_statistics():
    start, grads, _ = given_case("default_noreset")
    with_reset, state = path(start, grads[:10], reset_interval=10)
    before, kept = path(start, grads[:10], reset_interval=0)
    step = with_reset[9] - with_reset[8]
    # Fresh moments of one gradient: lr · sign.
    assert torch.allclose(step.abs(), torch.full_like(step, 1e-2), rtol=1e-4)
    assert not torch.allclose(before[9] - before[8], step, rtol=1e-2)
    assert state["adam_step"] == 1 and state["step"] == 10
    for name in ("max", "norm", "square"):
        assert state[name] == kept[name]


def test_tensors_cut_into_pieces_are_taken_as_wholes(monkeypatch):
    start, grads, _ = given_case("default_noreset")
    whole, _ = path(start, grads)
    monkeypatch.setattr(stable_spam, "PIECE", 5)
    pieces, _ = path(start, grads)
    assert torch.allclose(whole, pieces, atol=1e-14)


def test_zero_size_and_scalar_parameters():
    params = [nn.Parameter(torch.zeros(0, 3)), nn.Parameter(torch.tensor(2.0))]
    optimizer = StableSPAM(params, 0.5)
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert params[1].item() == pytest.approx(1.5)


def test_the_cosine_stays_at_its_end():
    p = nn.Parameter(torch.ones(2))
    optimizer = StableSPAM([p], total_steps=2, eta_min=0.25)
    for _ in range(6):
        p.grad = torch.ones(2)
        optimizer.step()
    assert stable_spam._cosine(3, 2, 0.25) == stable_spam._cosine(6, 2, 0.25) == 0.25
    assert p.isfinite().all()


def test_a_group_added_later_joins_the_resets():
    p = nn.Parameter(torch.ones(2))
    optimizer = StableSPAM([p], reset_interval=3)
    p.grad = torch.ones(2)
    optimizer.step()
    optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))]})
    assert [g["step"] for g in optimizer.param_groups] == [1, 1]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_changes_nothing(value):
    good, bad = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    optimizer = StableSPAM([good, bad])
    good.grad, bad.grad = torch.ones(2), torch.tensor([1.0, value, 1.0])
    with pytest.raises(ValueError, match=r"shape \(3,\) is not finite"):
        optimizer.step()
    assert torch.equal(good.detach(), torch.ones(2)) and not optimizer.state


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lr": -1.0}, "lr must be"),
        ({"betas": (1.0, 0.9)}, r"betas\[0\]"),
        ({"gamma1": -2.0}, "gamma1"),
        ({"gamma3": 1.0}, "gamma3"),
        ({"total_steps": 0}, "total_steps"),
        ({"eta_min": 2.0}, "eta_min"),
        ({"reset_interval": -1}, "reset_interval"),
        ({"reset_compat": "both"}, "'intended' or 'official'"),
    ],
)
def test_settings_out_of_range(options, said):
    with pytest.raises(ValueError, match=said):
        StableSPAM([nn.Parameter(torch.ones(2))], **options)


def test_complex_and_sparse():
    with pytest.raises(TypeError, match="must be real"):
        StableSPAM([nn.Parameter(torch.ones(2, dtype=torch.complex64))])
    p = nn.Parameter(torch.ones(2))
    p.grad = torch.ones(2).to_sparse()
    with pytest.raises(RuntimeError, match="dense"):
        StableSPAM([p]).step()


def test_gamma1_of_minus_one_is_beta1():
    start, grads, _ = given_case("default_noreset")
    assert torch.equal(path(start, grads, gamma1=-1)[0], path(start, grads, gamma1=0.9)[0])
