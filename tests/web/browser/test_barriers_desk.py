"""No barrier for anyone at 1440 pixels, light or dark: axe-core finds none."""

import pytest


def test_nobody_is_kept_out(barrier_free, address):
    barrier_free(address, 1440)


def test_a_barrier_is_found(visit, barrier_free):
    """Grey on grey, and wider than its window."""
    with pytest.raises(AssertionError, match="color-contrast"):
        barrier_free("/topics", 1440, spoil="document.body.style.color = '#bbb'")
    with pytest.raises(AssertionError, match="<="):
        barrier_free("/topics", 1440, spoil="document.body.style.minWidth = '200vw'")
