"""The state of a training goes out and in again, bit for bit, without pickle."""

import copy
import json
import random

import numpy as np
import pytest
import torch
from torch import nn

from thalweg.errors import ThalwegError
from thalweg.recorder.training_state import decode, digest, encode, gather, restore


def _training(name):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
    model.register_buffer("own", torch.randn(2), persistent=False)
    params = model.parameters()
    if name == "LBFGS":
        optimizer = torch.optim.LBFGS(params, lr=0.1, max_iter=3)
    elif name == "SGD":
        optimizer = torch.optim.SGD(params, lr=0.1, momentum=0.9)
    else:
        optimizer = getattr(torch.optim, name)(params, lr=torch.tensor(0.01))
    return model, optimizer


def _train(model, optimizer, steps):
    def closure():
        optimizer.zero_grad()
        loss = (model(torch.randn(8, 3)) + random.random() + np.random.rand()).square().mean()  # noqa: NPY002
        loss.backward()
        return loss

    return [optimizer.step(closure).item() for _ in range(steps)]


@pytest.mark.parametrize("name", ["SGD", "AdamW", "LBFGS"])
def test_a_restored_training_goes_on_as_the_first_did(name):
    model, optimizer = _training(name)
    _train(model, optimizer, 3)
    tensors, rest = gather([model], [optimizer])
    tensors = {k: t.clone() for k, t in tensors.items()}
    rest = json.loads(json.dumps(rest))
    ahead = _train(model, optimizer, 4)
    other, again = _training(name)
    other.own.zero_()
    _train(other, again, 1)
    restore(tensors, rest, [other], [again])
    assert _train(other, again, 4) == ahead
    assert digest([other], [again]) == digest([model], [optimizer])


def test_gathering_changes_nothing():
    model, optimizer = _training("AdamW")
    _train(model, optimizer, 2)
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    noise = torch.get_rng_state()
    gather([model], [optimizer])
    assert torch.equal(noise, torch.get_rng_state())
    assert before[1]["param_groups"] == optimizer.state_dict()["param_groups"]
    assert all(torch.equal(a, model.state_dict()[k]) for k, a in before[0].items())


def test_gradients_belong_to_it_where_nobody_clears_them():
    model, optimizer = _training("SGD")
    model(torch.randn(8, 3)).sum().backward()
    tensors, rest = gather([model], [optimizer], gradients=True)
    tensors = {k: t.clone() for k, t in tensors.items()}
    expected = model[0].weight.grad.clone()
    optimizer.zero_grad()
    restore(tensors, rest, [model], [optimizer])
    assert torch.equal(model[0].weight.grad, expected)


def test_plain_values_come_back_as_they_were():
    value = {"a": [1, 2.5, None, (True, "x")], 3: torch.arange(3), "nan": float("inf")}
    tensors = {}
    back = decode(json.loads(json.dumps(encode(value, "v", tensors))), tensors, None)
    assert torch.equal(back.pop(3), value.pop(3))
    assert back == value


def test_another_model_or_optimizer_is_refused():
    model, optimizer = _training("SGD")
    tensors, rest = gather([model], [optimizer])
    wider = nn.Sequential(nn.Linear(3, 5))
    sgd = torch.optim.SGD(wider.parameters(), lr=0.1)
    with pytest.raises(ThalwegError, match=r"another model .*model0\.0\.weight is of shape"):
        restore(tensors, rest, [wider], [sgd])
    with pytest.raises(ThalwegError, match=r"expected the optimizers \['SGD'\]"):
        restore(tensors, rest, [model], [torch.optim.Adam(model.parameters())])


def test_what_is_neither_tensor_nor_plain_is_refused_by_name():
    with pytest.raises(TypeError, match=r"state\.a is of type object"):
        encode({"a": object()}, "state", {})
