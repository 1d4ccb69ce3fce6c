import math
from pathlib import Path

import numpy as np
import pytest
import torch

from thalweg.instruments import attention_entropy, truncated_attention

VECTORS = Path(__file__).parents[1] / "vectors" / "execution-manifold.npz"


def test_vectors():
    v = np.load(VECTORS, allow_pickle=False)
    attn = torch.tensor(v["attn"])
    assert float(attention_entropy(attn)) == pytest.approx(float(v["attn_entropy_last"]))
    torch.testing.assert_close(truncated_attention(attn, 2), torch.tensor(v["attn_top2"]))


def test_extremes():
    uniform = torch.full((2, 3, 6, 6), 1 / 6).tril()
    uniform = uniform / uniform.sum(-1, keepdim=True)
    for query in range(6):
        assert float(attention_entropy(uniform, query)) == pytest.approx(
            math.log(query + 1), abs=1e-6
        )
    one = torch.eye(4).expand(2, 4, 4)
    assert float(attention_entropy(one)) == pytest.approx(0, abs=1e-6)
    assert torch.equal(truncated_attention(one, 1), one)


def test_bad_input():
    attn = torch.softmax(torch.randn(2, 3, 3), -1)
    with pytest.raises(ValueError, match="sum to 1"):
        attention_entropy(2 * attn)
    with pytest.raises(ValueError, match="attention weights"):
        attention_entropy(attn[0, 0])
    with pytest.raises(ValueError, match="3 queries, got query 3"):
        attention_entropy(attn, 3)
    with pytest.raises(ValueError, match="1 <= k <= 3"):
        truncated_attention(attn, 4)
