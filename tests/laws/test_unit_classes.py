import torch

from thalweg.laws.unit_classes import FIXED, UnitClasses


def test_ratios_multiply_along_a_chain():
    c = UnitClasses()
    a, b, d = c.new(3).split(1)
    c.tie(a, b, 2.0)
    c.tie(b, d, -1.0)
    (root, one), (same, two) = c.find(int(a)), c.find(int(d))
    assert root == same and one == -2.0 * two and c.alive(int(a))


def test_a_cycle_that_does_not_close_leaves_nothing():
    c = UnitClasses()
    a, b = c.new(2).split(1)
    c.tie(a, b, 1.0)
    c.tie(a, b, 1.0)
    assert c.alive(int(a))
    c.tie(a, b, -1.0)
    assert not c.alive(int(a)) and not c.alive(int(b))


def test_stopping_one_stops_its_class():
    c = UnitClasses()
    units = c.new(4)
    c.tie(units[:2], units[2:])
    c.stop(units[:1])
    assert [c.alive(u) for u in units.tolist()] == [False, True, False, True]
    c.tie(units[3:], torch.tensor([FIXED]))
    assert not c.alive(int(units[1]))
