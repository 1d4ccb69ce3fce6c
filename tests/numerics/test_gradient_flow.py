import math

import pytest
import torch

from thalweg import ThalwegError
from thalweg.numerics import gradient_flow


def test_a_quadratic_decays_along_its_eigenvectors():
    a = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    path = gradient_flow(lambda t: t @ a @ t / 2, torch.tensor([1.0, -2.0]), 2.0, num_points=5)
    exact = torch.linalg.matrix_exp(-2.0 * a) @ torch.tensor([1.0, -2.0], dtype=torch.float64)
    assert path.shape == (5, 2) and torch.allclose(path[-1], exact, atol=1e-12)


def test_a_product_conserves_the_difference_of_squares():
    path = gradient_flow(lambda t: (t[0] * t[1] - 3) ** 2 / 2, torch.tensor([2.0, 0.5]), 2.0)
    h = path[:, 0] ** 2 - path[:, 1] ** 2
    assert (h - h[0]).abs().max() < 1e-11 and (path[-1] - path[0]).abs().max() > 0.1


def test_errors():
    with pytest.raises(ValueError, match="not finite"):
        gradient_flow(lambda t: t.log().sum(), torch.tensor([math.nan]), 1.0)
    with pytest.raises(ThalwegError, match="could not be followed"):
        gradient_flow(lambda t: -(t**4).sum(), torch.ones(1), 5.0)  # blows up at t = 1/8
