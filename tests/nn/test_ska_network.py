import pytest
import torch

from thalweg.nn import SKANetwork


def test_layers_are_sigmoids_of_linear_maps():
    net = SKANetwork([5, 4, 3], 0.5, torch.float64)
    x = torch.randn(6, 5, dtype=torch.float64)
    first = x @ net.layers[0].weight.T + net.layers[0].bias
    second = torch.sigmoid(first) @ net.layers[1].weight.T + net.layers[1].bias
    z = net.pre_activations(x)
    assert torch.allclose(z[0], first) and torch.allclose(z[1], second)
    assert torch.allclose(net(x), torch.sigmoid(second))
    assert "sizes=[5, 4, 3]" in repr(net)


def test_initial_weights():
    one, same = (SKANetwork([300, 200], generator=torch.Generator().manual_seed(1)) for _ in "ab")
    assert torch.equal(one.layers[0].weight, same.layers[0].weight)
    assert one.layers[0].weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert not one.layers[0].bias.any()
    other = SKANetwork([300, 200])
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.layers[0].weight, other.layers[0].weight)
    assert SKANetwork([2, 1], dtype=torch.float64).layers[0].weight.dtype == torch.float64


@pytest.mark.parametrize(
    ("args", "message"),
    [(([3],), "sizes"), (([3, 0],), "sizes"), (([3, 2], -0.1), "init_std"),
     (([3, 2], float("nan")), "init_std")],
)  # fmt: skip
def test_errors(args, message):
    with pytest.raises(ValueError, match=message):
        SKANetwork(*args)
