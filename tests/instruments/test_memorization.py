import pytest
import torch

import thalweg
from thalweg.instruments import Memorization, MemorizationTracker

TRUE = torch.tensor([0, 1, 2, 0, 1, 2])
NOISY = torch.tensor([0, 1, 2, 1, 2, 0])  # the last three are wrong


def test_shares_by_hand():
    tracker = MemorizationTracker(TRUE, NOISY)
    figures = tracker.after_epoch(torch.tensor([0, 1, 0, 0, 2, 1]))
    shares = {name: share.item() for name, share in figures.items()}
    assert shares == {
        "wrong_label_correct": pytest.approx(1 / 3),
        "wrong_label_memorised": pytest.approx(1 / 3),
        "wrong_label_other": pytest.approx(1 / 3),
        "clean_label_correct": pytest.approx(2 / 3),
    }


def test_two_phases_and_their_peak():
    tracker = MemorizationTracker(TRUE, NOISY)
    for predictions in (NOISY * 0, TRUE, TRUE, NOISY):
        tracker.after_epoch(predictions)
    history = tracker.history()
    assert isinstance(history, Memorization) and history.peak == 1
    assert history.correct_on_wrong.tolist() == pytest.approx([1 / 3, 1, 1, 0])
    assert history.memorised.tolist() == pytest.approx([1 / 3, 0, 0, 1])
    assert history.correct_on_clean.tolist() == pytest.approx([1 / 3, 1, 1, 1])


def test_batches_in_any_order_are_the_whole():
    whole, parts = MemorizationTracker(TRUE, NOISY), MemorizationTracker(TRUE, NOISY)
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    for rows in torch.tensor([5, 0, 3, 1, 2, 4]).split(4):
        parts.after_step(logits[rows], rows)
    assert parts.after_epoch() == whole.after_epoch(logits.argmax(1))


def test_an_epoch_without_some_examples_and_one_without_any():
    tracker = MemorizationTracker(TRUE, NOISY)
    tracker.after_step(TRUE[3:5], torch.tensor([3, 4]))
    figures = tracker.after_epoch()
    assert figures["wrong_label_correct"] == 1 and figures["clean_label_correct"].isnan()
    with pytest.raises(ValueError, match="no wrongly labelled example has a prediction"):
        tracker.after_epoch()


def test_in_a_recording(run_dir):
    model = torch.nn.Linear(2, 3)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    tracker = MemorizationTracker(TRUE, NOISY)
    with thalweg.record(model, optimizer, run_dir) as recording:
        for _ in range(3):
            model(torch.ones(6, 2)).square().sum().backward()
            optimizer.step()
            recording.log(tracker.after_epoch(TRUE))
    table = thalweg.Run(run_dir).table("user/wrong_label_correct", "")
    assert table["value"].to_pylist() == [1.0] * 3


def test_errors():
    with pytest.raises(ValueError, match="one length, got"):
        MemorizationTracker(TRUE, NOISY[:5])
    with pytest.raises(ValueError, match="no label is wrong"):
        MemorizationTracker(TRUE, TRUE)
    tracker = MemorizationTracker(TRUE, NOISY)
    with pytest.raises(ValueError, match="one prediction for each of 6 indices, got 5"):
        tracker.after_epoch(TRUE[:5])
    with pytest.raises(ValueError, match="call after_epoch first"):
        tracker.history()
