"""What is from outside a step, and what is not."""

import copy
import pickle

import torch
import torch.nn.functional as F
from torch import nn

from thalweg.recorder.feed import Feed


class _Heard:
    def __init__(self):
        self.calls = []
        self.instead = None

    def model_called(self, root, leaves):
        self.calls.append(("model", leaves))
        return self.instead

    def function_called(self, name, leaves):
        self.calls.append((name, leaves))


def _feed(model):
    heard = _Heard()
    feed = Feed([model], heard, [True])
    feed.open()
    return feed, heard


def test_batch_targets_and_factors_are_heard_of():
    model = nn.Linear(3, 2)
    feed, heard = _feed(model)
    x, y = torch.randn(4, 3), torch.randint(0, 2, (4,))
    shuffled = y.flip(0)  # before the window, and no business of the model's
    out = model(x)
    weights = torch.ones(2) * 2  # inside the window, and no business of the model's either
    loss = F.cross_entropy(out, shuffled, weight=weights) * 0.5
    feed.pause()
    assert (loss * 3).detach().item() > 0  # after backward
    feed.close()
    names = [name for name, _ in heard.calls]
    assert names == ["model", "cross_entropy", "mul"]
    assert heard.calls[0][1][0] is x
    assert heard.calls[1][1][0] is None  # the model's output
    assert heard.calls[1][1][1] is shuffled
    assert any(leaf is weights for leaf in heard.calls[1][1])
    assert heard.calls[2][1] == [None, 0.5]
    assert torch.overrides._len_torch_function_stack() == 0


def test_what_depends_on_the_model_without_a_gradient_is_from_inside():
    model = nn.Linear(3, 2)
    feed, heard = _feed(model)
    out = model(torch.ones(1, 3))
    model(torch.cat([out.detach(), torch.ones(1, 1)], 1))
    feed.close()
    assert heard.calls[-1] == ("model", [None])


def test_evaluation_passes_unseen():
    model = nn.Linear(3, 2)
    feed, heard = _feed(model)
    with torch.no_grad():
        model(torch.ones(1, 3))
    model.eval()
    model(torch.ones(1, 3))
    feed.close()
    assert heard.calls == []


def test_arguments_are_replaced_where_they_stand():
    class Pair(nn.Module):
        def forward(self, batch, *, scale):
            return batch["x"][0] * scale

    model = Pair()
    feed, heard = _feed(model)
    heard.instead = [torch.tensor([7.0]), None, 3]
    out = model({"x": (torch.tensor([1.0]), torch.tensor([2.0])), "name": "a"}, scale=2)
    feed.close()
    assert out.tolist() == [21.0]
    assert not feed.opaque


def test_an_argument_that_cannot_be_looked_into_is_named():
    class Batch:
        def __init__(self):
            self.x = torch.ones(1, 3)

    class Net(nn.Module):
        def forward(self, batch):
            return batch.x

    feed, _ = _feed(net := Net())
    net(Batch())
    feed.close()
    assert feed.opaque == {"Batch"}


def test_a_model_is_pickled_and_copied_without_a_trace():
    model = nn.Sequential(nn.Linear(3, 2))
    before = pickle.dumps(model)
    feed, heard = _feed(model)
    assert pickle.dumps(model) == before
    other = copy.deepcopy(model)
    other(torch.ones(1, 3))
    nn.Sequential(nn.Tanh())(torch.ones(1))
    assert heard.calls == []
    model(torch.ones(1, 3))
    feed.close()
    assert len(heard.calls) == 1
    assert "__call__" not in nn.Sequential.__dict__


def test_a_fault_of_a_recording_does_not_reach_the_script():
    faults = []

    class Broken(_Heard):
        def model_called(self, root, leaves):
            raise KeyError("ours")

    model = nn.Linear(3, 2)
    feed = Feed([model], Broken(), [True], faults.append)
    feed.open()
    assert model(torch.ones(1, 3)).shape == (1, 2)
    feed.close()
    assert [type(f) for f in faults] == [KeyError]
