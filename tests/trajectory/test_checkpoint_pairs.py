import pytest
import torch
from safetensors.torch import save_file

from thalweg.errors import ThalwegError
from thalweg.trajectory.checkpoint_pairs import CheckpointPair

W = torch.arange(6.0).reshape(2, 3)


def names(pairs):
    return [p.name for parts in pairs.read() for p in parts]


def test_wrappers_and_order_do_not_matter(tmp_path):
    save_file({"b": W + 1, "a": W}, tmp_path / "x.safetensors")
    pairs = CheckpointPair({"module.a": W, "module.b": W}, tmp_path / "x.safetensors")
    read = {p.name: p for parts in pairs.read() for p in parts}
    assert list(read) == ["a", "b"] and pairs.numel == 12 and len(pairs) == 2
    assert torch.equal(read["b"].tuned, W + 1) and torch.equal(read["a"].base, W)


def test_integers_are_listed_and_tied_tensors_counted_once():
    shared = torch.ones(4, 2)
    base = {"embed.weight": shared, "head.weight": shared, "count": torch.tensor(3)}
    tuned = {"embed.weight": 2 * shared, "count": torch.tensor(4)}
    tuned["head.weight"] = tuned["embed.weight"]
    pairs = CheckpointPair(base, tuned)
    assert names(pairs) == ["embed.weight"]
    assert pairs.skipped["count"] == "int64, not floating"
    assert pairs.skipped["head.weight"] == "the same tensor as 'embed.weight'"


def test_mismatches_are_refused_by_name_or_listed():
    base, tuned = {"a": W, "b": W, "c": W}, {"a": W, "b": W[:1], "d": W}
    with pytest.raises(ThalwegError, match=r"'b' is of shape \(2, 3\) in the base and \(1, 3\)"):
        CheckpointPair(base, tuned)
    with pytest.raises(ThalwegError, match="'c' is in the base only"):
        CheckpointPair(base, {"a": W, "b": W})
    with pytest.raises(ThalwegError, match="'d' is in the tuned checkpoint only"):
        CheckpointPair({"a": W}, {"a": W, "d": W})
    pairs = CheckpointPair(base, tuned, strict=False)
    assert names(pairs) == ["a"] and set(pairs.skipped) == {"b", "c", "d"}
    with pytest.raises(ThalwegError, match="share no floating tensor"):
        CheckpointPair({"a": W}, {"b": W}, strict=False)


def test_what_is_not_finite_is_named():
    broken = {"fine": W, "layer.weight": W / 0}
    with pytest.raises(ThalwegError, match=r"'layer\.weight' of the tuned checkpoint"):
        list(CheckpointPair({"fine": W, "layer.weight": W}, broken).read())


def test_parts_of_fused_tensors_and_convolutions():
    qkv, kernel = torch.randn(6, 2), torch.randn(4, 3, 2, 2)
    state = {"attn.in_proj_weight": qkv, "conv.weight": kernel, "bias": torch.ones(3)}
    parts = {p.name: p for group in CheckpointPair(state, state).read() for p in group}
    assert list(parts)[:3] == [f"attn.in_proj_weight[{p}]" for p in "qkv"]
    assert torch.equal(parts["attn.in_proj_weight[v]"].base, qkv[4:])
    assert parts["conv.weight"].matrix[0].shape == (4, 12) and parts["bias"].matrix is None


def test_eight_bit_weights_are_widened():
    small = W.to(torch.float8_e4m3fn)
    (part,) = next(CheckpointPair({"w": small}, {"w": small}).read())
    assert part.base.dtype == torch.float32
