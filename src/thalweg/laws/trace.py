"""What a forward pass really does; see ``thalweg.numerics.forward_trace``, where it lives."""

from thalweg.numerics.forward_trace import (
    Op,
    Trace,
    as_double,
    call,
    double_precision,
    outputs_of,
    prepared,
    trace_forward,
)

__all__ = [
    "Op",
    "Trace",
    "as_double",
    "call",
    "double_precision",
    "outputs_of",
    "prepared",
    "trace_forward",
]
