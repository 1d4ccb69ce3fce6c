import torch
from torch import nn

from thalweg.numerics.forward_trace import as_double, outputs_of, prepared, trace_forward


def test_calls_come_in_order_with_their_modules():
    model = prepared(nn.Sequential(nn.Linear(3, 2), nn.Sequential(nn.ReLU(inplace=True))))
    trace = trace_forward(model, torch.randn(4, 3).double())
    assert [(op.name, op.module) for op in trace.ops] == [("linear", "0"), ("relu", "1.0")]
    # Written in place, a tensor is another node.
    assert trace.ops[1].reads[0] == trace.ops[0].writes[0] != trace.ops[1].writes[0]
    assert trace.output_nodes == list(trace.ops[1].writes)
    assert trace.name(trace.ops[0].args[1]) == "0.weight"


def test_casts_to_single_precision_are_undone():
    class Cast(nn.Module):
        def forward(self, x):
            return x.to(torch.float32), x.float(), x.softmax(-1, dtype=torch.float32)

    trace = trace_forward(prepared(Cast()), torch.randn(4, 3).double())
    assert {t.dtype for t in trace.outputs} == {torch.float64}


def test_batch_norms_use_batch_statistics_and_leave_no_trace():
    model = nn.BatchNorm1d(2).eval()
    copied = prepared(model)
    before = {n: t.clone() for n, t in copied.state_dict().items()}
    out = copied(torch.randn(9, 2).double() + 5)
    assert out.mean().abs() < 1e-12 and not model.training
    assert all(torch.equal(t, before[n]) for n, t in copied.state_dict().items())


def test_outputs_and_inputs_of_any_structure():
    a, b = torch.ones(2), torch.ones(3)
    assert outputs_of({"logits": a, "hidden": b})[0] is a
    assert len(outputs_of((a, [b], torch.ones(1).long(), None))) == 2
    moved = as_double({"x": a, "ids": torch.ones(1).long()})
    assert moved["x"].dtype == torch.float64 and moved["ids"].dtype == torch.int64
