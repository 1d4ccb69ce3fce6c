import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from thalweg.instruments import centroid_alignment, centroids, jacobian_alignment, jacobian_pc1

CI = settings(max_examples=25, deadline=None, derandomize=True)
VECTORS = Path(__file__).parents[1] / "vectors" / "grokalign.npz"


def mlp(*sizes, bias=True):
    pairs = itertools.pairwise(sizes)
    layers = [m for a, b in pairs for m in (nn.Linear(a, b, bias), nn.ReLU())]
    return nn.Sequential(*layers[:-1]).double()


def test_a_linear_map():
    W, x = torch.randn(3, 4).double(), torch.randn(5, 4).double()
    f = lambda x: x @ W.T  # noqa: E731
    torch.testing.assert_close(centroids(f, x), W.sum(0).expand(5, 4))
    s = torch.linalg.svdvals(W)
    torch.testing.assert_close(jacobian_pc1(f, x), (s[0] ** 2 / W.norm() ** 2).expand(5))
    best = (x @ W.T).argmax(1)
    torch.testing.assert_close(centroids(f, x, outputs="top"), W[best])
    one = lambda x: x @ W[:1].T  # noqa: E731
    cosine = nn.functional.cosine_similarity(x, W[:1])
    torch.testing.assert_close(centroid_alignment(one, x), cosine)
    torch.testing.assert_close(jacobian_alignment(one, x), cosine.abs())


def test_an_aligned_map_is_aligned_and_of_rank_one():
    a, c = torch.randn(4).double(), torch.randn(3).double()
    f = lambda x: (x @ a)[:, None] * c  # noqa: E731
    x = torch.stack([a, -2 * a])
    ones = torch.ones(2).double()
    torch.testing.assert_close(jacobian_alignment(f, x), ones)
    torch.testing.assert_close(jacobian_pc1(f, x), ones)
    torch.testing.assert_close(centroid_alignment(f, x).abs(), ones)


def test_orthonormal_rows_have_the_smallest_share():
    Q = torch.linalg.qr(torch.randn(6, 3).double()).Q
    shares = jacobian_pc1(lambda x: x @ Q, torch.randn(2, 6).double())
    torch.testing.assert_close(shares, torch.full((2,), 1 / 3).double())


def test_vectors():
    data = {k: torch.from_numpy(v) for k, v in np.load(VECTORS, allow_pickle=False).items()}
    model = mlp(5, 7, 7, 3)
    model.load_state_dict({k[6:]: v for k, v in data.items() if k.startswith("param_")})
    x = data["x"]
    mu = centroids(model, x)
    for found, wanted in [
        (mu, "centroids"),
        (mu.norm(dim=1), "centroid_norms"),
        ((mu * x).sum(1), "centroid_inner"),
        (centroid_alignment(model, x), "centroid_align"),
        (jacobian_pc1(model, x), "pc1_per_sample"),
    ]:
        torch.testing.assert_close(found, data[wanted], rtol=1e-12, atol=1e-15)  # same in float64


@CI
@given(seed=st.integers(0, 10**6), d=st.integers(1, 6), c=st.integers(1, 4))
def test_bias_free_relu_nets(seed, d, c):
    """J_x x = f(x), so the centroid's inner product is the sum of the outputs; bounds; naive."""
    torch.manual_seed(seed)
    model, x = mlp(d, 8, c, bias=False), torch.randn(3, d).double()
    mu = centroids(model, x)
    torch.testing.assert_close((mu * x).sum(1), model(x).sum(1).detach(), atol=1e-12, rtol=1e-9)
    for i, sample in enumerate(x):
        J = torch.autograd.functional.jacobian(lambda s: model(s[None])[0], sample)
        torch.testing.assert_close(mu[i], J.sum(0))
        if J.norm() == 0:
            assert jacobian_alignment(model, x)[i].isnan() and jacobian_pc1(model, x)[i].isnan()
            continue
        best = model(sample[None])[0].norm() / sample.norm()  # least norm with this output
        torch.testing.assert_close(jacobian_alignment(model, x)[i], (best / J.norm()).detach())
        assert 0 <= jacobian_alignment(model, x)[i] <= 1 + 1e-12
        assert 1 / min(c, d) - 1e-12 <= jacobian_pc1(model, x)[i] <= 1 + 1e-12
    torch.testing.assert_close(  # positively homogeneous: the same Jacobian at 3x
        centroid_alignment(model, 3 * x), centroid_alignment(lambda x: 2 * model(x), x)
    )


def test_images_keep_their_shape_and_nothing_is_touched():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    model.eval()
    x = torch.randn(4, 1, 4, 4)
    assert centroids(model, x).shape == x.shape
    assert centroid_alignment(model, x, outputs="top").shape == (4,)
    assert not x.requires_grad and all(p.grad is None for p in model.parameters())
    assert centroid_alignment(lambda x: 0 * x, x).tolist() == [0] * 4


def test_what_has_no_jacobian_is_refused():
    with pytest.raises(ValueError, match="'sum' or 'top'"):
        centroids(nn.Linear(2, 1), torch.ones(1, 2), outputs="all")
    for function in (centroids, centroid_alignment, jacobian_alignment, jacobian_pc1):
        with pytest.raises(ValueError, match="embedding"):
            function(nn.Linear(2, 1), torch.ones(1, 2, dtype=torch.int64))
        with pytest.raises(ValueError, match="at least one sample"):
            function(nn.Linear(2, 1), torch.ones(0, 2))
