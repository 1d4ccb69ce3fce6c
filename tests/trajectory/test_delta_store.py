import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from thalweg.trajectory import DeltaStore, MissingTensor
from thalweg.trajectory.delta_store import BLOCK

CI = settings(max_examples=20, deadline=None, derandomize=True)


def path(T=6, seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    shapes = {"a.weight": (7, 5), "a.bias": (7,), "s": ()}
    return {
        3 * t: {
            **{n: (1 + t * 0.1 * torch.randn(s, generator=g)).to(dtype) for n, s in shapes.items()},
            "bn.running_mean": torch.full((2,), float(t)),
            "count": torch.tensor(t),
        }
        for t in range(T)
    }


def flat(states, name):
    base, *rows = (states[step][name].double().reshape(-1) for step in sorted(states))
    return torch.stack(rows) - base


@CI
@given(
    T=st.integers(2, 6),
    seed=st.integers(0, 10**6),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    max_bytes=st.sampled_from([1, 1 << 20]),
)
def test_gram_is_that_of_the_differences(T, seed, dtype, max_bytes):
    states = path(T, seed, dtype)
    store = DeltaStore(states, max_bytes=max_bytes)
    assert store.steps == [3 * t for t in range(1, T)] and store.base_step == 0
    assert set(store.tensors) == {"a.weight", "a.bias", "s"}
    assert set(store.copied) == {"bn.running_mean", "count"}
    for name, G in store.gram().items():
        M = flat(states, name)
        scale = float(M.square().sum())
        torch.testing.assert_close(G, M @ M.T, rtol=0, atol=1e-6 * scale)
        torch.testing.assert_close(store.rows(name), M, rtol=0, atol=1e-7)
    part = store.rows("a.weight", slice(3, 9))
    torch.testing.assert_close(part, flat(states, "a.weight")[:, 3:9], rtol=0, atol=1e-7)


def test_blocks_are_joined(tmp_path):
    numel = BLOCK + 1000
    g = torch.Generator().manual_seed(0)
    states = [{"w": torch.randn(numel, generator=g)} for _ in range(4)]
    for t, state in enumerate(states):
        save_file(state, tmp_path / f"step-{t}.safetensors")
    store = DeltaStore(tmp_path)
    seen = []
    G = store.gram(progress=lambda done, total: seen.append((done, total)))["w"]
    M = torch.stack([s["w"] - states[0]["w"] for s in states[1:]]).double()
    torch.testing.assert_close(G, M @ M.T)
    assert seen == [(BLOCK, numel), (numel, numel)]
    mixed = torch.cat([b for _, b in store.mixture({"w": torch.tensor([0.5, 0.0, 2.0])})])
    torch.testing.assert_close(mixed, states[0]["w"] + 0.5 * M[0] + 2 * M[2])


def test_appending_reopening_and_updating(tmp_path):
    states = path()
    where = tmp_path / "new" / "store"
    store = DeltaStore(where)
    for step, state in states.items():
        store.append(step, state)
        if step == 9:
            store.gram()  # the later rows are added to these
    again = DeltaStore(str(where))
    assert store.steps == again.steps == list(states)[1:]
    fresh = DeltaStore(states).gram()
    for name, G in store.gram().items():
        torch.testing.assert_close(G, fresh[name])
        torch.testing.assert_close(G, again.gram()[name])
    again.append(100, states[15])
    assert DeltaStore(where).steps[-1] == 100
    for step in (15, 100):
        with pytest.raises(ValueError, match=f"step {step} is not after the last one, 100"):
            again.append(step, states[15])


def test_a_given_base_is_kept_in_the_folder(tmp_path):
    states = path()
    store = DeltaStore(tmp_path / "s", base=states[0])
    store.append(3, states[3])
    assert DeltaStore(tmp_path / "s").steps == [3]
    assert torch.equal(
        DeltaStore(tmp_path / "s").rows("s"), flat({k: states[k] for k in (0, 3)}, "s")
    )


def test_memory_keeps_copies():
    w = torch.zeros(3)
    store = DeltaStore({}, base={"w": w.clone()})
    store.append(1, {"w": w})
    w += 5
    assert store.rows("w").tolist() == [[0.0, 0.0, 0.0]]


def test_bases():
    states = path()
    middle = DeltaStore(states, base=6)
    assert middle.steps == [9, 12, 15] and middle.base_step == 6
    given = DeltaStore({3: states[3]}, base=states[0])
    assert given.steps == [3] and given.base_step == 0
    assert DeltaStore(list(states.values())).steps == [1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="no checkpoint of the base step 7"):
        DeltaStore(states, base=7)


def test_tied_weights_count_once():
    states = {}
    for t in range(3):
        w = torch.full((2, 2), float(t))
        states[t] = {"embed": w, "head": w}
    store = DeltaStore(states)
    assert list(store.tensors) == ["embed"] and store.aliases == {"head": "embed"}
    assert store.gram()["embed"][1, 1] == 16.0


def test_only_some_names():
    states = path()
    states[3]["extra"] = torch.zeros(2)
    store = DeltaStore(states, names=["a.bias"])
    assert list(store.tensors) == ["a.bias"]
    with pytest.raises(KeyError, match="no tensor 'b'"):
        DeltaStore(states, names=["b"])
    with pytest.raises(ValueError, match="step 3 has a tensor 'extra'"):
        DeltaStore(states)


def test_bad_checkpoints_are_named():
    states = path()
    missing = {**states, 6: {k: v for k, v in states[6].items() if k != "a.bias"}}
    with pytest.raises(KeyError) as lacking:
        DeltaStore(missing)
    assert isinstance(lacking.value, MissingTensor)
    assert str(lacking.value) == "DeltaStore: step 6 lacks tensor 'a.bias'"
    reshaped = {**states, 9: {**states[9], "a.bias": torch.zeros(8)}}
    with pytest.raises(ValueError, match=r"'a\.bias' has shape \(8,\) at step 9"):
        DeltaStore(reshaped)
    nan = {**states, 12: {**states[12], "s": torch.tensor(np.nan)}}
    with pytest.raises(ValueError, match="'s' is not finite at step 12"):
        DeltaStore(nan).gram()
    with pytest.raises(ValueError, match="no floating tensor"):
        DeltaStore({0: {"n": torch.tensor(1)}})
    with pytest.raises(ValueError, match="'first'"):
        DeltaStore({"first": states[0]})
    with pytest.raises(ValueError, match="got int"):
        DeltaStore(3)


def test_bad_reads_are_named(tmp_path):
    store = DeltaStore(path())
    with pytest.raises(KeyError, match=r"'x'; there are a\.weight"):
        store.rows("x")
    with pytest.raises(ValueError, match="contiguous"):
        store.rows("s", slice(None, None, 2))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    (tmp_path / "run" / "weights").mkdir()
    save_file(path()[0], tmp_path / "run" / "weights" / "step-000000000-r0-s0.safetensors")
    with pytest.raises(ValueError, match="is a run"):
        DeltaStore(tmp_path / "run").append(1, path()[0])


def test_a_failed_append_changes_nothing(tmp_path):
    states = path()
    store = DeltaStore(tmp_path / "s")
    store.append(0, states[0])
    with pytest.raises(KeyError, match="step 3 lacks"):
        store.append(3, {"s": states[3]["s"]})
    assert store.steps == [] and len(list((tmp_path / "s").iterdir())) == 1
