import pytest
import torch

from thalweg.numerics.displaced import displaced


def test_inside_and_afterwards():
    w, b = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(1))
    graph = (w.square().sum() + b).sum()
    before = w.data_ptr(), w._version
    with displaced([w, b], [torch.tensor([1.0, 2.0]).double(), None]):
        assert w.tolist() == [2.0, 3.0] and b.item() == 1 and w.dtype == torch.float32
    assert (w.data_ptr(), w._version) == before and w.tolist() == [1.0, 1.0]
    graph.backward()
    assert w.grad is not None and w.grad.tolist() == [2.0, 2.0]


def test_put_back_after_an_error():
    w = torch.nn.Parameter(torch.ones(2))
    with pytest.raises(RuntimeError), displaced([w], [torch.ones(2)]):
        raise RuntimeError
    assert w.tolist() == [1.0, 1.0]
    with pytest.raises(ValueError), displaced([w], []):
        pass
    assert w.tolist() == [1.0, 1.0]
