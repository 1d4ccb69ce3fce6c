import builtins

import pytest
import torch

from thalweg import ThalwegError
from thalweg.data import Digits, digits


def test_split_and_scale():
    data = digits(seed=1, num_train=1000, dtype=torch.float64)
    assert isinstance(data, Digits)
    assert data.x.shape == (1000, 64) and data.x_test.shape == (797, 64)
    assert data.x.mean().abs() < 1e-12 and abs(data.x.std().item() - 1) < 1e-12
    assert set(data.y.tolist()) == set(range(10))


def test_the_seed_decides_the_split_and_the_form_does_not():
    a, b, c = digits(seed=0), digits(seed=0, flat=False), digits(seed=1)
    assert torch.equal(a.x, b.x.reshape(-1, 64)) and b.x.shape[1:] == (1, 8, 8)
    assert not torch.equal(a.y, c.y)


def test_errors(monkeypatch):
    with pytest.raises(ValueError, match="from 1 to 1796, got 1797"):
        digits(num_train=1797)
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ThalwegError, match=r"thalweg\[data\]"):
        digits()
