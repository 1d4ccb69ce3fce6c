"""Every figure with value, uncertainty and status, whatever the instrument returns."""

import math

import pytest
import torch
from torch import nn

from thalweg.instruments import (
    Reading,
    activation_rms,
    critical_sharpness,
    dormant_fraction,
    effective_rank,
    entk_rank,
    frobenius_rank,
    grad_noise_scale,
    grad_norm,
    hessian_trace,
    isometry_defect,
    jacobian_spectrum,
    layer_statistics,
    readings,
    sharpness,
    stability_threshold,
    stable_rank,
    update_norm,
    weight_norm,
)


def test_every_instrument_gives_value_uncertainty_and_status():
    model, x = nn.Linear(3, 2), torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    params = list(model.parameters())

    def closure():
        return model(x).square().mean()

    grads = torch.autograd.grad(closure(), params)
    for p, g in zip(params, grads, strict=True):
        p.grad = g
    results = [
        *(f(x) for f in (effective_rank, stable_rank, frobenius_rank, dormant_fraction)),
        *(f(x) for f in (activation_rms, layer_statistics)),
        *(f(params) for f in (weight_norm, grad_norm, isometry_defect)),
        update_norm(params, [p.detach() + 1 for p in params]),
        jacobian_spectrum(model, x),
        entk_rank(model, x),
        sharpness(closure, params),
        hessian_trace(closure, params),
        critical_sharpness(closure, params, [-g for g in grads]),
        grad_noise_scale([[g + i for g in grads] for i in range(3)]),
        stability_threshold(torch.optim.SGD(params, 0.5)),
    ]
    for result in results:
        parts = readings(result)
        for part, reading in parts.items():
            assert isinstance(part, str) and isinstance(reading.value, float), result
            assert isinstance(reading.uncertainty, float)
            assert reading.status == "ok" or not math.isfinite(reading.value)


def test_parts_are_named_as_in_a_recording():
    parts = readings(weight_norm([torch.full((4,), 3.0), torch.zeros(2)]))
    assert {part: r.value for part, r in parts.items()} == {"": 6.0, "[0]": 6.0, "[1]": 0.0}
    batched = readings(effective_rank(torch.eye(3).expand(2, 2, 3, 3)))
    assert list(batched) == ["[0, 0]", "[0, 1]", "[1, 0]", "[1, 1]"]
    assert batched["[1, 0]"].value == pytest.approx(3.0)
    spectrum = readings(jacobian_spectrum(lambda x: 2 * x, torch.ones(1, 2)))
    assert spectrum["singular_values[0, 1]"].value == pytest.approx(2.0)


def test_what_is_not_finite_or_not_known_says_so():
    assert readings(effective_rank(torch.full((2, 2), math.nan)))[""].status == "nonfinite"
    assert readings(isometry_defect([torch.eye(2), torch.ones(3)]))["[1]"].status == "nonfinite"
    kept = readings(Reading(math.nan, status="skipped:budget"))[""]
    assert kept.status == "skipped:budget" and math.isnan(kept.value)
    unknown = readings(stability_threshold(torch.optim.Rprop([torch.ones(1)])))["threshold"]
    assert unknown.status.startswith("unsupported:")
    stated = readings(
        hessian_trace(lambda: w.square().sum(), [w := torch.ones(40).requires_grad_()])
    )
    assert stated[""].uncertainty >= 0


def test_no_figure_is_an_error():
    for wrong in ("sharp", None, {}, torch.ones(2, dtype=torch.complex64)):
        with pytest.raises(TypeError, match="readings"):
            readings(wrong)
