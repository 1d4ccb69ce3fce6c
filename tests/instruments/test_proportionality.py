import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg.instruments import ProportionalityReport, proportionality
from thalweg.nn import HyperNet

GAMMA = torch.linspace(0.05, 1, 20, dtype=torch.float64)[:, None]
SHAPES = {"fc.weight": (8, 4), "fc.bias": (8,)}


@given(power=st.sampled_from([0.0, 1.0, 2.0, 3.0]), scale=st.sampled_from([1e-3, 1.0, 50.0]))
def test_a_power_law_gives_its_exponent(power, scale):
    report = proportionality(lambda z: {"w": scale * z**power, "v": 2 * z**power}, {"z": GAMMA})
    assert isinstance(report, ProportionalityReport)
    assert report.exponent == pytest.approx(power, abs=1e-9)
    assert report.ratio == pytest.approx(20**power)
    if power == 1:
        assert report.correlation == pytest.approx(1)
        spread = (GAMMA.var(correction=0) / GAMMA.square().mean()).sqrt().item()
        assert report.spread == {"w": pytest.approx(spread), "v": pytest.approx(spread)}


def test_a_constant_network():
    report = proportionality(lambda z: {"w": torch.ones(len(z), 3)}, {"z": GAMMA})
    assert report.ratio == 1 and report.exponent == 0 and report.spread == {"w": 0.0}
    assert report.correlation != report.correlation


@pytest.mark.parametrize("seed", range(3))
def test_a_standard_network_and_one_free_of_it(seed):
    def net(encoding, residual):
        generator = torch.Generator().manual_seed(seed)
        made = {"dtype": torch.float64, "generator": generator}
        return HyperNet({"z": (1,)}, SHAPES, (16, 128), encoding, residual, **made)

    plain = proportionality(net(None, False), {"z": GAMMA})
    assert plain.ratio == pytest.approx(20) and plain.correlation == pytest.approx(1)
    free = proportionality(net("cos|sin", True), {"z": GAMMA})
    assert 0.5 < free.ratio < 2 and abs(free.exponent) < 0.2


def test_several_inputs_and_half_precision():
    inputs = {"a": GAMMA[:, 0].half(), "b": GAMMA.half()}
    report = proportionality(lambda a, b: {"w": a[:, None] + b}, inputs)
    assert report.input_norms.dtype == torch.float64
    assert report.exponent == pytest.approx(1, abs=1e-3)


def test_errors():
    with pytest.raises(ValueError, match="need two inputs or more"):
        proportionality(lambda z: {"w": z}, {"z": GAMMA[:1]})
    with pytest.raises(ValueError, match=r"'w' must be \(20, …\), got \(\)"):
        proportionality(lambda z: {"w": z.sum()}, {"z": GAMMA})
    with pytest.raises(ValueError, match="all inputs have norm 1"):
        proportionality(lambda z: {"w": z}, {"z": torch.ones(3, 1)})
