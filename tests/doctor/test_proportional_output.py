"""The rule for hypernetworks whose output grows with their input."""

import numpy as np
import pytest
import torch

import thalweg
from thalweg.doctor.proportional_output import EXPONENT, proportional_output
from thalweg.instruments import proportionality
from thalweg.nn import HyperNet


def test_an_exponent_near_one_is_found(make_run):
    (found,) = proportional_output(make_run({(EXPONENT, ""): np.linspace(1, 0.9, 10)}))
    assert found.entry == "hypernetwork-mip" and "hypernetize" in found.treatment
    assert found.evidence[0].value == pytest.approx(0.92, abs=0.01)


@pytest.mark.parametrize(
    "values",
    [
        np.linspace(1, 0.3, 10),  # its biases learn
        [0.05, -0.1, 0.1, 0.0, 0.2],
        [1.0, 1.0],  # too few to say
        [float("nan")] * 9,
    ],
)
def test_others_are_not(make_run, values):
    assert proportional_output(make_run({(EXPONENT, ""): values})) == []


@pytest.mark.parametrize("encoding", [None, "cos|sin"])
def test_real_hypernetworks(tmp_path, encoding):
    torch.manual_seed(0)
    net = HyperNet({"gamma": (1,)}, {"w": (8,)}, (16,), encoding, residual=encoding is not None)
    for p in net.parameters():
        p.requires_grad_(p.ndim > 1 or encoding is not None)
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], 1e-3)
    sizes = {"gamma": torch.linspace(0.05, 1, 10)[:, None]}
    with thalweg.record(net, optimizer, tmp_path / "run", instruments=["loss"]) as recording:
        for step in range(20):
            gamma = torch.rand(16, 1)
            loss = torch.nn.functional.mse_loss(net(gamma=gamma)["w"], gamma.expand(16, 8))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % 4 == 0:
                exponent = proportionality(net, sizes).exponent
                recording.log({"proportionality_exponent": exponent})
    rules = [d.rule for d in thalweg.diagnose(tmp_path / "run")]
    assert ("proportional_output" in rules) == (encoding is None)
