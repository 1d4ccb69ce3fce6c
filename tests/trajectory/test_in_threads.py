import pytest
import torch

from thalweg.trajectory.in_threads import in_threads


def test_order_and_how_far_ahead_items_are_drawn():
    drawn = []

    def items():
        for i in range(10):
            drawn.append(i)
            yield i

    results = in_threads(lambda i: i * i, items(), 3)
    assert next(results) == 0 and len(drawn) == 4
    assert list(results) == [i * i for i in range(1, 10)]


def test_torch_has_its_threads_back_and_errors_come_through():
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError):
        list(in_threads(lambda i: 1 / i, [1, 0, 2], 2))
    assert torch.get_num_threads() == before
    with pytest.raises(ValueError, match="workers >= 1"):
        list(in_threads(abs, [1], 0))
