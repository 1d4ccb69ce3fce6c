import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from thalweg.laws import (
    AmbiguousRank,
    Fields,
    LawReport,
    conservation_laws,
    fields_from_map,
    generic_point,
    path_map,
)

VECTORS = np.load(Path(__file__).parents[1] / "vectors/conservation-laws.npz", allow_pickle=False)


def _linear(*widths):
    """φ of a deep linear network: the product of its matrices."""
    shapes = list(zip(widths[1:], widths[:-1], strict=True))
    sizes = [a * b for a, b in shapes]

    def phi(theta):
        out = None
        for part, shape in zip(theta.split(sizes), shapes, strict=True):
            w = part.reshape(shape)
            out = w if out is None else w @ out
        return out

    return fields_from_map(phi, sum(sizes))


def _theory(m, r, n):
    if r <= m + n:
        return r * (r + 1) // 2
    return (m + n) * r - (m + n) * (m + n - 1) // 2


@pytest.mark.parametrize(
    ("widths", "laws"),
    [((2, 2, 2), 3), ((2, 3, 2), 6), ((1, 5, 2), 12), ((1, 3, 1), 5), ((3, 1, 2), 1),
     ((2, 2, 3, 2), 9), ((1, 1, 1, 1, 1), 3)],
)  # fmt: skip
def test_linear_networks(widths, laws):
    report = conservation_laws(_linear(*widths))
    assert isinstance(report, LawReport)
    assert (report.n_laws, report.lower, report.complete) == (laws, laws, True)
    assert report.gap > 1e6
    if len(widths) == 3:
        assert laws == _theory(widths[0], widths[1], widths[2])


def test_counts_of_an_independent_implementation():
    for dims, laws in zip(VECTORS["count_dims"], VECTORS["count_laws"], strict=True):
        widths = [int(d) for d in dims if d]
        report = conservation_laws(_linear(*widths), method="brackets")
        assert report.n_laws == int(laws), widths


def test_the_rank_grows_as_published():
    assert conservation_laws(_linear(2, 2, 2)).history == (4, 5)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("widths", [(2, 3, 1), (2, 2, 2, 1), (1, 4, 2)])
def test_relu_networks_have_one_law_per_hidden_unit(widths, bias):
    phi, dim = path_map(widths, bias=bias)
    report = conservation_laws(fields_from_map(phi, dim))
    assert report.n_laws == report.lower == sum(widths[1:-1])


def test_activation_of_degree_k():
    k = 3

    # u (v·x)^k depends on θ = (u, v1, v2) through u times the monomials of degree k in v.
    def phi(t):
        return torch.stack([t[0] * t[1] ** i * t[2] ** (k - i) for i in range(k + 1)])

    report = conservation_laws(
        fields_from_map(phi, 3, names=("u", "v1", "v2")), method="exact", degree=2
    )
    assert report.formulas == ["3·u² - v1² - v2²"] and report.polynomials.exact


def test_exact_and_float_find_the_same_laws():
    family = _linear(2, 3, 2)
    a = conservation_laws(family, method="poly").polynomials
    b = conservation_laws(family, method="exact").polynomials
    both = torch.cat([a.coefficients, b.coefficients])
    assert a.nullity == b.nullity == 6 == int(torch.linalg.matrix_rank(both))


def test_a_single_field_has_trivial_laws_only():
    family = fields_from_map(lambda t: (t**2).sum() + t[0] * t[1] * t[2], 4)
    report = conservation_laws(family)
    assert report.n_laws == 3 and not report.complete
    assert "single field" in report.note


def test_hyperbolic_bracket():
    # ∇(xy) = (y, x) and ∇x = (1, 0): [X, Y] = DY·X − DX·Y = −(0, 1).
    fields = [lambda t: t.flip(0), lambda t: torch.stack([torch.ones_like(t[0]), 0 * t[0]])]
    report = conservation_laws(fields, torch.tensor([0.7, -1.3]).double(), method="brackets")
    assert (report.lie_dim, report.n_laws) == (2, 0)


def test_commuting_fields_do_not_grow_by_round_off():
    fields = [
        lambda t: torch.stack([t[0], 0 * t[0], 0 * t[0]]),
        lambda t: t * torch.tensor([0.0, 1, 0]),
    ]
    report = conservation_laws(fields, torch.tensor([0.7, -1.3, 0.4]).double(), method="brackets")
    assert report.history == (2,)


def test_orbit_is_a_cross_check():
    report = conservation_laws(_linear(2, 2, 2), method="orbit")
    assert report.n_laws == 3 and not report.complete and "cross-check" in report.note


def test_ambiguous_ranks_are_errors():
    # Two directions that differ by 1e-7: neither equal nor different.
    eps = 3e-8
    fields = [
        lambda t: torch.stack([1 + 0 * t[0], 0 * t[0], 0 * t[0]]),
        lambda t: torch.stack([1 + 0 * t[0], eps + 0 * t[0], 0 * t[0]]),
        lambda t: torch.stack([1 + 0 * t[0], eps + 0 * t[0], eps / 100 + 0 * t[0]]),
    ]
    with pytest.raises(AmbiguousRank, match="cannot be told"):
        conservation_laws(fields, generic_point(3), method="brackets")


@pytest.mark.parametrize(
    ("theta", "error", "said"),
    [
        (torch.tensor([1, 2]), TypeError, "floating-point tensor, got torch.int64"),
        ([1.0, 2.0], TypeError, "got list"),
        (torch.ones(2, 2), ValueError, r"shape \(D,\)"),
        (torch.tensor([0.0, 1.0]), ValueError, "not generic"),
        (torch.tensor([-1.0, 1.0]), ValueError, "not generic"),
        (torch.tensor([1.0, float("nan")]), ValueError, "not finite"),
        (torch.tensor([1.0, 2.0, 3.0]), ValueError, "theta has 3 coordinates"),
    ],
)
def test_bad_theta(theta, error, said):
    family = fields_from_map(lambda t: t[0] * t[1], 2)
    with pytest.raises(error, match=said):
        conservation_laws(family, theta)


def test_special_theta_is_noticed():
    # At t0² + t1² = 1 the second field vanishes, and so does its bracket with the first.
    family = fields_from_map(lambda t: torch.stack([t[0], (t[0] ** 2 + t[1] ** 2 - 1) ** 3]), 2)
    with pytest.raises(ValueError, match="not generic"):
        conservation_laws(family, torch.tensor([0.6, 0.8], dtype=torch.float64), method="brackets")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: conservation_laws(_linear(5, 5, 5), method="brackets"), "use method='linear'"),
        (lambda: conservation_laws(_linear(6, 6, 6), method="linear"), r"known_laws\(module\)"),
        (lambda: conservation_laws(_linear(4, 4, 4), method="poly", degree=3), "lower the degree"),
        (lambda: conservation_laws(_linear(1, 1, 1), method="guess"), "method must be"),
        (lambda: conservation_laws([lambda t: t]), "theta is needed"),
        (lambda: conservation_laws([], torch.tensor([0.5])), "at least one vector field"),
        (lambda: conservation_laws([lambda t: t[:1]], generic_point(2)), "must return shape"),
        (lambda: fields_from_map(lambda t: torch.ones(1), 2), "does not depend on theta"),
        (lambda: conservation_laws(fields_from_map(lambda t: t.sin(), 2), method="exact"),
         "integers at integer points"),
    ],
)  # fmt: skip
def test_errors(call, said):
    with pytest.raises(ValueError, match=said):
        call()


def test_large_models_fall_back_to_linear_symmetries(monkeypatch):
    module = sys.modules["thalweg.laws.conservation_laws"]  # its name means the function
    monkeypatch.setattr(module, "MAX_EXACT_DIM", 7)
    report = conservation_laws(_linear(2, 2, 2))
    assert (report.dim, report.method, report.n_laws) == (8, "linear", 3) and not report.complete


def test_family_of_callables_is_the_family_of_the_map():
    family = Fields.of([lambda t: t.flip(0)], 2)
    theta = torch.tensor([2.0, 3.0])
    assert torch.equal(family.at(theta), torch.tensor([[3.0, 2.0]]))
