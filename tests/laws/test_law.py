import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from thalweg.laws import Law, Piece

RELU = Law(
    "0 → 2",
    "‖out_j‖² − ‖in_j‖² − b_j²",
    (Piece("2.weight", axis=1), Piece("0.weight", -1.0), Piece("0.bias", -1.0)),
)


def _net(seed=0, hidden=5):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, hidden), nn.ReLU(), nn.Linear(hidden, 2)).double()
    return model, dict(model.named_parameters())


def test_values_are_those_of_a_loop():
    _, p = _net()
    slow = [
        (p["2.weight"][:, j] ** 2).sum() - (p["0.weight"][j] ** 2).sum() - p["0.bias"][j] ** 2
        for j in range(5)
    ]
    assert torch.allclose(RELU.fn(p), torch.stack(slow))
    size = [
        (p["2.weight"][:, j] ** 2).sum() + (p["0.weight"][j] ** 2).sum() + p["0.bias"][j] ** 2
        for j in range(5)
    ]
    assert torch.allclose(RELU.magnitude(p), torch.stack(size))


def test_gram_of_indexed_rows():
    w = torch.arange(12.0).reshape(6, 2)
    heads = Piece("w", index=torch.tensor([[0, 3], [1, 4], [2, 5]]))  # two heads share three rows
    law = Law("heads", "", (heads,), "gram")
    full = w[:3] @ w[:3].T + w[3:] @ w[3:].T
    assert torch.equal(law.fn({"w": w}), full[tuple(torch.triu_indices(3, 3))].double())
    assert law.count({"w": w}) == 6


@given(st.integers(0, 10_000), st.sampled_from(["rows", "gram"]))
def test_the_form_is_bilinear_and_symmetric(seed, form):
    gen = torch.Generator().manual_seed(seed)
    law = Law("x", "", (Piece("a"), Piece("b", -2.0, axis=1)), form)
    one, two = (
        {
            "a": torch.randn(4, 3, generator=gen).double(),
            "b": torch.randn(2, 4, generator=gen).double(),
        }
        for _ in range(2)
    )
    total = {n: one[n] + 3 * two[n] for n in one}
    expected = law.fn(one) + 6 * law.bilinear(one, two) + 9 * law.fn(two)
    assert torch.allclose(law.fn(total), expected)
    assert torch.allclose(law.bilinear(one, two), law.bilinear(two, one))
    assert (law.fn(one).abs() <= law.magnitude(one) + 1e-12).all()


@given(st.integers(0, 10_000), st.sampled_from(["rows", "gram", "sum"]))
def test_the_generator_is_the_gradient(seed, form):
    gen = torch.Generator().manual_seed(seed)
    index = torch.tensor([[0, 2], [1, 3]])
    law = Law("x", "", (Piece("a", index=index), Piece("b", -1.0, axis=1)), form)
    p = {
        "a": torch.randn(4, 3, generator=gen).double(),
        "b": torch.randn(6, 2, generator=gen).double(),
    }
    c = torch.randn(law.count(p), generator=gen).double()
    generator = law.generator(p, c)
    eps, change = 1e-6, 0.0
    direction = {n: torch.randn(x.shape, generator=gen).double() for n, x in p.items()}
    up = law.fn({n: p[n] + eps * direction[n] for n in p})
    down = law.fn({n: p[n] - eps * direction[n] for n in p})
    change = (c * (up - down)).sum() / (2 * eps)
    inner = sum((generator[n] * direction[n]).sum() for n in p)
    factor = 1 if form == "sum" else 2
    assert change.item() == pytest.approx(factor * float(inner), rel=1e-5, abs=1e-6)


def test_the_loss_does_not_change_along_the_generator():
    model, p = _net()
    x = torch.randn(7, 3).double()
    grads = torch.autograd.grad(model(x).pow(3).sum(), list(p.values()))
    c = torch.randn(5).double()
    moved = RELU.generator(p, c)
    along = sum(
        (g * moved[n]).sum() for (n, _), g in zip(p.items(), grads, strict=True) if n in moved
    )
    size = sum(
        g.norm() * moved[n].norm() for (n, _), g in zip(p.items(), grads, strict=True) if n in moved
    )
    assert abs(along) < 1e-13 * size


def test_default_generator_is_all_units_together():
    _, p = _net()
    ones = RELU.generator(p, torch.ones(5).double())
    assert all(torch.equal(RELU.generator(p)[n], ones[n]) for n in ones)


def test_order_and_parameters():
    assert RELU.order == 2 and RELU.parameters == ("2.weight", "0.weight", "0.bias")
    assert Law("c", "", (Piece("w", axis=1),), "sum").order == 1


def test_single_numbers_of_a_flattened_parameter():
    w = torch.arange(8.0).reshape(2, 2, 2)
    law = Law("cells", "", (Piece("w", 1.0, None, torch.tensor([[0, 3], [5, 6]])),))
    assert law.fn({"w": w}).tolist() == [9.0, 61.0]
    moved = law.generator({"w": w.transpose(0, 2)}, torch.tensor([1.0, 2.0]))["w"]
    other = w.transpose(0, 2).reshape(-1)
    expected = torch.zeros(8)
    expected[[0, 3]], expected[[5, 6]] = other[[0, 3]], 2 * other[[5, 6]]
    assert torch.equal(moved.reshape(-1), expected)
