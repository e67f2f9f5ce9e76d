"""A dead training: when it is noticed, what the command says, and that a checkpoint remembers the count."""

from types import SimpleNamespace

import pytest
import tiny
import torch

from rankdet import train
from rankdet.training.codes import DEAD
from rankdet.training.dead import DeadRun, DeathWatch
from rankdet.training.loop import StepReport


def report(step, **parts):
    return StepReport(
        step, {k: torch.tensor(v) for k, v in parts.items()}, 0.1, torch.tensor(0.0), 8, SimpleNamespace()
    )


def watched(values, patience=3):
    """The step at which it dies, None for never."""
    watch = DeathWatch(patience)
    for step, value in enumerate(values, 1):
        try:
            watch(report(step, loss=0.3, pap=value))
        except DeadRun as death:
            assert str(death) == f"step {step}: pap has been 1 for 3 steps; the run is dead"
            return step
    return None


@pytest.mark.parametrize(
    ("values", "death"),
    [
        ([1.0, 1.0, 1.0, 1.0], 3),
        ([1.0, 1.0, 0.9, 1.0, 1.0], None),
        ([0.5, 1.0, 1.0, 0.999, 1.0, 1.0, 1.0], 7),
        ([1.2, 1.2, 1.2, 1.2], None),
        ([0.9999999, 1.0000001, 1.0], 3),
    ],
)
def test_when(values, death):
    assert watched(values) == death


def test_a_weight_is_no_loss():
    """aLRP says with a constant weight of 1 what it is, step by step."""
    watch = DeathWatch(2)
    for step in range(1, 5):
        watch(report(step, loss=0.9, alrp_weight=1.0))


def test_the_command(tmp_path, monkeypatch):
    """A stand-in for a loss that sits at 1: exit code 4, one line, no record; without dead_after it goes on."""
    monkeypatch.setattr("rankdet.training.dead.NEAR", 2.0)
    arguments = tiny.overrides(tmp_path, "splits.monitor=null", "runtime.dead_after=5")
    done = tiny.call(train.main, arguments)
    assert done.code == DEAD == 4
    assert "error: step 5: loss has been 1 for 5 steps; the run is dead\n" in done.err
    assert not list(tmp_path.rglob("record.json"))
    (newest, _) = sorted(tmp_path.rglob("step-*.pt"), reverse=True)
    assert newest.name == "step-00000004.pt"
    (process,) = torch.load(newest, weights_only=False)["processes"]
    assert set(process["dead"].values()) == {4}
    again = tiny.call(train.main, arguments)  # continued, it dies where it would have died
    assert (again.code, "step 5: loss has been 1 for 5 steps" in again.err) == (DEAD, True)
