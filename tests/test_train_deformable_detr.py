"""Deformable DETR by the real commands: a run broken off and continued, padded batches, two processes, a report."""

import json

import pytest
import tiny
import torch
from several_stages import assert_continues

from rankdet import evaluate, train
from rankdet.config import compose, run_directory

SMALL = ("model.levels.channels=16", "model.layers.ffn_channels=32", "model.layers.dropout=0.1", "model.num_queries=20")
OVERRIDES = ("experiment=deformable_detr", "model=deformable_detr_quarter", *SMALL)
PAP = ("loss=parameterized_ap", "box_loss=none", "augment=short_side_jitter_mini", "test_input=keep_aspect")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The arguments of a finished run in padded batches, and its directory."""
    arguments = tiny.overrides(tmp_path_factory.mktemp("detr"), *OVERRIDES, *PAP)
    train.run(compose(arguments))
    return arguments, run_directory(compose(arguments))


@pytest.mark.full
def test_a_continued_run_ends_as_the_unbroken_one(unbroken, tmp_path, capsys):
    """From step 14 of 16: every drop-out, and so every bit, is the same; so is each part's learning rate."""
    arguments, whole = unbroken
    assert_continues([*arguments, f"runtime.runs={tmp_path}"], whole, lambda: capsys.readouterr().err)
    groups = torch.load(whole / "checkpoints" / "step-00000016.pt", weights_only=False)["optimizer"]["param_groups"]
    assert [group["lr_factor"] for group in groups] == [1.0, 0.1, 0.1, 0.1]


@pytest.mark.stress
def test_a_finished_run_is_looked_at_again(unbroken, front_end):
    _, whole = unbroken
    done = tiny.call(evaluate.main, [f"run={whole}", "split=val"])
    assert done.code == 0, done.err
    done = tiny.call(front_end("report"), [f"run={whole}", "device=cpu"])
    assert done.code == 0, done.err
    assert (whole / "report-test.html").is_file()


@pytest.mark.stress
def test_two_processes(unbroken, tmp_path):
    """Every weight gets its gradient in each of them, also where one has no object."""
    arguments = [*unbroken[0], "gpus=2", f"runtime.runs={tmp_path}"]
    done = tiny.command("train", arguments, ranks=2)
    assert done.code == 0, done.err
    record = json.loads((run_directory(compose(arguments)) / "record.json").read_text())
    assert (record["world_size"], record["steps"]) == (2, tiny.STEPS)


@pytest.mark.full
def test_a_choice_of_candidates_is_refused(tmp_path):
    done = tiny.call(train.main, tiny.overrides(tmp_path, *OVERRIDES, "candidates=top_ranked", "candidates.rpn=x"))
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "candidates: a choice for detectors of one output; set candidates=all" in done.err
