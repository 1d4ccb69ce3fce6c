import torch
from torch import nn

from thalweg.nn import hidden_units
from thalweg.optim.recycle import WatchedUnits, recycle


def test_what_is_seen_are_the_answers_by_unit():
    model = nn.Sequential(
        *(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Conv2d(3, 2, 2), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 1)),
    )
    seen = {}
    watched = WatchedUnits(model, lambda layer, h: seen.update({layer.name: h}))
    x = torch.randn(5, 1, 4, 4)
    model(x)
    assert torch.equal(seen["0"], model[:2](x).flatten(2))
    assert torch.equal(seen["2"], model[:4](x).flatten(2))
    assert torch.equal(seen["5"], model[:7](x).unsqueeze(-1))
    seen.clear()
    model.eval()(x)
    assert not seen
    watched.close()


def test_units_with_two_readers_lose_both_and_plain_sgd_has_nothing_to_forget():
    class Fork(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.left, self.right = nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x):
            h = self.body(x).relu()
            return self.left(h) + self.right(h)

    model = Fork()
    (layer,) = hidden_units(model, torch.ones(1, 3)).layers
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    recycle(model, layer, torch.tensor([0, 3]), torch.full((2, 3), 7.0), sgd)
    assert (model.body.weight[[0, 3]] == 7).all()
    for reader in (model.left, model.right):
        assert not reader.weight[:, [0, 3]].any() and reader.weight[:, [1, 2]].all()
