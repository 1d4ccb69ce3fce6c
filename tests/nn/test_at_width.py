"""nn/at_width.py"""

import pytest
import torch
from torch import nn

from thalweg.nn import MuReadout, at_width, base_shape_of, set_base_shapes


def mup(n):
    return nn.Sequential(nn.Linear(8, n), nn.ReLU(), MuReadout(n, 3))


def plain(n):
    return nn.Sequential(nn.Linear(8, n), nn.ReLU(), nn.Linear(n, 3))


def test_standard_parametrisation_is_what_a_linear_readout_gives():
    torch.manual_seed(0)
    model = at_width(mup, 32)
    torch.manual_seed(0)
    same = at_width(plain, 32)
    assert base_shape_of(same[0].weight) is None
    x = torch.randn(4, 8)
    assert torch.equal(model(x), same(x)) and model[2].width_mult == 1.0


def test_mup_scales_from_the_base_width_and_draws_as_the_standard_does():
    torch.manual_seed(0)
    wide, then = at_width(mup, 64, base_width=16), torch.rand(1)
    torch.manual_seed(0)
    standard = mup(64)
    assert torch.equal(torch.rand(1), then)
    assert torch.equal(wide[2].weight, 2 * standard[2].weight) and wide[2].width_mult == 4


def test_a_model_with_base_shapes_is_left_alone():
    model = at_width(lambda n: set_base_shapes(mup(n), mup(8), mup(16)), 64, base_width=32)
    assert model[2].width_mult == 8


def test_errors():
    with pytest.raises(ValueError, match="no parameter depends on the width"):
        at_width(lambda n: nn.Linear(8, 3), 64)
    with pytest.raises(ValueError, match="make it a MuReadout"):
        at_width(plain, 64, base_width=16)
