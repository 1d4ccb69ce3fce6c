import itertools
import json

import pytest

from thalweg.recorder.events import EventLog
from thalweg.recorder.measurements import MeasurementWriter
from thalweg.recorder.run import Run

SHAPES = {"a.weight": [4, 4], "b.weight": [4, 4], "c.weight": [4, 4], "c.bias": [4]}


@pytest.fixture
def make_run(tmp_path):
    """A run made of series: (instrument, part) to values at steps 1, 2, … or to {step: value}.

    ``ends``: the status of a last row after them.
    """

    made = itertools.count()

    def make(series, *, events=(), uncertainty=None, ends=None, **header):
        path = tmp_path / f"run{next(made)}"
        path.mkdir()
        facts = {
            "schema_version": 1,
            "kind": "thalweg.run",
            "optimizers": [
                {
                    "part": "",
                    "class": "SGD",
                    "groups": [{"part": "", "lr": 0.1, "params": [*SHAPES]}],
                }
            ],
            "models": [{"label": "", "tensors": SHAPES, "frozen": []}],
        } | header
        (path / "run.json").write_text(json.dumps(facts))
        writer = MeasurementWriter(path / "measurements", rank=0, segment=0)
        for (instrument, part), values in series.items():
            rows = values if isinstance(values, dict) else dict(enumerate(values, start=1))
            code = writer.series(instrument, part)
            for step, value in rows.items():
                error = None if uncertainty is None else [uncertainty]
                writer.append(step, step * 0.1, [code], [float(value)], error)
            if ends is not None:
                writer.append(max(rows) + 1, 1.0, [code], [float("nan")], None, [ends])
        writer.close()
        log = EventLog(path, rank=0)
        for event in events:
            log.write(**({"time_s": 0.0} | event))
        log.close()
        return Run(path)

    return make
