import torch
from torch import nn

from thalweg.numerics import hessian_operator, untouched


def test_buffers_random_state_and_hooks_are_put_back_after_an_error():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.5))
    buffers = {k: (id(b), b.clone()) for k, b in model.named_buffers()}
    state = torch.get_rng_state()
    try:
        with untouched(list(model.parameters())):
            model(torch.randn(8, 2))
            raise KeyError
    except KeyError:
        pass
    for key, b in model.named_buffers():
        assert (id(b), torch.equal(b, buffers[key][1])) == (buffers[key][0], True)
    assert torch.equal(state, torch.get_rng_state())
    assert not nn.modules.module._global_forward_pre_hooks


def test_a_graph_over_batch_statistics_outlives_the_swap():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).double()
    x, params = torch.randn(8, 2).double(), list(model.parameters())
    with hessian_operator(lambda: model(x).pow(4).mean(), params) as H:
        model(x)  # the running statistics move on while the graph is kept
        dense = H.dense()
    torch.testing.assert_close(dense, dense.T)
