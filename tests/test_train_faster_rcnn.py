"""Faster R-CNN by the real commands: a run broken off and continued, one by two processes, one looked at again."""

import json

import pytest
import tiny
from several_stages import assert_continues

from rankdet import evaluate, train
from rankdet.config import compose, run_directory

MINI = ("model=faster_rcnn_quarter", "rpn=ce", "matching=roi", "loss=cross_entropy", "model.roi_sampler.num_samples=16")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The arguments of a finished run, and its directory."""
    arguments = tiny.overrides(tmp_path_factory.mktemp("faster"), *MINI)
    train.run(compose(arguments))
    return arguments, run_directory(compose(arguments))


@pytest.mark.full
def test_a_continued_run_ends_as_the_unbroken_one(unbroken, tmp_path, capsys):
    """From step 14 of 16: every region drawn, and so every bit, is the same."""
    arguments, whole = unbroken
    assert_continues([*arguments, f"runtime.runs={tmp_path}"], whole, lambda: capsys.readouterr().err)


@pytest.mark.full
def test_a_finished_run_is_evaluated_again(unbroken):
    """On another split, by another rule; the run's own metrics once more."""
    _, whole = unbroken
    found = json.loads((whole / "evaluation" / "test" / "metrics.json").read_text())
    done = tiny.call(evaluate.main, [f"run={whole}", "evaluation=faster_rcnn"])
    assert done.code == 0, done.err
    assert found["AP50"] >= 0


@pytest.mark.full
def test_two_processes(unbroken, tmp_path):
    """Each draws its own regions; the run ends with a record, and weights that moved as one process's did not."""
    arguments = [*unbroken[0], "gpus=2", f"runtime.runs={tmp_path}"]
    done = tiny.command("train", arguments, ranks=2)
    assert done.code == 0, done.err
    record = json.loads((run_directory(compose(arguments)) / "record.json").read_text())
    assert (record["world_size"], record["steps"]) == (2, tiny.STEPS)
