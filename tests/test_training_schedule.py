"""Warm-up, milestones and lengths, by hand."""

from dataclasses import replace

import pytest

from rankdet.errors import UserError
from rankdet.training.schedule import Schedule

PLAIN = Schedule(
    lr=0.8,
    lr_batch=8,
    unit="images",
    length=80,
    milestones=[40, 60],
    gamma=0.1,
    warmup_steps=4,
    warmup_from=0.25,
    monitor_every=16,
)


def test_every_step_of_a_short_training():
    """Batch 8: 10 steps, lr 0.8. Warm-up from a quarter in four steps: 0.25, 0.4375, 0.625, 0.8125 of it, then all.

    The milestones at 40 and 60 images are steps 5 and 7.5, which counts from the first step that begins beyond: 8.
    """
    run = PLAIN.for_run(num_images=1000, batch_size=8)
    assert (run.total_steps, run.milestones, run.monitor_steps) == (10, (5, 8), 2)
    by_hand = [0.2, 0.35, 0.5, 0.65, 0.8, 0.08, 0.08, 0.08, 0.008, 0.008]
    assert [run(step) for step in range(10)] == pytest.approx(by_hand)


def test_a_milestone_during_warmup_multiplies():
    """Warm-up over 4 steps, milestone at step 2: 0.625 * 0.1 of lr there."""
    run = replace(PLAIN, milestones=[16]).for_run(1000, 8)
    assert [run(step) for step in range(5)] == pytest.approx([0.2, 0.35, 0.05, 0.065, 0.08])


def test_no_warmup():
    run = replace(PLAIN, warmup_steps=0).for_run(1000, 8)
    assert run(0) == pytest.approx(0.8)


@pytest.mark.parametrize(("batch", "steps", "lr"), [(1, 80, 0.1), (4, 20, 0.4), (8, 10, 0.8), (16, 5, 1.6)])
def test_another_batch_sees_as_many_images_at_a_scaled_rate(batch, steps, lr):
    run = PLAIN.for_run(1000, batch)
    assert (run.total_steps, run.lr) == (steps, pytest.approx(lr))
    assert run.total_steps * batch == 80


def test_epochs_count_in_images_of_the_training_set():
    """50 images, batch 8: 3 epochs are 150 images, 18.75 steps, so 19; 1 epoch 6.25, so 7; 2 epochs 12.5, so 13."""
    run = replace(PLAIN, unit="epochs", length=3, milestones=[1, 2], monitor_every=0.5).for_run(50, 8)
    assert (run.total_steps, run.milestones, run.monitor_steps) == (19, (7, 13), 4)


def test_less_than_a_step_is_one():
    assert replace(PLAIN, length=3, milestones=[], monitor_every=0.1).for_run(1000, 8).total_steps == 1


def test_a_milestone_at_the_end_changes_nothing():
    late, never = (replace(PLAIN, milestones=m).for_run(1000, 8) for m in ([80], []))
    assert [late(step) for step in range(10)] == [never(step) for step in range(10)]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"unit": "steps"}, "schedule.unit=steps"),
        ({"lr": 0.0}, "schedule.lr"),
        ({"lr": -1e-3}, "schedule.lr"),
        ({"lr_batch": 0}, "schedule.lr_batch"),
        ({"length": 0}, "schedule.length"),
        ({"milestones": [60, 40]}, "schedule.milestones=[60, 40]"),
        ({"milestones": [40, 81]}, "schedule.milestones=[40, 81]"),
    ],
)
def test_slips_are_refused(change, named):
    with pytest.raises(UserError) as caught:
        replace(PLAIN, **change)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
