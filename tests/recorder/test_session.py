"""What the recorder measures in the situations in which recorders go wrong."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import thalweg
from thalweg.errors import ThalwegError
from thalweg.recorder import Recording

EVERYTHING = 1e6  # an overhead that affords every instrument on every step


def _digits():
    torch.manual_seed(0)
    return torch.randn(64, 8), torch.randint(0, 3, (64,))


def _at(run, instrument, part="", step=None):
    steps, values = run.series(instrument, part)
    return dict(zip(steps.tolist(), values.tolist(), strict=True))[step]


def test_norms_against_a_hand_written_loop(run_dir):
    x, y = _digits()
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    sgd = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    names = [n for n, _ in model.named_parameters()]
    want = []
    init = [p.detach().clone() for p in model.parameters()]
    with thalweg.record(model, sgd, run_dir, overhead=EVERYTHING):
        for _ in range(6):
            sgd.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            raw = torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item()
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            grads = [p.grad.clone() for p in model.parameters()]
            before = [p.detach().clone() for p in model.parameters()]
            sgd.step()
            now = [p.detach() for p in model.parameters()]
            want.append((loss.item(), raw, grads, before, [p.clone() for p in now]))
    run = thalweg.Run(run_dir)

    def flat(ts):
        return torch.cat([t.flatten() for t in ts])

    for step, (loss, raw, grads, before, now) in enumerate(want, start=1):
        assert _at(run, "loss", step=step) == pytest.approx(loss)
        assert _at(run, "grad_norm", step=step) == pytest.approx(
            flat(grads).norm().item(), rel=1e-5
        )
        if step > 1:  # the optimizer is not known before its first step
            assert _at(run, "grad_norm_preclip", step=step) == pytest.approx(raw, rel=1e-5)
        moved = flat(now) - flat(before)
        assert _at(run, "update_norm", step=step) == pytest.approx(moved.norm().item(), rel=1e-5)
        ratio = (moved.norm() / flat(before).norm()).item()
        assert _at(run, "update_ratio", step=step) == pytest.approx(ratio, rel=1e-5)
        assert _at(run, "weight_norm", step=step) == pytest.approx(
            flat(now).norm().item(), rel=1e-6
        )
        far = (flat(now) - flat(init)).norm().item()
        assert _at(run, "distance_from_init", step=step) == pytest.approx(far, rel=1e-5)
        for name, g in zip(names, grads, strict=True):
            assert _at(run, "grad_norm", name, step) == pytest.approx(g.norm().item(), rel=1e-5)
    assert run.series("lr")[1].tolist() == [0.5]


def test_accumulation_records_the_mean_loss_once_per_step(run_dir):
    x, y = _digits()
    model = nn.Linear(8, 3)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    means = []
    with thalweg.record(model, sgd, run_dir, overhead=EVERYTHING):
        for _ in range(3):
            total = 0.0
            for xb, yb in zip(x.chunk(4), y.chunk(4), strict=True):
                loss = F.cross_entropy(model(xb), yb) / 4
                loss.backward()
                total += loss.item()
            full = torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters()))
            means.append((total, torch.cat([g.flatten() for g in full]).norm().item()))
            sgd.step()
            sgd.zero_grad()
    run = thalweg.Run(run_dir)
    assert run.series("loss")[0].tolist() == [1, 2, 3]
    for step, (mean, norm) in enumerate(means, start=1):
        assert _at(run, "loss", step=step) == pytest.approx(mean)
        assert _at(run, "grad_norm", step=step) == pytest.approx(norm, rel=1e-5)


@pytest.mark.parametrize("fused", [False, True])
def test_gradient_scaler_values_are_unscaled_and_skips_are_said(run_dir, fused):
    x, y = _digits()
    model = nn.Linear(8, 3)
    adam = torch.optim.Adam(model.parameters(), lr=0.01, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    losses, gradients = [], []
    with thalweg.record(model, adam, run_dir, overhead=EVERYTHING):
        for i in range(5):
            adam.zero_grad()
            loss = F.cross_entropy(model(x), y)
            losses.append(loss.item())
            true = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
            gradients.append(torch.cat([g.flatten() for g in true]).norm().item())
            scaler.scale(loss).backward()
            if i == 2:
                model.weight.grad[0, 0] = float("inf")
            scaler.step(adam)
            scaler.update()
    run = thalweg.Run(run_dir)
    assert run.series("loss")[1].tolist() == pytest.approx(losses)
    table = run.table("grad_norm", "").to_pylist()
    assert [r["step"] for r in table] == [1, 2, 3, 4, 5]
    for row in table:
        if row["step"] == 3:
            assert row["status"].startswith("skipped:") and math.isnan(row["value"])
        else:
            assert row["value"] == pytest.approx(gradients[row["step"] - 1], rel=1e-5)
    assert _at(run, "grad_norm_preclip", step=2) == pytest.approx(gradients[1], rel=1e-5)
    assert any(e["event"] == "skipped step" and e["step"] == 3 for e in run.events)


def test_clipping_after_unscaling(run_dir):
    x, y = _digits()
    model = nn.Linear(8, 3)
    sgd = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    with thalweg.record(model, sgd, run_dir, overhead=EVERYTHING):
        for _ in range(3):
            sgd.zero_grad()
            scaler.scale(F.cross_entropy(model(x), y)).backward()
            scaler.unscale_(sgd)
            raw = nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
            scaler.step(sgd)
            scaler.update()
    run = thalweg.Run(run_dir)
    assert _at(run, "grad_norm_preclip", step=3) == pytest.approx(float(raw), rel=1e-5)
    assert _at(run, "grad_norm", step=3) == pytest.approx(1e-3, rel=1e-3)


def test_two_optimizers_each_get_their_own_loss_and_series(run_dir):
    a, b = nn.Linear(4, 2), nn.Sequential(nn.Linear(2, 2), nn.Tanh())
    oa, ob = torch.optim.SGD(a.parameters(), 0.1), torch.optim.Adam(b.parameters(), 0.01)
    x = torch.randn(8, 4)
    with thalweg.record([a, b], [oa, ob], run_dir, overhead=EVERYTHING):
        for _ in range(4):
            oa.zero_grad()
            la = a(x).square().mean()
            la.backward()
            oa.step()
            ob.zero_grad()
            lb = b(a(x).detach()).square().mean() + 10
            lb.backward()
            ob.step()
    run = thalweg.Run(run_dir)
    assert run.steps.tolist() == [1, 2, 3, 4]
    assert run.series("loss")[1][-1] == pytest.approx(la.item())
    assert run.series("loss", "optimizer1")[1][-1] == pytest.approx(lb.item())
    assert {"Linear.weight", "Sequential.0.bias"} <= set(run.parts("grad_norm"))
    assert [o["class"] for o in run.header["optimizers"]] == ["SGD", "Adam"]


def test_one_backward_shared_by_two_optimizers(run_dir):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    first = torch.optim.SGD(model[0].parameters(), 0.1)
    second = torch.optim.SGD(model[1].parameters(), 0.1)
    with thalweg.record(model, [first, second], run_dir, overhead=EVERYTHING):
        for _ in range(3):
            loss = model(torch.ones(2, 4)).square().mean()
            loss.backward()
            for optimizer in (first, second):
                optimizer.step()
                optimizer.zero_grad()
    run = thalweg.Run(run_dir)
    both = run.series("loss")[1].tolist(), run.series("loss", "optimizer1")[1].tolist()
    assert both[0] == both[1] and len(both[0]) == 3


def test_param_groups_schedulers_tied_and_frozen_weights(run_dir):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(7, 4)
            self.body = nn.Linear(4, 4)
            self.head = nn.Linear(4, 7, bias=False)
            self.head.weight = self.embed.weight
            self.body.bias.requires_grad_(False)

        def forward(self, t):
            return self.head(self.body(self.embed(t)))

    model = Tied()
    groups = [{"params": [model.embed.weight]}, {"params": model.body.parameters(), "lr": 0.5}]
    sgd = torch.optim.SGD(groups, lr=0.1)
    decay = torch.optim.lr_scheduler.StepLR(sgd, 1, gamma=0.5)
    tokens = torch.arange(7)
    with thalweg.record(model, sgd, run_dir, overhead=EVERYTHING):
        for _ in range(3):
            sgd.zero_grad()
            F.cross_entropy(model(tokens), tokens).backward()
            sgd.step()
            decay.step()
    run = thalweg.Run(run_dir)
    assert run.series("lr")[1].tolist() == [0.1, 0.05, 0.025]
    assert run.series("lr", "group1")[1].tolist() == [0.5, 0.25, 0.125]
    assert run.parts("grad_norm") == ["", "body.bias", "body.weight", "embed.weight"]
    assert run.series("update_norm", "body.bias")[1].tolist() == [0, 0, 0]
    snapshot = run.weights()[3]
    assert torch.equal(snapshot["embed.weight"], model.embed.weight)
    assert set(run.sketches()) == {"", "group1"}


def test_lbfgs_closure_reads_the_loss_and_gradient_of_the_start_of_the_step(run_dir):
    model = nn.Linear(3, 1)
    lbfgs = torch.optim.LBFGS(model.parameters(), max_iter=8)
    x, y = torch.randn(16, 3), torch.randn(16, 1)
    starts = []

    def closure():
        lbfgs.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        return loss

    with thalweg.record(model, lbfgs, run_dir, overhead=EVERYTHING):
        for _ in range(3):
            loss = F.mse_loss(model(x), y)
            grads = torch.autograd.grad(loss, list(model.parameters()))
            starts.append((loss.item(), torch.cat([g.flatten() for g in grads]).norm().item()))
            lbfgs.step(closure)
    run = thalweg.Run(run_dir)
    assert run.series("loss")[1].tolist() == pytest.approx([s for s, _ in starts], rel=1e-4)
    assert run.series("grad_norm")[1].tolist() == pytest.approx([g for _, g in starts], rel=1e-4)


def test_validation_loss_is_the_sample_mean_with_its_error(run_dir):
    x, y = _digits()
    model = nn.Sequential(nn.Linear(8, 3), nn.Dropout(0.5))
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    criterion = nn.CrossEntropyLoss()
    with thalweg.record(model, sgd, run_dir):
        for _ in range(2):
            model.train()
            sgd.zero_grad()
            criterion(model(x), y).backward()
            sgd.step()
            model.eval()
            with torch.no_grad():
                parts = [(criterion(model(x[i]), y[i]).item(), len(i)) for i in (
                    torch.arange(40), torch.arange(40, 60), torch.arange(60, 64))]  # fmt: skip
    rows = thalweg.Run(run_dir).table("val_loss").to_pylist()
    assert [r["step"] for r in rows] == [1, 2]
    mean = sum(v * n for v, n in parts) / 64
    assert rows[1]["value"] == pytest.approx(mean, rel=1e-5)
    spread = sum(n * (v - mean) ** 2 for v, n in parts) / 64
    assert rows[1]["uncertainty"] == pytest.approx(math.sqrt(spread / 2), rel=1e-3)


def test_training_in_eval_mode_is_not_mistaken_for_validation(run_dir):
    x, y = _digits()
    model = nn.Linear(8, 3).eval()
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    with thalweg.record(model, sgd, run_dir):
        for _ in range(3):
            sgd.zero_grad()
            F.cross_entropy(model(x), y).backward()
            sgd.step()
    assert "val_loss" not in thalweg.Run(run_dir).instruments


def test_activations_and_dead_units(run_dir):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 3)
            self.fc = nn.Linear(4 * 36, 8)
            self.act = nn.ReLU()
            self.out = nn.Linear(8, 2)

        def forward(self, x):
            h = F.relu(self.conv(x))
            return self.out(self.act(self.fc(h.flatten(1))))

    net = Net()
    with torch.no_grad():
        net.fc.bias[:2] = -1e3  # two of eight units are dead
        net.conv.bias[3] = -1e3  # one of four channels
    sgd = torch.optim.SGD(net.parameters(), 1e-3)
    x = torch.randn(5, 1, 8, 8)
    with thalweg.record(net, sgd, run_dir, overhead=EVERYTHING):
        for _ in range(3):
            sgd.zero_grad()
            out = net(x)
            out.square().mean().backward()
            sgd.step()
    run = thalweg.Run(run_dir)
    assert run.parts("dormant_fraction") == ["act", "relu"]
    assert run.series("dormant_fraction", "act")[1].tolist() == [0.25, 0.25]
    assert run.series("dormant_fraction", "relu")[1].tolist() == [0.25, 0.25]
    assert run.parts("activation_rms") == ["act", "conv", "fc", "out"]
    assert run.series("activation_rms", "out")[1][-1] == pytest.approx(
        out.square().mean().sqrt().item(), rel=1e-5
    )


def test_compiled_models_are_recorded_and_what_is_not_seen_is_said(run_dir):
    x, y = _digits()
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    compiled = torch.compile(model, backend="eager")
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    with thalweg.record(model, sgd, run_dir, overhead=EVERYTHING):
        for _ in range(4):
            sgd.zero_grad()
            loss = F.cross_entropy(compiled(x), y)
            loss.backward()
            sgd.step()
    run = thalweg.Run(run_dir)
    assert run.series("loss")[1][-1] == pytest.approx(loss.item())
    assert len(run.series("grad_norm", "0.weight")[0]) == 4
    rows = run.table("activation_rms").to_pylist()
    assert [r["status"][:25] for r in rows] == ["unsupported:torch.compile"]
    assert run.header["loss_closure"].startswith("unsupported:torch.compile")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


def test_low_precision_and_double_weights(run_dir):
    model = nn.ModuleList(
        [nn.Linear(4, 4).to(torch.bfloat16), nn.Linear(4, 4), nn.Linear(4, 4).double()]
    )
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    with thalweg.record(model, sgd, run_dir, overhead=EVERYTHING):
        for _ in range(3):
            sgd.zero_grad()
            sum(m(torch.ones(1, 4, dtype=m.weight.dtype)).sum().float() for m in model).backward()
            sgd.step()
    run = thalweg.Run(run_dir)
    for i in range(3):
        # d(sum of outputs)/dW is all ones for an input of ones: norm 4.
        assert run.series("grad_norm", f"{i}.weight")[1].tolist() == pytest.approx([4.0] * 3)


def test_nan_weights_are_rows_not_errors(run_dir):
    model = nn.Linear(2, 1)
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    with thalweg.record(model, sgd, run_dir, overhead=EVERYTHING):
        for i in range(4):
            sgd.zero_grad()
            model(torch.ones(1, 2)).sum().backward()
            if i == 2:
                model.weight.grad.fill_(float("nan"))
            sgd.step()
    rows = thalweg.Run(run_dir).table("weight_norm", "weight").to_pylist()
    assert [r["status"] for r in rows] == ["ok", "ok", "nonfinite", "nonfinite"]


def test_sparse_gradients_and_missing_gradients(run_dir):
    table, unused = nn.Embedding(10, 3, sparse=True), nn.Linear(2, 2)
    sgd = torch.optim.SGD([*table.parameters(), *unused.parameters()], 0.1)
    with thalweg.record([table, unused], sgd, run_dir, overhead=EVERYTHING):
        for _ in range(2):
            sgd.zero_grad()
            table(torch.tensor([1, 1, 4])).sum().backward()
            sgd.step()
    run = thalweg.Run(run_dir)
    # Row 1 is hit twice (gradient 2), row 4 once.
    assert run.series("grad_norm")[1][-1] == pytest.approx(math.sqrt(3 * (4 + 1)))


def test_user_figures_and_their_errors(run_dir):
    model = nn.Linear(2, 1)
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    with thalweg.record(model, sgd, run_dir) as run:
        assert isinstance(run, Recording)
        model(torch.ones(1, 2)).sum().backward()
        sgd.step()
        run.log({"val_acc": torch.tensor(0.5), "epoch": 1})
        run.log({"val_acc": 0.75}, step=7)
        with pytest.raises(TypeError, match="'name' must be a number, got str"):
            run.log({"name": "resnet"})
        assert run.step == 1
    read = thalweg.Run(run_dir)
    assert read.series("user/val_acc")[0].tolist() == [1, 7]
    assert read.series("user/val_acc")[1].tolist() == [0.5, 0.75]


def test_bad_arguments(run_dir, tmp_path):
    model = nn.Linear(2, 1)
    with pytest.raises(TypeError, match="model must be a Module"), thalweg.record("net"):
        pass
    with pytest.raises(ThalwegError, match=r"unknown instrument 'los'; nearest: 'loss'"):
        with thalweg.record(model, out=run_dir, instruments=["los"]):
            pass
    with pytest.raises(ValueError, match="overhead must be a positive"):
        with thalweg.record(model, out=run_dir, overhead=0):
            pass
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ThalwegError, match="is not a run"):
        with thalweg.record(model, out=tmp_path):
            pass
    assert (tmp_path / "notes.txt").read_text() == "mine"
    with thalweg.record(model, out=run_dir):
        with pytest.raises(ThalwegError, match="being recorded already"):
            with thalweg.record(model, out=tmp_path / "b"):
                pass
    with pytest.raises(ThalwegError, match="holds a run already"):
        with thalweg.record(model, out=run_dir):
            pass
    with thalweg.record(model, out=run_dir, overwrite=True):
        pass
    assert thalweg.Run(run_dir).steps.tolist() == []


def test_resume_adds_a_segment_that_continues_the_steps(run_dir):
    model = nn.Linear(2, 1)
    for resume in (False, True):
        sgd = torch.optim.SGD(model.parameters(), 0.1)
        with thalweg.record(model, sgd, run_dir, resume=resume):
            for _ in range(3):
                sgd.zero_grad()
                model(torch.ones(1, 2)).sum().backward()
                sgd.step()
    run = thalweg.Run(run_dir)
    assert run.series("loss")[0].tolist() == [1, 2, 3, 4, 5, 6]
    assert [(s["first_step"], s["last_step"]) for s in run.header["segments"]] == [(0, 3), (3, 6)]
    with pytest.raises(ThalwegError, match="no run at"):
        with thalweg.record(model, out=run_dir / "none", resume=True):
            pass


def test_an_exception_ends_the_run_as_failed_and_passes_through(run_dir):
    model = nn.Linear(2, 1)
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(ZeroDivisionError):
        with thalweg.record(model, sgd, run_dir):
            model(torch.ones(1, 2)).sum().backward()
            sgd.step()
            1 / 0  # noqa: B018
    run = thalweg.Run(run_dir)
    assert run.header["status"] == "failed"
    assert run.series("loss")[0].tolist() == [1]
    assert any("ZeroDivisionError" in str(e.get("error")) for e in run.events)


def test_a_fault_of_the_recorder_never_reaches_the_training(run_dir, monkeypatch, capsys):
    monkeypatch.delenv("THALWEG_DEBUG")
    monkeypatch.setattr("thalweg.recorder.tracked.grad_norm", lambda params: 1 / 0)
    model = nn.Linear(2, 1)
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    with thalweg.record(model, sgd, run_dir, overhead=EVERYTHING, quiet=False):
        for _ in range(3):
            model(torch.ones(1, 2)).sum().backward()
            sgd.step()
    run = thalweg.Run(run_dir)
    assert len(run.series("loss")[0]) == 3
    assert "recording of norms stops" in capsys.readouterr().err
    assert run.table("grad_norm").to_pylist()[0]["status"].startswith("unsupported:")


def _fail(*args, **kwargs):
    raise ValueError("odd tensor")


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("activations.activation_rms", ("activation_rms", "unsupported:ValueError")),
        ("loss_tape.LossTape._hold", ("loss_closure", "ValueError")),
        ("loss_tape.LossTape._write", ("loss_closure", "cannot be written down: ValueError")),
    ],
)
def test_a_fault_inside_a_hook_never_reaches_the_training(run_dir, monkeypatch, where, said):
    monkeypatch.delenv("THALWEG_DEBUG")
    monkeypatch.setattr(f"thalweg.recorder.{where}", _fail)
    x, y = _digits()
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    sgd = torch.optim.SGD(model.parameters(), lr=0.5)
    with thalweg.record(model, sgd, run_dir, overhead=EVERYTHING):
        for _ in range(6):
            sgd.zero_grad()
            F.cross_entropy(model(x), y).backward()
            sgd.step()
    run = thalweg.Run(run_dir)
    assert run.series("loss")[0].tolist() == [1, 2, 3, 4, 5, 6]
    name, status = said
    if name == "loss_closure":
        assert status in run.header[name]
    else:
        assert any(status in s for s in run.table(name)["status"].to_pylist())


def test_torchscript_and_tracing_still_work_inside(run_dir):
    with thalweg.record(out=run_dir):
        scripted = torch.jit.script(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
        loss = torch.jit.script(nn.CrossEntropyLoss())
        assert torch.isfinite(loss(scripted(torch.ones(3, 2)), torch.tensor([0, 1, 0])))
        traced = torch.fx.symbolic_trace(nn.CrossEntropyLoss())
        assert torch.isfinite(traced(torch.randn(3, 2), torch.tensor([0, 1, 0])))


def test_a_model_first_called_inside_the_step_is_found(run_dir):
    model = nn.Linear(3, 1)
    lbfgs = torch.optim.LBFGS(model.parameters())

    def closure():
        lbfgs.zero_grad()
        loss = F.mse_loss(model(torch.ones(2, 3)), torch.zeros(2, 1))
        loss.backward()
        return loss

    with thalweg.record(out=run_dir, overhead=EVERYTHING):  # neither model nor optimizer given
        for _ in range(3):
            lbfgs.step(closure)
    run = thalweg.Run(run_dir)
    assert run.parts("grad_norm") == ["", "bias", "weight"]
    assert run.header["models"][0]["class"] == "Linear"
    assert run.series("loss")[0].tolist() == run.series("grad_norm")[0].tolist() == [1, 2, 3]


def test_the_header_says_what_the_doctor_needs(run_dir):
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 1))
    model[0].bias.requires_grad_(False)
    sgd = torch.optim.SGD([*model[0].parameters(), *model[2].parameters()], 0.1)
    x, y = torch.ones(5, 3), torch.ones(5, 1)
    with thalweg.record(model, sgd, run_dir):
        for _ in range(4):
            sgd.zero_grad()
            F.mse_loss(model(x), y).backward()
            sgd.step()
    header = thalweg.Run(run_dir).header
    assert header["models"][0]["frozen"] == ["0.bias"]
    assert header["outside_optimizers"] == [
        {"name": "1.weight", "gradient": True},
        {"name": "1.bias", "gradient": True},
    ]
    assert header["loss_calls"] == [
        {"call": "mse_loss", "inputs": [[5, 1], [5, 1]], "outputs": [[]]}
    ]


def test_a_pause_is_not_recorded(run_dir):
    model = nn.Linear(3, 1)
    sgd = torch.optim.SGD(model.parameters(), 0.1)

    def step():
        sgd.zero_grad()
        model(torch.ones(2, 3)).square().mean().backward()
        sgd.step()

    backward = torch.autograd.backward
    with thalweg.record(model, sgd, run_dir, overhead=EVERYTHING) as run:
        for _ in range(3):
            step()
        with run.paused():
            assert torch.autograd.backward is backward
            step()
        step()
    assert thalweg.Run(run_dir).series("loss")[0].tolist() == [1, 2, 3, 4]


def test_micro_batches_do_not_multiply_the_layers(run_dir):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 1)

        def forward(self, x):
            return self.b(F.relu(F.relu(self.a(x))))  # two layers of units, in one module

    net = Net()
    sgd = torch.optim.SGD(net.parameters(), 0.1)
    with thalweg.record(net, sgd, run_dir, overhead=EVERYTHING):
        for _ in range(3):
            sgd.zero_grad()
            for _ in range(4):
                net(torch.ones(2, 3)).mean().backward()
            sgd.step()
    assert thalweg.Run(run_dir).parts("dormant_fraction") == ["relu", "relu1"]


def test_a_jacobian_measured_between_two_steps_stops_no_recording(run_dir):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with thalweg.record(model, optimizer, run_dir, overhead=1e9):
        for _ in range(4):
            thalweg.instruments.jacobian_pc1(model, torch.ones(5, 3))
            optimizer.zero_grad()
            model(torch.ones(5, 3)).square().mean().backward()
            optimizer.step()
    run = thalweg.Run(run_dir)
    for part in ("0", "1", "2"):
        table = run.table("activation_rms", part)
        assert len(table) > 1 and set(table["status"].to_pylist()) == {"ok"}
