import pytest
import torch

from thalweg.almanac import get
from thalweg.nn import lightning_attention
from thalweg.studies import load
from thalweg.studies.linear_attention import recurrence


@pytest.mark.study
def test_smoke_tiles_and_tensors_are_exact_and_the_controls_are_not():
    study = load("linear_attention")
    figures = study.run(study.config("smoke"), 0)
    entry = get("lightning-attention")
    assert {c.id for c in entry.claims} == set(figures.samples) == set(figures.baselines)
    for name in ("exact", "tensor_exact"):
        claim = entry.claim(name)
        assert figures.samples[name] <= claim.threshold
        assert figures.baselines[name] <= claim.threshold
        assert figures.controls[name] >= claim.control.threshold
    # Timings are shown, and judged on a quiet machine only.
    assert all(figures.samples[n] > 0 for n in ("linear_time", "faster_than_softmax"))
    assert set(figures.curves["tiles, seconds"][0]) == {512.0, 1024.0, 2048.0}


def test_the_recurrence_that_is_timed_is_the_same_attention():
    q, k, v = torch.randn(3, 2, 3, 20, 4, dtype=torch.float64)
    slope = torch.tensor([0.0, 0.3, 2.0])
    assert torch.allclose(recurrence(q, k, v, slope), lightning_attention(q, k, v, slope))
