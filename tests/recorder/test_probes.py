"""Costly instruments inside a recording: right, in budget, and without a trace on the training."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import thalweg
from thalweg.errors import ThalwegError
from thalweg.recorder.plan import Plan

PROBES = ["default", "sharpness", "hessian_trace", "critical_sharpness", "isometry_defect"]


def _dense_hessian(model, loss):
    params = list(model.parameters())
    sizes = [p.numel() for p in params]

    def f(flat):
        pieces = [v.view_as(p) for v, p in zip(flat.split(sizes), params, strict=True)]
        named = dict(zip([n for n, _ in model.named_parameters()], pieces, strict=True))
        return loss(lambda x: torch.func.functional_call(model, named, (x,)))

    return torch.autograd.functional.hessian(f, torch.cat([p.detach().flatten() for p in params]))


def test_sharpness_and_trace_of_an_unmodified_loop(run_dir):
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    sgd = torch.optim.SGD(model.parameters(), 0.1, momentum=0.5)
    x, y = torch.randn(32, 4).double(), torch.randint(0, 2, (32,))
    want = {}
    with thalweg.record(model, sgd, run_dir, overhead=1e9, instruments=PROBES):
        for step in range(1, 9):
            sgd.zero_grad()
            F.cross_entropy(model(x), y).backward()
            sgd.step()
            H = _dense_hessian(model, lambda f: F.cross_entropy(f(x), y))
            want[step] = torch.linalg.eigvalsh(H)
    run = thalweg.Run(run_dir)
    rows = run.table("sharpness").to_pylist()
    assert len(rows) >= 4
    for row in rows:
        assert row["status"] == "ok"
        assert row["value"] == pytest.approx(want[row["step"]].max().item(), rel=2e-3)
        assert row["uncertainty"] <= 1e-3 * abs(row["value"]) + 1e-9
    for row in run.table("hessian_trace").to_pylist():
        exact = want[row["step"]].sum().item()
        assert abs(row["value"] - exact) <= 6 * row["uncertainty"] + 1e-6
    limits = run.series("stability_threshold")[1]
    assert limits.tolist() == pytest.approx([(2 + 2 * 0.5) / 0.1] * len(limits))
    assert set(run.parts("isometry_defect")) == {"", "0.weight", "2.weight"}
    assert len(run.series("critical_sharpness")[0]) >= 1


def test_critical_sharpness_of_a_quadratic_is_the_rayleigh_quotient(run_dir):
    # Loss ½ Σ c_i w_i² of a model whose output is its weight: Δ = −η∇L, H = diag(c).
    class Weight(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))

        def forward(self, c):
            return c.sqrt() * self.w

    model, c = Weight(), torch.tensor([1.0, 5.0], dtype=torch.float64)
    sgd = torch.optim.SGD(model.parameters(), 0.05)
    want = {}
    with thalweg.record(model, sgd, run_dir, overhead=1e9, instruments=["critical_sharpness"]):
        for step in range(1, 8):
            sgd.zero_grad()
            (0.5 * model(c).square().sum()).backward()
            g = model.w.grad.clone()
            want[step] = (g @ (c * g) / (g @ g)).item()
            sgd.step()
    steps, values = thalweg.Run(run_dir).series("critical_sharpness")
    assert len(steps) >= 3
    for step, value in zip(steps.tolist(), values.tolist(), strict=True):
        assert value == pytest.approx(want[step], rel=0.03)


def test_adam_is_measured_preconditioned_too(run_dir):
    model = nn.Linear(3, 2)
    adam = torch.optim.Adam(model.parameters(), 1e-2)
    x, y = torch.randn(16, 3), torch.randint(0, 2, (16,))
    with thalweg.record(model, adam, run_dir, overhead=1e9, instruments=["sharpness"]):
        for _ in range(6):
            adam.zero_grad()
            F.cross_entropy(model(x), y).backward()
            adam.step()
    run = thalweg.Run(run_dir)
    assert run.parts("sharpness") == ["", "preconditioned"]
    assert run.series("stability_threshold")[1][0] == pytest.approx(38 / 1e-2)


def test_noise_scale_from_the_micro_batches_of_an_accumulated_step(run_dir):
    torch.manual_seed(0)
    model = nn.Linear(5, 1).double()
    sgd = torch.optim.SGD(model.parameters(), 1e-4)
    x, y = torch.randn(8, 16, 5).double(), torch.randn(8, 16, 1).double()
    with thalweg.record(model, sgd, run_dir, overhead=1e9, instruments=["grad_noise_scale"]):
        for _ in range(6):
            sgd.zero_grad()
            for xb, yb in zip(x, y, strict=True):
                (F.mse_loss(model(xb), yb) / 8).backward()
            grads = []
            for xb, yb in zip(x, y, strict=True):
                g = torch.autograd.grad(F.mse_loss(model(xb), yb), list(model.parameters()))
                grads.append(torch.cat([t.flatten() for t in g]))
            sgd.step()
    from thalweg.instruments import grad_noise_scale

    rows = thalweg.Run(run_dir).table("grad_noise_scale").to_pylist()
    want = grad_noise_scale(torch.stack(grads), [16] * 8)
    assert rows[-1]["status"] == "ok"
    assert rows[-1]["value"] == pytest.approx(want.value, rel=1e-2)  # lr 1e-4: the same weights


def test_without_micro_batches_the_noise_scale_says_so(run_dir):
    model = nn.Linear(5, 1)
    sgd = torch.optim.SGD(model.parameters(), 1e-4)
    with thalweg.record(model, sgd, run_dir, overhead=1e9, instruments=["grad_noise_scale"]):
        for _ in range(5):
            sgd.zero_grad()
            model(torch.randn(4, 5)).square().mean().backward()
            sgd.step()
    rows = thalweg.Run(run_dir).table("grad_noise_scale").to_pylist()
    assert "1 micro-batches; 3 or more" in rows[0]["status"] and math.isnan(rows[0]["value"])


def test_training_is_bit_identical_under_probes(run_dir):
    ends = []
    for record in (False, True):
        torch.manual_seed(3)
        model = nn.Sequential(
            nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.4), nn.Linear(8, 3)
        )
        adam = torch.optim.AdamW(model.parameters(), 1e-2)
        x, y = torch.randn(32, 6), torch.randint(0, 3, (32,))

        def train(model=model, adam=adam, x=x, y=y):
            for _ in range(12):
                adam.zero_grad()
                F.cross_entropy(model(x), y).backward()
                adam.step()

        if record:
            with thalweg.record(model, adam, run_dir, overhead=1e9, instruments=PROBES):
                train()
        else:
            train()
        ends.append((model.state_dict(), torch.get_rng_state()))
    assert all(
        torch.equal(a, b) for a, b in zip(ends[0][0].values(), ends[1][0].values(), strict=True)
    )
    assert torch.equal(ends[0][1], ends[1][1])
    run = thalweg.Run(run_dir)
    assert len(run.series("sharpness")[0]) >= 4
    assert "val_loss" not in run.instruments  # the probes' own evaluations are not taken for one


def test_several_optimizers_and_uncapturable_losses_say_so(run_dir, tmp_path):
    a, b = nn.Linear(2, 2), nn.Linear(2, 1)
    oa, ob = torch.optim.SGD(a.parameters(), 0.1), torch.optim.SGD(b.parameters(), 0.1)
    with thalweg.record([a, b], [oa, ob], run_dir, overhead=1e9, instruments=["sharpness"]):
        for _ in range(5):
            b(a(torch.ones(3, 2))).sum().backward()
            oa.step()
            ob.step()
    (row,) = thalweg.Run(run_dir).table("sharpness").to_pylist()
    assert row["status"].startswith("unsupported:several optimizers")


def test_the_budget_holds_back_what_it_cannot_afford(run_dir):
    model = nn.Linear(4, 2)
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    with thalweg.record(model, sgd, run_dir, instruments=["loss", "sharpness"]):
        for _ in range(40):
            sgd.zero_grad()
            F.cross_entropy(model(torch.ones(4, 4)), torch.zeros(4, dtype=torch.long)).backward()
            sgd.step()
    rows = thalweg.Run(run_dir).table("sharpness").to_pylist()
    assert [row["status"] for row in rows] == ["skipped:budget"]  # 25 steps' worth at 5 %: not yet


def test_groups_of_names():
    assert "sharpness" not in Plan().names
    assert {"loss", "sharpness", "hessian_trace"} <= set(Plan(["all"]).names)
    assert Plan(["default", "sharpness"]).names[-1] == "sharpness"
    with pytest.raises(ThalwegError, match="nearest: 'sharpness'"):
        Plan(["sharpnes"])


def test_ranks_of_the_features_behind_each_activation(run_dir):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 8, bias=False), nn.Linear(8, 1)

        def forward(self, x):
            return self.b(F.relu(self.a(x)))

    net = Net()
    with torch.no_grad():
        net.a.weight.copy_(torch.ones(8, 1) @ torch.rand(1, 4))  # one direction for all units
    sgd = torch.optim.SGD(net.b.parameters(), 0.1)
    names = ["effective_rank", "stable_rank", "frobenius_rank"]
    with thalweg.record(net, sgd, run_dir, overhead=1e9, instruments=names):
        for _ in range(3):
            sgd.zero_grad()
            net(torch.rand(16, 4)).square().mean().backward()
            sgd.step()
    run = thalweg.Run(run_dir)
    assert sorted(run.instruments) == sorted(names)
    assert run.series("frobenius_rank", "relu")[1].tolist() == pytest.approx([1, 1], abs=1e-3)
    assert run.series("effective_rank", "relu")[1].tolist() == pytest.approx([1, 1], abs=1e-3)
    assert run.series("stable_rank", "relu")[1].tolist() == [1, 1]


AT_INPUTS = ["entk_rank", "jacobian_spectrum"]


def _train(model, x, run_dir, instruments, loss=lambda out: out.square().mean(), **kwargs):
    sgd = torch.optim.SGD(model.parameters(), 0.0)
    with thalweg.record(model, sgd, run_dir, overhead=1e9, instruments=instruments, **kwargs):
        for _ in range(5):
            sgd.zero_grad()
            loss(model(x)).backward()
            sgd.step()
    return thalweg.Run(run_dir)


def test_kernel_and_jacobian_at_the_inputs_of_the_step(run_dir):
    """A rotation and a scaling by 3: singular values 3 and 3, whatever the inputs."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2), nn.Dropout(0.5))
    with torch.no_grad():
        model[0].weight.copy_(3 * torch.tensor([[0.0, -1.0], [1.0, 0.0]]))
        model[1].running_var.fill_(1 - model[1].eps)
    model[1].momentum = 0.0  # the running statistics stay, so that eval mode is the rotation
    run = _train(model, torch.randn(40, 2), run_dir, AT_INPUTS)
    for part in ("smallest", "largest", "singular_values[0]", "singular_values[1]"):
        steps, values = run.series("jacobian_spectrum", part)
        assert len(steps) >= 2 and values.tolist() == pytest.approx([3.0] * len(steps), rel=1e-4)
    assert {r["status"] for r in run.table("entk_rank").to_pylist()} == {"ok"}
    assert all(1 < v <= 64 for v in run.series("entk_rank")[1])
    assert model.training and model[2].training


def test_why_there_is_no_kernel_or_jacobian(run_dir, tmp_path):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(2, 2)

        def forward(self, x, y=None):
            return self.a(x)

    def said(run, name):
        (row,) = {r["status"] for r in run.table(name).to_pylist()}
        return row

    wide = _train(nn.Linear(2, 100), torch.randn(8, 2), tmp_path / "wide", AT_INPUTS)
    assert "one input gives 100 numbers; at most 64" in said(wide, "entk_rank")
    tokens = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(8, 2))
    run = _train(tokens, torch.randint(5, (8, 2)), tmp_path / "tokens", AT_INPUTS)
    assert said(run, "entk_rank") == "ok"
    assert "start at the embedding" in said(run, "jacobian_spectrum")
    model = Two()
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    with thalweg.record(model, sgd, run_dir, overhead=1e9, instruments=AT_INPUTS):
        for _ in range(4):
            sgd.zero_grad()
            model(torch.ones(3, 2), torch.ones(3)).sum().backward()
            sgd.step()
    assert "Two is called with 2 arguments" in said(thalweg.Run(run_dir), "entk_rank")


def test_kernel_on_the_users_own_probe(run_dir):
    model = nn.Linear(3, 1, bias=False)
    probe = torch.eye(3)
    kwargs = {"loss_fn": lambda m, b: m(b[0]).square().sum(), "probe": (probe, None)}
    run = _train(model, torch.ones(2, 3), run_dir, ["entk_rank"], **kwargs)
    assert run.series("entk_rank")[1].tolist() == pytest.approx([3.0] * len(run.steps), rel=1e-5)


def test_the_density_of_a_known_hessian(run_dir):
    model = nn.Linear(4, 1, bias=False)
    x = torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    run = _train(model, x, run_dir, ["hessian_density"], loss=lambda out: 0.5 * out.square().sum())
    step = run.table("hessian_density")["step"][0].as_py()
    rows = {
        r["part"]: r["value"] for r in run.table("hessian_density").to_pylist() if r["step"] == step
    }
    at = [rows[f"eigenvalue[{i}]"] for i in range(64)]
    density = [rows[f"density[{i}]"] for i in range(64)]
    total = sum(d * (b - a) for a, b, d in zip(at, at[1:], density, strict=False))
    assert at == sorted(at) and at[0] < 1 and at[-1] > 16
    assert total == pytest.approx(1.0, abs=0.35)  # 64 points of a spectrum of four lines


def test_a_fixed_probe_batch_of_the_users_own(run_dir):
    model = nn.Linear(3, 1, bias=False)
    sgd = torch.optim.SGD(model.parameters(), 1e-3)
    probe = torch.diag(torch.tensor([1.0, 2.0, 3.0]))

    def loss_fn(model, batch):
        return 0.5 * model(batch).square().sum()

    names = ["sharpness", "critical_sharpness", "grad_noise_scale"]
    with thalweg.record(
        model, sgd, run_dir, loss_fn=loss_fn, probe=probe, overhead=1e9, instruments=names
    ):
        for _ in range(8):
            sgd.zero_grad()
            model(torch.randn(4, 3)).square().mean().backward()
            sgd.step()
    run = thalweg.Run(run_dir)
    values = run.series("sharpness")[1]
    assert len(values) >= 3 and values.tolist() == pytest.approx([9.0] * len(values), rel=2e-3)
    assert "micro-batches" in run.table("grad_noise_scale").to_pylist()[0]["status"]


def test_bad_probes_are_refused(run_dir):
    model = nn.Linear(3, 1)
    with pytest.raises(TypeError, match="loss_fn must be callable, got int"):
        with thalweg.record(model, out=run_dir, loss_fn=3, probe=1):
            pass
    with pytest.raises(TypeError, match="needs the one model"):
        with thalweg.record([model], out=run_dir, loss_fn=lambda m, b: 0, probe=1):
            pass
    assert not run_dir.exists()


def test_what_the_budget_never_allowed_says_so(run_dir):
    model = nn.Linear(4, 1)
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    names = ["loss", "sharpness", "hessian_trace"]
    with thalweg.record(model, sgd, run_dir, overhead=1e-6, instruments=names):
        for _ in range(20):
            sgd.zero_grad()
            model(torch.randn(8, 4)).square().mean().backward()
            sgd.step()
    run = thalweg.Run(run_dir)
    for name in ("sharpness", "hessian_trace"):
        rows = run.table(name).to_pylist()
        assert [r["status"] for r in rows] == ["skipped:budget"] and math.isnan(rows[0]["value"])
    event = next(e for e in run.events if e["event"] == "skipped")
    assert "sharpness, hessian_trace never fitted 0% of the time of 20 steps" in event["message"]
