import pytest
import torch

from thalweg.laws import Law, Piece
from thalweg.laws.squares import Squares

SHAPES = {"w": (12, 6), "v": (6, 12), "b": (12,), "conv": (4, 6, 3, 3), "s": ()}
BLOCK = torch.arange(4, 8)[:, None]
LAWS = {
    "rows and columns": Law("", "", (Piece("v", axis=1), Piece("w", -1.0), Piece("b", -1.0))),
    "several slices a unit": Law(
        "", "", (Piece("w", 2.0, 0, torch.arange(12).reshape(6, 2)), Piece("w", -1.0, 1))
    ),
    "the whole": Law("", "", (Piece("w", 1.0, 0, torch.arange(12)[None]),)),
    "single numbers": Law("", "", (Piece("conv", 1.0, None, torch.tensor([[0, 7], [9, 3]])),)),
    "channels": Law("", "", (Piece("conv", -1.0, 1), Piece("w", 1.0, 1))),
    "a scalar": Law("", "", (Piece("s"),)),
    "gram of two": Law("", "", (Piece("v", axis=1), Piece("w", -1.0)), "gram"),
    "gram with a bias": Law("", "", (Piece("w"), Piece("b"), Piece("v", -1.0, 1)), "gram"),
    "gram of a block": Law(
        "", "", (Piece("w", 1.0, 0, BLOCK), Piece("v", -1.0, 1, BLOCK), Piece("b", 1, 0, BLOCK)),
        "gram",
    ),
    "gram of scattered rows": Law(
        "", "", (Piece("w", 1.0, 0, BLOCK.flip(0)), Piece("v", -1.0, 1, BLOCK)), "gram"
    ),
    "gram of weights that differ": Law("", "", (Piece("w"), Piece("v", -2.0, 1)), "gram"),
    "gram of other lengths": Law("", "", (Piece("conv"), Piece("w", -1.0, 0, BLOCK)), "gram"),
}  # fmt: skip


def _tensors(dtype):
    gen = torch.Generator().manual_seed(0)
    return {n: torch.randn(s, generator=gen, dtype=torch.float64).to(dtype)
            for n, s in SHAPES.items()}  # fmt: skip


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-13), (torch.float32, 3e-6), (torch.bfloat16, 3e-6)],
)
def test_it_is_what_the_law_says(name, dtype, tolerance):
    law, tensors = LAWS[name], _tensors(dtype)
    squares = Squares(tensors)
    for _ in range(2):  # norms are kept
        value = squares.of(law)
        scale = law.magnitude(tensors).max()
        assert value.dtype == torch.float64 and value.shape == law.fn(tensors).shape
        assert (value - law.fn(tensors)).abs().max() <= tolerance * scale


def test_laws_of_one_tensor_share_its_norms_and_nothing_is_changed():
    tensors = _tensors(torch.float64)
    before = {n: t.clone() for n, t in tensors.items()}
    squares = Squares(tensors)
    for law in LAWS.values():
        squares.of(law)
    assert all(torch.equal(tensors[n], before[n]) for n in tensors)
    tensors["w"].zero_()
    assert squares.of(LAWS["the whole"]).item() > 0  # not looked at again
