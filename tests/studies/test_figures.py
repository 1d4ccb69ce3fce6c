import torch

from thalweg.studies import Figures
from thalweg.studies.figures import data_hash, thin


def test_the_hash_sees_values_shape_and_dtype():
    x = torch.arange(4.0)
    assert data_hash(x) == data_hash(x.clone())
    others = [x.reshape(2, 2), x.double(), x + 1]
    assert len({data_hash(x), *map(data_hash, others)}) == 4


def test_thinning_keeps_both_ends():
    kept = thin(range(1000), 50)
    assert len(kept) == 50 and kept[0] == 0 and kept[-1] == 999
    assert thin([1, 2], 50) == [1.0, 2.0]
    assert Figures({"a": 1.0}).curves == {}
