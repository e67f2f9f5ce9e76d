"""log.jsonl, TensorBoard and the screen, read back."""

import json

import numpy as np
import pytest
import torch
from drawn_sets import drawn_set
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from rankdet.data.records import DetectionSet
from rankdet.training.log import RunLog, flatten, truncate_after
from rankdet.training.loop import StepReport
from rankdet.training.monitor import Monitor, first_images


class Laps:
    """A stopwatch that has seen 3 s of network and 1 s of loss."""

    def totals(self):
        return {"forward": 3.0, "loss": 1.0}


def report(step, loss=1.0, norm=2.0):
    parts = {"loss": torch.tensor(loss), "ap": torch.tensor(loss / 4)}
    return StepReport(step, parts, 0.001 * step, torch.tensor(norm), 8, Laps())


def entries(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def board(folder):
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0})
    accumulator.Reload()
    return accumulator


def test_means_since_the_last_entry(tmp_path):
    """Every 2 of 5 steps and the last: means of 1 and 3, of 5 and 7, of 9; the rest is the step's own."""
    with RunLog(tmp_path, 0, 5, 2, "lines") as log:
        for step in range(1, 6):
            log(report(step, loss=2.0 * step - 1, norm=step))
    found = entries(tmp_path)
    assert [e["step"] for e in found] == [2, 4, 5]
    assert [e["train/loss"] for e in found] == [2, 6, 9]
    assert [e["train/ap"] for e in found] == [0.5, 1.5, 2.25]
    assert [e["train/lr"] for e in found] == pytest.approx([0.002, 0.004, 0.005])
    assert [e["train/grad_norm"] for e in found] == [2, 4, 5]
    assert [e["speed/share_loss"] for e in found] == [0.25] * 3
    assert all(e["speed/images_per_s"] > 0 for e in found)


def test_tensorboard_holds_the_same(tmp_path):
    with RunLog(tmp_path, 0, 4, 2, "lines") as log:
        for step in range(1, 5):
            log(report(step, loss=float(step)))
        log.picture(4, "val/detections", np.full((20, 30, 3), 7, np.uint8))
        log.settings({"loss": {"delta": 0.5}, "sizes": [1, 2]})
        log.results({"test/AP": 0.25}, 4)
    found = board(tmp_path)
    names = {"train/loss", "train/ap", "train/lr", "train/grad_norm", "speed/images_per_s"}
    assert names | {"speed/share_forward", "speed/share_loss", "test/AP"} == set(found.Tags()["scalars"])
    assert [(e.step, e.value) for e in found.Scalars("train/loss")] == [(2, 1.5), (4, 3.5)]
    (picture,) = found.Images("val/detections")
    assert (picture.step, picture.height, picture.width) == (4, 20, 30)
    (start,) = [
        HParamsPluginData.FromString(content).session_start_info
        for tag, content in found.PluginTagToContent("hparams").items()
        if "session_start" in tag
    ]
    assert start.hparams["loss.delta"].number_value == 0.5
    assert start.hparams["sizes"].string_value == "[1, 2]"


def test_one_event_file_a_start(tmp_path):
    """add_hparams would have made a second one, and a second run in TensorBoard's list."""
    with RunLog(tmp_path, 0, 1, 1, "lines") as log:
        log(report(1))
        log.settings({"a": 1})
        log.results({"test/AP": 0.5}, 1)
    assert len(list(tmp_path.rglob("events.out.tfevents.*"))) == 1


@pytest.mark.parametrize("resumed_at", [0, 4])
def test_a_resumed_log_reads_as_if_never_broken(tmp_path, resumed_at):
    """Killed after step 6, its newest checkpoint at step 4 (or none): steps seen twice are shown once, as redone."""
    with RunLog(tmp_path, 0, 8, 2, "lines") as log:
        for step in range(1, 7):
            log(report(step, loss=100.0 if step > resumed_at else 1.0))
    (first,) = tmp_path.glob("events.*")
    parts = first.name.split(".")
    parts[3] = str(int(parts[3]) - 1)  # the second it was begun in, by which TensorBoard knows the order
    first.rename(first.with_name(".".join(parts)))
    with RunLog(tmp_path, resumed_at, 8, 2, "lines") as log:
        for step in range(resumed_at + 1, 9):
            log(report(step))
    assert [(e["step"], e["train/loss"]) for e in entries(tmp_path)] == [(2, 1), (4, 1), (6, 1), (8, 1)]
    shown = [(e.step, e.value) for e in board(tmp_path).Scalars("train/loss")]
    assert shown == [(2, 1), (4, 1), (6, 1), (8, 1)]


def test_truncating_drops_later_entries_and_a_cut_line(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 2, "a": 1}\n{"step": 4, "a": 2}\n{"step": 6, "a": 3}\n{"step": 2, "a')
    truncate_after(path, 4)
    assert path.read_text() == '{"step": 2, "a": 1}\n{"step": 4, "a": 2}\n'
    truncate_after(path, 0)
    assert path.read_text() == ""
    assert [p.name for p in tmp_path.iterdir()] == ["log.jsonl"]
    truncate_after(tmp_path / "none.jsonl", 3)
    assert not (tmp_path / "none.jsonl").exists()


def test_lines_say_how_far_and_how_long(tmp_path, capsys):
    with RunLog(tmp_path, 0, 120, 2, "lines") as log:
        for step in (1, 2):
            log(report(step))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("step   2/120  loss 1.0000  ap 0.2500  ")
    assert err.endswith("left\n")
    assert err.count("\n") == 1


def test_a_bar_where_asked_for_and_lines_where_there_is_no_terminal(tmp_path, capsys):
    for progress in ("bar", "auto"):
        with RunLog(tmp_path, 0, 2, 1, progress) as log:
            log(report(1))
            assert log.bar.disable == (progress == "auto")
    assert "step 1/2" in capsys.readouterr().err


def test_flatten():
    assert flatten({"a": {"b": {"c": 1}, "d": [2]}, "e": None}) == {"a.b.c": 1, "a.d": [2], "e": None}


class TestMonitor:
    """The look at the validation split."""

    @pytest.fixture
    def split(self, tmp_path):
        return drawn_set(tmp_path, 8)

    def watch(self, split, log):
        """Monitors steps 1..6 of 6, every 2; returns the splits that were evaluated."""
        seen = []

        def evaluate(asked: DetectionSet):
            seen.append(asked)
            box = {"image_id": asked.records[1].image_id, "category_id": 1, "bbox": [2, 3, 9, 9], "score": 0.9}
            return [box], {"AP": 0.5, "AP50": 0.75, "AP75": None}

        monitor = Monitor(split, evaluate, 2, 6, log)
        for step in range(1, 7):
            monitor(report(step))
        return seen

    def test_at_its_steps_but_not_at_the_last(self, tmp_path, split):
        """What is not defined is not shown."""
        (tmp_path / "run").mkdir()
        with RunLog(tmp_path / "run", 0, 6, 100, "lines") as log:
            assert self.watch(split, log) == [split, split]
        assert entries(tmp_path / "run") == [
            {"step": 2, "train/AP": 0.5, "train/AP50": 0.75},
            {"step": 4, "train/AP": 0.5, "train/AP50": 0.75},
        ]
        found = board(tmp_path / "run")
        assert [e.step for e in found.Images("train/detections")] == [2, 4]
        assert [e.value for e in found.Scalars("train/AP")] == [0.5, 0.5]

    def test_other_ranks_evaluate_their_share_and_write_nothing(self, split):
        assert self.watch(split, None) == [split, split]

    def test_of_the_first_images(self, split):
        few = first_images(split, 3)
        assert few.records == split.records[:3]
        assert few.classes == split.classes
        assert len(first_images(split, 100).records) == 8
