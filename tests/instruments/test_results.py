"""What instruments hand back: the stated types, which can't be changed."""

import dataclasses

import pytest
import torch
from torch import nn

from thalweg.instruments import (
    EntkRank,
    HessianDensity,
    IsometryDefect,
    JacobianSpectrum,
    LayerStatistics,
    Reading,
    Sharpness,
    StabilityThreshold,
    entk_rank,
    hessian_density,
    isometry_defect,
    jacobian_spectrum,
    layer_statistics,
    noise_scale_of_gram,
    sharpness,
    stability_threshold,
)


def test_types():
    model, x = nn.Linear(3, 2), torch.randn(4, 3)
    w = list(model.parameters())

    def closure():
        return model(x).square().mean()

    results = {
        Sharpness: sharpness(closure, w),
        HessianDensity: hessian_density(closure, w, num_probes=1, lanczos_steps=4),
        StabilityThreshold: stability_threshold(torch.optim.SGD(w, 0.1)),
        EntkRank: entk_rank(model, x),
        IsometryDefect: isometry_defect(w),
        JacobianSpectrum: jacobian_spectrum(model, x),
        LayerStatistics: layer_statistics(x),
    }
    for kind, result in results.items():
        assert type(result) is kind
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(result, dataclasses.fields(result)[0].name, None)
    assert issubclass(Sharpness, Reading)


def test_noise_scale_of_a_gram_matrix_in_closed_form():
    # Gradients e + n_i with orthogonal noise of squared length s: |G|² = 1, tr Σ = s.
    n, s = 5, 3.0
    gram = torch.ones(n, n, dtype=torch.float64) + s * torch.eye(n, dtype=torch.float64)
    ones = torch.ones(n, dtype=torch.float64)
    assert noise_scale_of_gram(gram, ones).item() == pytest.approx(s)
    # Means over batches of 10: noise of a batch is a tenth of that of a sample.
    assert noise_scale_of_gram(gram, 10 * ones).item() == pytest.approx(10 * s)
    assert noise_scale_of_gram(-gram, ones).isnan()
