import torch
from torch import nn

from thalweg.laws import LawMonitor, frozen_laws


def test_frozen_parameters_only_and_they_are_watched():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)).double()
    assert frozen_laws(model) == []
    model[0].weight.requires_grad_(False)
    (law,) = frozen_laws(model)
    assert law.parameters == ("0.weight",) and law.order == 2
    sgd = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    with LawMonitor(model, [law], sgd) as monitor:
        for _ in range(3):
            sgd.zero_grad()
            model(torch.ones(4, 2).double()).square().mean().backward()
            sgd.step()
        assert abs(monitor.residual()).max() == 0
        with torch.no_grad():
            model[0].weight[0, 0] += 1.0
        assert abs(monitor.residual()).max() > 1e-3
