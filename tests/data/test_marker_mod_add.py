from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.data import MarkerModAdd

CI = settings(max_examples=30, deadline=None, derandomize=True)


@CI
@given(
    seed=st.integers(0, 10**6),
    T=st.integers(9, 16),
    m=st.integers(1, 4),
    vocab=st.sampled_from([32, 256]),
    per_sample=st.booleans(),
)
def test_labels_can_be_read_off(seed, T, m, vocab, per_sample):
    task = MarkerModAdd(T, 5, (1, 2, 3, 4), vocab, per_sample)
    x, y = task.sample(7, torch.Generator().manual_seed(seed), m=m)
    assert x.shape == (7, T) and x.dtype == y.dtype == torch.int64
    first = 100 if vocab == 256 else 5
    for row, label in zip(x.tolist(), y.tolist(), strict=True):
        at = [i for i, token in enumerate(row) if first <= token < first + 4]
        assert sorted(row[i] - first for i in at) == list(range(m))
        assert all(1 <= i <= T - 2 for i in at)
        assert all(b - a >= 2 for a, b in pairwise(at))
        assert all(row[i + 1] < 5 for i in at)
        assert sum(token < 5 for token in row) == m  # no value among the others
        assert sum(row[i + 1] for i in at) % 5 == label
    marks = {tuple(i for i, t in enumerate(r) if first <= t < first + 4) for r in x.tolist()}
    assert per_sample or len(marks) == 1


def test_seeds_and_numbers_of_markers():
    task = MarkerModAdd(12, 4, (1, 2), 32)
    a, b = (task.sample(50, torch.Generator().manual_seed(3))[0] for _ in range(2))
    assert torch.equal(a, b)
    g = torch.Generator().manual_seed(0)
    counts = {int(((x >= 4) & (x < 6)).sum()) for x, _ in (task.sample(1, g) for _ in range(40))}
    assert counts == {1, 2}
    places = torch.cat([(task.sample(1, g, m=1)[0] == 4).nonzero()[:, 1] for _ in range(400)])
    assert sorted(places.unique().tolist()) == list(range(1, 11))


@pytest.mark.parametrize(
    "arguments", [(4, 4, (2,)), (12, 0, (1,)), (12, 4, ()), (12, 4, (0,)), (12, 4, (1,), 5)]
)
def test_what_does_not_fit(arguments):
    with pytest.raises(ValueError, match="MarkerModAdd"):
        MarkerModAdd(*arguments)


def test_m_must_be_known():
    with pytest.raises(ValueError, match="m must be one of"):
        MarkerModAdd(12, 4, (1, 2), 32).sample(1, m=3)
