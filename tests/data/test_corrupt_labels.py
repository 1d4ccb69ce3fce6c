import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.data import CIFAR10_CONFUSIONS, corrupt_labels

EVEN = torch.arange(10).repeat(100)


@given(seed=st.integers(0, 10**6), rate=st.sampled_from([0.0, 0.2, 0.29, 0.5, 1.0]))
def test_exactly_so_many_are_wrong(seed, rate):
    y = EVEN[torch.randperm(1000, generator=torch.Generator().manual_seed(seed))]
    corrupted = corrupt_labels(y, rate, seed=seed)
    assert int((corrupted != y).sum()) == round(1000 * rate)
    assert corrupted.min() >= 0 and corrupted.max() <= 9
    assert torch.equal(corrupted, corrupt_labels(y, rate, seed=seed))


def test_each_wrong_class_is_as_likely():
    corrupted = corrupt_labels(torch.zeros(9000, dtype=torch.int64), 1.0, num_classes=10)
    counts = torch.bincount(corrupted, minlength=10)
    assert counts[0] == 0
    assert (counts[1:] - 1000).abs().max() < 5 * 1000**0.5


def test_with_the_true_class_a_tenth_of_the_drawn_stays_right():
    y = EVEN.repeat(10)
    wrong = (corrupt_labels(y, 0.4, include_true=True) != y).double().mean().item()
    assert wrong == pytest.approx(0.36, abs=5 * (0.4 * 0.09 / 1e4) ** 0.5)


def test_asymmetric_noise_confuses_the_given_classes_alone():
    corrupted = corrupt_labels(EVEN, 0.4, kind="asymmetric")
    for c in range(10):
        found = corrupted[EVEN == c]
        assert int((found == CIFAR10_CONFUSIONS.get(c, c)).sum()) == (
            40 if c in CIFAR10_CONFUSIONS else 100
        )
        assert int((found == c).sum()) == (60 if c in CIFAR10_CONFUSIONS else 100)
    own = corrupt_labels(torch.tensor([0, 1, 2]), 1.0, kind="asymmetric", mapping={2: 0})
    assert own.tolist() == [0, 1, 0]


def test_pair_noise_moves_to_the_next_class():
    corrupted = corrupt_labels(EVEN, 0.3, kind="pair")
    wrong = corrupted != EVEN
    assert torch.equal(corrupted[wrong], (EVEN[wrong] + 1) % 10)
    assert torch.bincount(EVEN[wrong]).tolist() == [30] * 10


def test_the_labels_given_stay_as_they_are():
    y = EVEN.clone()
    corrupt_labels(y, 0.5)
    assert torch.equal(y, EVEN)


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"rate": 1.5}, ValueError, "rate must be from 0 to 1, got 1.5"),
        ({"kind": "random"}, ValueError, "'symmetric', 'asymmetric' or 'pair', got 'random'"),
        ({"y": torch.zeros(3)}, TypeError, "labels must be int64, got torch.float32"),
        ({"y": torch.zeros(0).long()}, ValueError, "vector with an entry"),
        ({"y": torch.tensor([-1, 2])}, ValueError, "got -1 … 2"),
        ({"num_classes": 3}, ValueError, "0 … 2 with two classes or more, got 0 … 3"),
        ({"mapping": {0: 1}}, ValueError, "mapping belongs to kind='asymmetric'"),
        ({"kind": "pair", "include_true": True}, ValueError, "belongs to kind='symmetric'"),
        ({"kind": "asymmetric"}, ValueError, "there are 4 classes: give mapping="),
        ({"kind": "asymmetric", "mapping": {0: 4}}, ValueError, "mapping must stay in 0 … 3"),
    ],
)
def test_errors(arguments, error, said):
    with pytest.raises(error, match=said):
        corrupt_labels(**({"y": torch.arange(4), "rate": 0.5} | arguments))
