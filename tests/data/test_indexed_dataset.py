import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

from thalweg.data import IndexedDataset

DATA = TensorDataset(10 * torch.arange(8), torch.arange(8) % 2)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_index_follows_the_example_through_a_shuffle(workers):
    loader = DataLoader(IndexedDataset(DATA), batch_size=3, shuffle=True, num_workers=workers)
    for _ in range(2):
        seen = []
        for x, y, i in loader:
            assert torch.equal(x, 10 * i) and torch.equal(y, i % 2)
            seen += i.tolist()
        assert sorted(seen) == list(range(8))


def test_a_part_counts_from_0_and_a_part_of_the_indexed_keeps_its_numbers():
    assert [i for _, _, i in IndexedDataset(Subset(DATA, [5, 2]))] == [0, 1]
    assert [i for _, _, i in Subset(IndexedDataset(DATA), [5, 2])] == [5, 2]


def test_forms_of_samples():
    assert IndexedDataset(["a", "b"])[1] == ("b", 1)
    assert IndexedDataset([("a", 7)])[-1] == ("a", 7, 0)
    assert IndexedDataset([{"x": 1}])[0] == {"x": 1, "index": 0}
    assert len(IndexedDataset(DATA)) == 8


def test_errors():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(())

    with pytest.raises(TypeError, match="a length and numbered samples, got Stream"):
        IndexedDataset(Stream())
    with pytest.raises(TypeError, match="got generator"):
        IndexedDataset(i for i in range(3))
    with pytest.raises(IndexError, match="-8 … 7, got 8"):
        IndexedDataset(DATA)[8]
    with pytest.raises(TypeError):
        IndexedDataset(DATA)[1:3]
    with pytest.raises(ValueError, match="rename it"):
        IndexedDataset([{"index": 3}])[0]
