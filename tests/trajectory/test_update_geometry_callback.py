import pytest
import torch

from thalweg.trajectory import UpdateGeometryCallback


def test_it_follows_a_training_and_leaves_it_alone():
    torch.manual_seed(0)
    model = torch.nn.Linear(6, 6)
    start = {n: t.clone() for n, t in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    callback = UpdateGeometryCallback(3, model=model, k=2, control=None)
    for _ in range(9):
        optimizer.zero_grad()
        model(torch.ones(1, 6)).square().sum().backward()
        optimizer.step()
        before = [p.clone() for p in model.parameters()]
        callback.after_step()
        assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert list(callback.reports) == [3, 6, 9]
    moved = [r.summary.relative_norm for r in callback.reports.values()]
    assert moved == sorted(moved) and moved[0] > 0
    told = UpdateGeometryCallback(1, model=model, base=start, k=2, control=None)
    told.after_step()
    assert told.reports[1].tensors == callback.reports[9].tensors


def test_errors():
    with pytest.raises(ValueError, match="every >= 1"):
        UpdateGeometryCallback(0, model=torch.nn.Linear(1, 1))
