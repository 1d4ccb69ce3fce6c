from types import SimpleNamespace

import numpy as np
import pytest
import torch

from thalweg.trajectory import Outlook, inner_products, outlook
from thalweg.trajectory.outlook import POINTS, PrefixCapture, captured_by_prefix

G = torch.Generator().manual_seed(0)


def test_a_line_reaches_far():
    line = [{"w": t * torch.arange(1.0, 5.0)} for t in range(30)]
    found = outlook(line)
    assert isinstance(found, Outlook) and found.structured
    assert found.components.r() == 1 and found.reach > 8
    assert all(isinstance(p, PrefixCapture) for p in found.prefixes)
    assert all(p.share == pytest.approx(1) for p in found.prefixes)
    assert [p.step for p in found.prefixes] == [1, 2, 3, 4, 6, 9, 13, 19, 28]
    assert found.prefixes[3].walk == pytest.approx(4 / 29)


def test_noise_is_its_null():
    walk = torch.randn(60, 20_000, generator=G).cumsum(0)
    found = outlook(walk)
    assert not found.structured and found.reach == 1.0
    for p in found.prefixes:
        assert p.share == pytest.approx(p.walk, abs=0.03)
    assert all(h.error > 0.95 for h in found.horizons)


def test_prefixes_are_projections():
    M = torch.randn(7, 40, generator=G).double()
    for p in captured_by_prefix(inner_products(M)):
        Q = torch.linalg.qr(M[: p.step].T).Q
        expected = (Q.T @ M[-1]).square().sum() / M[-1].square().sum()
        assert p.share == pytest.approx(float(expected))


def test_gradient_descent_on_few_eigenvalues_is_told_by_few_steps():
    """Updates (I − ηH)^i Hφ span a Krylov space: as many steps as eigenvalues hold all."""
    H = torch.tensor([1.0] * 10 + [0.3] * 10 + [0.1] * 10).double()
    phi = torch.randn(30, generator=G).double()
    moves = torch.stack([(1 - 0.5 * H) ** t * phi - phi for t in range(1, 40)])
    shares = {p.step: p.share for p in outlook(moves).prefixes}
    assert shares[1] < 0.999 and shares[3] == pytest.approx(1, abs=1e-6)


def test_horizons_shrink():
    found = outlook(torch.randn(40, 500, generator=G).cumsum(0))
    seen = [h.seen for h in found.horizons]
    assert seen == sorted(seen, reverse=True) and len(set(seen)) == len(seen)


def test_long_recordings_are_thinned():
    steps = np.arange(1, 1001)
    values = np.outer(steps, np.ones(4)).astype(np.float32)
    sketch = SimpleNamespace(steps=steps, values=values, dim=4, seed=0)
    run = SimpleNamespace(weights=dict, sketches=lambda: {"0": sketch})
    found = outlook(run)
    assert found.known_from == "sketches" and found.components.steps[-1] == 1000
    assert len(found.components.steps) == POINTS + 1


def test_bad_input():
    with pytest.raises(ValueError, match="at least 4 points after the first, got 3"):
        outlook(torch.randn(3, 5))
