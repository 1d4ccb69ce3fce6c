import pytest
import torch

from thalweg.trajectory import Foresight, fit_rank1, foresight, foresight_of, inner_products


def model(rows, **options):
    return fit_rank1([{"w": torch.zeros(rows.shape[1])}, *({"w": row} for row in rows)], **options)


def test_a_straight_path_is_foreseen():
    g = torch.Generator().manual_seed(0)
    path = torch.outer(torch.arange(1.0, 31.0), torch.randn(50, generator=g))
    report = foresight(model(path), 60)
    assert isinstance(report, Foresight) and report.go
    assert (report.seen, report.held_out, report.horizon, report.wanted) == (15, 30, 2.0, 2.0)
    assert report.error < 1e-5 and report.last_delta < 1e-5 and report.per_coordinate < 1e-5
    assert report.cosine == pytest.approx(1) and report.norm_ratio == pytest.approx(1)
    assert report.explained == pytest.approx(1) and report.walk < 0.85


def test_errors_are_those_of_the_vectors():
    g = torch.Generator().manual_seed(0)
    path = torch.randn(12, 40, generator=g).cumsum(0).double()
    report = foresight(model(path, rank=2), 30)
    n = 4
    assert (report.seen, report.horizon) == (n, 3.0)
    truth = path[-1]
    early = model(path[:n], rank=2).predict(12)["w"]
    way = (truth - path[n - 1]).norm()
    assert report.error == pytest.approx(float((early - truth).norm() / way))
    assert report.last_delta == pytest.approx(float((3 * path[n - 1] - truth).norm() / way))
    line = model(path[:n], rank=n).predict(12)["w"]
    assert report.per_coordinate == pytest.approx(float((line - truth).norm() / way))
    assert report.cosine == pytest.approx(
        float(torch.cosine_similarity(early, truth, dim=0)), abs=1e-6
    )
    assert report.norm_ratio == pytest.approx(float(early.norm() / truth.norm()))


def test_inner_products_alone_do():
    path = torch.randn(12, 40, generator=torch.Generator().manual_seed(0)).cumsum(0).double()
    whole = foresight(model(path), 20)
    assert foresight_of({"w": path @ path.T}, range(1, 13), 20).error == pytest.approx(whole.error)


def test_a_path_that_bends_more_and_more_is_expected_to_go_on():
    t = torch.arange(1.0, 33.0)[:, None]
    bent = torch.cat([t, (t / 20) ** 4], 1)
    report = foresight(model(bent), 100)
    assert report.bend > 1.5 and report.expected > 0.9 > report.error
    assert not report.go and "the path bends" in report.why
    straight = foresight(model(torch.cat([t, t]).view(2, 32).T), 100)
    assert straight.go and straight.expected < 1e-5


def test_noise_is_not():
    walk = torch.randn(40, 10_000, generator=torch.Generator().manual_seed(0)).cumsum(0)
    report = foresight(model(walk), 80)
    assert not report.go and report.error > 1
    assert report.explained == pytest.approx(report.walk, abs=0.03)


def test_scatter_around_a_point_is_not():
    """The mean of what was seen is nearer to what comes than the last, but there is no path."""
    points = torch.randn(9, 4000, generator=torch.Generator().manual_seed(0))
    report = foresight(fit_rank1([{"w": point} for point in points]), 16)
    assert not report.go and report.error < 1 and "no more than noise" in report.why


def test_a_bend_is_not():
    bent = torch.cat([torch.eye(2)[:1] * t for t in torch.arange(1.0, 9.0)])
    bent[4:, 1] = torch.arange(5.0, 45.0, 10.0)
    report = foresight(model(bent), 16)
    assert not report.go and "was missed by" in report.why


def test_too_far_is_not():
    path = torch.outer(torch.arange(1.0, 6.0), torch.ones(4))
    report = foresight(model(path), 50)
    assert not report.go and report.error < 1e-5 and "can test 1.67 times" in report.why


def test_a_path_that_stopped_is_not():
    path = torch.ones(6, 4)
    report = foresight(model(path), 7)
    assert not report.go and "did not move" in report.why


def test_bad_input():
    path = torch.outer(torch.arange(1.0, 6.0), torch.ones(4))
    with pytest.raises(ValueError, match="not after the last observed one, 5"):
        foresight(model(path), 5)
    with pytest.raises(ValueError, match="at least 4 checkpoints"):
        foresight(model(path[:3]), 9)


def test_inner_products_alone_are_enough():
    path = torch.randn(12, 40, generator=torch.Generator().manual_seed(0)).cumsum(0).double()
    found = inner_products(path)
    alone, by_model = foresight_of({"w": found.gram}, found.steps, 30), foresight(model(path), 30)
    assert alone.error == pytest.approx(by_model.error) and alone.go == by_model.go
    assert alone.explained == pytest.approx(by_model.explained)
