"""No barrier for anyone at 375 pixels, light or dark: axe-core finds none."""


def test_nobody_is_kept_out(barrier_free, address):
    barrier_free(address, 375)
