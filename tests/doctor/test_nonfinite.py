import math

from thalweg.doctor.nonfinite import nonfinite

NAN, INF = math.nan, math.inf


def test_the_layer_recorded_on_the_step_is_the_source(make_run):
    run = make_run(
        {
            ("loss", ""): [1.0] * 9 + [NAN] * 5,
            ("activation_rms", "a"): {8: 1.0, 10: 1.0, 12: NAN},
            ("activation_rms", "b"): {8: 1.0, 10: NAN, 12: NAN},
            ("activation_rms", "c"): {8: 1.0, 10: NAN, 12: NAN},
            ("weight_norm", "a.weight"): {8: 1.0, 10: NAN},
        }
    )
    (found,) = nonfinite(run)
    assert found.severity == "problem" and found.symptom.endswith("first in 'b'")
    assert (
        "step 10" in found.evidence[1].text and "'a' before it is finite" in found.evidence[1].text
    )
    assert found.evidence[1].series == ("activation_rms", "b")


def test_without_a_record_on_the_step_the_source_is_not_guessed(make_run):
    run = make_run(
        {
            ("loss", ""): [1.0] * 9 + [NAN] * 5,
            ("activation_rms", "a"): {8: 1.0, 12: NAN},
            ("weight_norm", "a.weight"): {8: 1.0, 12: NAN},
        }
    )
    (found,) = nonfinite(run)
    assert found.symptom == "values are not finite from step 10 on"
    assert "at or before step 10, layer outputs were recorded at 8 and 12" in found.evidence[1].text


def test_the_loss_function_and_its_backward(make_run):
    (found,) = nonfinite(
        make_run({("loss", ""): [1.0, 1.0, INF], ("activation_rms", "a"): [1.0, 1.0, 1.0]})
    )
    assert found.symptom.endswith("first in the loss function")


def test_one_gradient_that_is_not_finite_while_the_loss_is(make_run):
    run = make_run(
        {
            ("loss", ""): [1.0, 1.0, 1.0, NAN],
            ("grad_norm", "a.weight"): [1.0, 1.0, NAN, NAN],
            ("grad_norm", "b.weight"): [1.0, 1.0, NAN, NAN],
            ("grad_norm", "c.weight"): [1.0, 1.0, 1.0, NAN],
        }
    )
    (found,) = nonfinite(run)
    assert found.symptom == "values are not finite from step 3 on, first in 'b.weight'"


def test_a_weight_that_overflows_in_the_step(make_run):
    run = make_run(
        {
            ("loss", ""): [1.0, 1.0, 1.0, NAN],
            ("grad_norm", "a.weight"): [1.0, 1.0, 1.0],
            ("weight_norm", "a.weight"): [1.0, 1.0, INF],
        }
    )
    assert nonfinite(run)[0].symptom.endswith("first in 'a.weight'")


def test_growth_before_is_shown(make_run):
    run = make_run(
        {
            ("loss", ""): [1.0] * 7 + [NAN],
            ("grad_norm", "a.weight"): [1.0] * 7,
            ("grad_norm", "b.weight"): [1.0] * 6 + [500.0],
        }
    )
    assert any("'b.weight' was 500 times its median" in e.text for e in nonfinite(run)[0].evidence)


def test_finite_runs_and_skipped_steps_are_no_finding(make_run):
    assert nonfinite(make_run({("loss", ""): [1.0, 0.5], ("user/x", ""): [NAN]})) == []
