import pytest
import torch

from thalweg.optim import BilevelProblem, hypergradient, saba, soba, stocbio, ttsa

F64 = torch.float64


def drawn(seed, dx=3, dy=4):
    generator = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(dy, dy, dtype=F64, generator=generator))[0]
    H = (q * torch.linspace(1, 2, dy, dtype=F64)) @ q.T
    B, c, x, y = (torch.randn(s, dtype=F64, generator=generator) for s in ((dy, dx), dy, dx, dy))
    return H, B, c, x, y


def tilted(H, B, c):
    """A batch is a vector that both gradients in y are moved by."""
    return BilevelProblem(
        lambda x, y, t: 0.5 * (y - c).square().sum() + 0.5 * x.square().sum() + _tilt(t, y),
        lambda x, y, t: 0.5 * y @ H @ y - y @ B @ x + _tilt(t, y),
    )


def _tilt(t, y):
    return 0.0 if t is None else t @ y


def solution(H, B, c):
    inverse = torch.linalg.inv(H)
    return torch.linalg.solve(
        torch.eye(3, dtype=F64) + B.T @ inverse @ inverse @ B, B.T @ inverse @ c
    )


METHODS = {
    "stocbio": (stocbio, {"lr": 0.2}, 70),
    "unrolled": (stocbio, {"lr": 0.2, "hypergrad": "unroll"}, 70),
    "soba": (soba, {"lr": 0.05}, 500),
    "saba": (saba, {"lr": 0.05, "batches": [None]}, 500),
    "ttsa": (ttsa, {"lr": 0.2, "num_terms": 8}, 800),
}


@pytest.mark.parametrize("name", METHODS)
def test_all_find_the_solution(name):
    H, B, c, x, y = drawn(0)
    make, settings, steps = METHODS[name]
    method = make(tilted(H, B, c), x, y, lower_lr=0.5, **settings)
    for _ in range(steps):
        method.step()
    error = (method.x - solution(H, B, c)).norm() / solution(H, B, c).norm()
    assert error < (0.1 if name == "ttsa" else 1e-4)  # the steps of ttsa fall, its noise with them


def test_stocbio_by_hand():
    H, B, c, x, y = drawn(1)
    problem = tilted(H, B, c)
    method = stocbio(problem, x, y, lr=0.2, lower_lr=0.4, lower_steps=3, num_terms=5)
    for _ in range(4):
        method.step()
        for _ in range(3):
            y = y - 0.4 * (H @ y - B @ x)
        x = x - 0.2 * hypergradient(problem, x, y, lr=0.4, num_terms=5)
    assert (method.x - x).norm() < 1e-12 and (method.y - y).norm() < 1e-12


def test_soba_by_hand():
    H, B, c, x, y = drawn(2)
    method = soba(tilted(H, B, c), x, y, lr=0.1, lower_lr=0.4)
    z = torch.zeros(4, dtype=F64)
    for _ in range(6):
        method.step()
        in_y, in_z, in_x = H @ y - B @ x, H @ z - (y - c), x + B.T @ z
        x, y, z = x - 0.1 * in_x, y - 0.4 * in_y, z - 0.4 * in_z
    assert (method.x - x).norm() < 1e-12 and (method.y - y).norm() < 1e-12


def test_ttsa_by_hand_and_in_the_mean():
    H, B, c, x, y = drawn(3)
    problem, terms = tilted(H, B, c), 4
    powers = torch.Generator().manual_seed(7)
    method = ttsa(
        *(problem, x, y),
        **{"lr": 0.2, "lower_lr": 0.4, "num_terms": terms},
        generator=torch.Generator().manual_seed(7),
    )
    start_x, start_y = x, y
    for k in range(1, 6):
        method.step()
        y = y - 0.4 * k**-0.4 * (H @ y - B @ x)
        z = terms * 0.4 * (y - c)
        for _ in range(int(torch.randint(terms, (), generator=powers))):
            z = z - 0.4 * H @ z
        x = x - 0.2 * k**-0.6 * (x + B.T @ z)
    assert (method.x - x).norm() < 1e-12 and (method.y - y).norm() < 1e-12
    moves = []
    for seed in range(400):
        generator = torch.Generator().manual_seed(seed)
        one = ttsa(
            *(problem, start_x, start_y),
            **{"lr": 1.0, "lower_lr": 0.4, "num_terms": terms, "generator": generator},
        )
        one.step()
        moves.append(start_x - one.x)
    y = start_y - 0.4 * (H @ start_y - B @ start_x)
    expected = hypergradient(problem, start_x, y, lr=0.4, num_terms=terms)
    mean, spread = torch.stack(moves).mean(0), torch.stack(moves).std(0) / 20
    assert ((mean - expected).abs() < 4 * spread).all() and (spread > 0).all()


def test_saba_has_no_noise_left_where_soba_has():
    H, B, c, x, y = drawn(4)
    tilts = 2 * torch.randn(6, 4, dtype=F64, generator=torch.Generator().manual_seed(0))
    tilts = list(tilts - tilts.mean(0))
    reduced = saba(tilted(H, B, c), x, y, lr=0.05, lower_lr=0.2, batches=tilts)
    noisy = soba(tilted(H, B, c), x, y, lr=0.05, lower_lr=0.2)
    generator = torch.Generator().manual_seed(1)
    for _ in range(700):
        reduced.step()
        noisy.step(tilts[int(torch.randint(6, (), generator=generator))])
    best = solution(H, B, c)
    assert (reduced.x - best).norm() < 1e-4 < 1e-2 < (noisy.x - best).norm()


def test_saba_direction_is_unbiased_and_kept_by_batch():
    """After the first step the mean of what is kept is the mean of the directions."""
    H, B, c, x, y = drawn(5)
    tilts = [torch.full((4,), t, dtype=F64) for t in (-1.0, 0.0, 1.0)]
    method = saba(tilted(H, B, c), x, y, lr=0.1, lower_lr=0.4, batches=tilts)
    for _ in range(5):
        method.step()
    state = method.state_dict()["state"]
    for j, mean in enumerate(state["mean"]):
        kept = torch.stack([state[f"batch {i}"][j] for i in range(3)]).mean(0)
        assert (kept - mean).norm() < 1e-12


@pytest.mark.parametrize("name", METHODS)
def test_resumed_is_uninterrupted(name):
    H, B, c, x, y = drawn(6)
    make, settings, _ = METHODS[name]

    def fresh():
        return make(tilted(H, B, c), x, y, lower_lr=0.4, **settings)

    through, stopped, resumed = fresh(), fresh(), fresh()
    for _ in range(3):
        through.step()
        stopped.step()
    resumed.load_state_dict(stopped.state_dict())
    for _ in range(3):
        through.step()
        resumed.step()
    assert torch.equal(through.x, resumed.x) and torch.equal(through.y, resumed.y)


@pytest.mark.parametrize("name", METHODS)
def test_without_grad_mode_the_steps_are_the_same(name):
    H, B, c, x, y = drawn(8)
    make, settings, _ = METHODS[name]
    one, two = (make(tilted(H, B, c), x, y, lower_lr=0.4, **settings) for _ in range(2))
    one.step()
    with torch.no_grad():
        two.step()
    assert torch.equal(one.x, two.x) and torch.equal(one.y, two.y)


def test_errors():
    H, B, c, x, y = drawn(7)
    problem = tilted(H, B, c)
    for make in (stocbio, soba, ttsa, lambda *a, **k: saba(*a, batches=[None], **k)):
        with pytest.raises(ValueError, match="lr must be positive"):
            make(problem, x, y, lr=0.0, lower_lr=0.4)
        with pytest.raises(ValueError, match="lr must be positive"):
            make(problem, x, y, lower_lr=0.0)
    with pytest.raises(ValueError, match="lower_steps must be at least 1"):
        stocbio(problem, x, y, lower_lr=0.4, lower_steps=0)
    with pytest.raises(ValueError, match="num_terms must be at least 1"):
        ttsa(problem, x, y, lower_lr=0.4, num_terms=0)
    with pytest.raises(ValueError, match="needs all batches"):
        saba(problem, x, y, lower_lr=0.4, batches=[])
    with pytest.raises(ValueError, match="saba draws from batches="):
        saba(problem, x, y, lower_lr=0.4, batches=[None]).step(1)
