import pytest
import torch

from thalweg.trajectory import DeltaStore, leading_directions, sketch_path, stream_directions


def test_sketch_keeps_inner_products():
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(4, 60_000, generator=g).cumsum(0)
    states = [{"a": torch.zeros(50_000), "b": torch.zeros(10_000)}]
    states += [{"a": row[:50_000], "b": row[50_000:]} for row in rows]
    store = DeltaStore(states)
    S = sketch_path(store, 8192)
    exact = sum(store.gram().values())
    assert S.shape == (4, 8192)
    lengths = exact.diagonal().sqrt()
    assert float(((S @ S.T - exact) / torch.outer(lengths, lengths)).abs().max()) < 4 / 8192**0.5
    few = DeltaStore([{"a": torch.randn(7, 5), "s": torch.randn(())} for _ in range(4)])
    assert torch.equal(sketch_path(few), torch.cat([few.rows(n) for n in few.tensors], 1))


def test_leading_directions_of_long_paths():
    g = torch.Generator().manual_seed(0)
    low = torch.randn(200, 3, generator=g) @ torch.randn(3, 500, generator=g)
    states = [{"w": torch.zeros(500)}, *({"w": row} for row in low)]
    store = DeltaStore(states)
    U, S = leading_directions(store, 3)
    torch.testing.assert_close(S, torch.linalg.svdvals(low.double())[:3], rtol=1e-5, atol=0)
    torch.testing.assert_close(U.T @ U, torch.eye(3).double())
    with pytest.raises(ValueError, match="rank"):
        leading_directions(store, 201)


def test_frequent_directions_of_a_stream():
    g = torch.Generator().manual_seed(0)
    M = torch.randn(40, 2, generator=g).double() @ torch.randn(2, 30, generator=g).double()
    noisy = M + 0.01 * torch.randn(40, 30, generator=g)
    store = DeltaStore([{"w": torch.zeros(30).double()}, *({"w": row} for row in noisy)])
    kept = stream_directions(store, "w", 6)
    gap = torch.linalg.eigvalsh(noisy.T @ noisy - kept.sketch @ kept.sketch.T)
    assert gap[0] > -1e-9 and gap[-1] <= kept.error_bound + 1e-9 < 1.0
    with pytest.raises(KeyError, match="no tensor"):
        stream_directions(store, "v", 2)
