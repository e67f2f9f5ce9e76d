"""The real path: train, be killed at any moment, go on, evaluate, predict. Everything is compared bit for bit."""

import functools
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import tiny
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rankdet import assess, evaluate, predict, train
from rankdet.config import compose, run_directory
from rankdet.training import checkpoint
from rankdet.training.codes import BUSY

OUTSIDE = {"train_seconds", "cpu_seconds", "date", "commit", "dirty"}  # someone may edit the checkout meanwhile


class Run:
    """A tiny training in a folder of its own."""

    def __init__(self, folder: Path, *more: str) -> None:
        self.arguments = tiny.overrides(folder, *more)
        self.directory = run_directory(compose(self.arguments))

    def file(self, name):
        return self.directory / name

    def weights(self):
        return torch.load(self.file("weights.pt"))

    def record(self):
        """Without what the clock and the checkout decide."""
        return {k: v for k, v in json.loads(self.file("record.json").read_text()).items() if k not in OUTSIDE}

    def log(self):
        """The entries, without the speed."""
        lines = [json.loads(line) for line in self.file("log.jsonl").read_text().splitlines()]
        return [{k: v for k, v in entry.items() if not k.startswith("speed/")} for entry in lines]

    def detections(self):
        return self.file("evaluation/test/detections.json").read_bytes()


def assert_same(run: Run, unbroken: Run) -> None:
    """The same weights bit for bit, and with them all that was made from them."""
    ours, theirs = run.weights(), unbroken.weights()
    assert ours["model"].keys() == theirs["model"].keys()
    assert len(ours["model"]) > 50
    assert all(torch.equal(value, theirs["model"][key]) for key, value in ours["model"].items())
    assert (ours["classes"], ours["category_ids"]) == (theirs["classes"], theirs["category_ids"])
    assert run.record() == unbroken.record()
    assert run.detections() == unbroken.detections()
    assert run.log() == unbroken.log()
    assert not list(run.directory.rglob("*.partial"))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """A run from nothing to its record, and what it printed."""
    run = Run(tmp_path_factory.mktemp("unbroken"))
    run.done = tiny.call(train.main, run.arguments)
    return run


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The real command, killed by kill -9 when two checkpoints were there, and given again."""
    run = Run(tmp_path_factory.mktemp("killed"))
    process = tiny.start("train", run.arguments)
    try:
        deadline = time.monotonic() + 120
        while not run.file("checkpoints/step-00000004.pt").exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGSTOP)
        run.beside = tiny.call(train.main, run.arguments)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    run.code = process.returncode
    run.left = sorted(path.relative_to(run.directory).as_posix() for path in run.directory.rglob("*"))
    run.done = tiny.command("train", run.arguments)
    return run


class TestUnbroken:
    """What a run leaves."""

    def test_its_files(self, unbroken):
        assert unbroken.done.code == 0, unbroken.done.err
        there = {path.relative_to(unbroken.directory).as_posix() for path in unbroken.directory.rglob("*.*")}
        events = {name for name in there if name.startswith("events.out.tfevents.")}
        assert len(events) == 1
        assert there - events == {
            ".lock",
            "config.yaml",
            "log.jsonl",
            "weights.pt",
            "record.json",
            "checkpoints/step-00000014.pt",
            "checkpoints/step-00000016.pt",
            "evaluation/test/detections.json",
            "evaluation/test/metrics.json",
        }

    def test_its_record(self, unbroken):
        record = unbroken.record()
        assert record["run"] == "/".join(unbroken.directory.parts[-4:])
        assert (record["steps"], record["planned_steps"], record["image_passes"]) == (16, 16, 64)
        assert (record["protocol_name"], record["seed"], record["split"]) == ("mini", 0, "test")
        assert (record["world_size"], record["threads"]) == (1, 1)
        assert record["num_images"] == {"train": 10, "test": 9}
        assert len(record["data_hash"]) == 33
        assert record["torch"] == torch.__version__
        assert record["metrics"] == json.loads(unbroken.file("evaluation/test/metrics.json").read_text())
        assert 0 <= record["metrics"]["AP"] <= record["metrics"]["AP50"] <= 1
        assert {f"AP{iou}" for iou in range(50, 100, 5)} <= record["metrics"].keys()

    def test_what_it_says(self, unbroken):
        lines = unbroken.done.err.splitlines()
        assert unbroken.done.out == ""
        assert lines[0] == f"run {unbroken.directory}"
        assert [line.split()[1] for line in lines if "images/s" in line] == [f"{s}/16" for s in range(2, 17, 2)]
        assert any(line.startswith("step 8: val AP ") for line in lines)
        assert lines[-1].startswith("test: AP ")

    def test_its_log_falls_and_its_rate_follows_the_schedule(self, unbroken):
        log = [entry for entry in unbroken.log() if "train/loss" in entry]
        assert [entry["step"] for entry in log] == list(range(2, 17, 2))
        assert log[-1]["train/ap"] < log[0]["train/ap"]
        cfg = compose(unbroken.arguments)
        rate = cfg.schedule.lr * 4 / cfg.schedule.lr_batch
        assert log[-3]["train/lr"] == pytest.approx(rate)  # 12 steps of 4 images: the milestone at 48 is not reached
        assert log[-2]["train/lr"] == pytest.approx(0.1 * rate)
        assert sum(entry["train/box"] for entry in log) > 0

    def test_tensorboard_shows_it(self, unbroken):
        board = EventAccumulator(str(unbroken.directory), size_guidance={"scalars": 0})
        board.Reload()
        scalars = set(board.Tags()["scalars"])
        assert {f"train/{name}" for name in ("loss", "ap", "box", "lr", "grad_norm")} <= scalars
        assert {f"speed/{name}" for name in ("images_per_s", "share_loss", "share_data")} <= scalars
        assert {"val/AP", "val/AP50", "test/AP"} <= scalars
        assert [event.step for event in board.Scalars("train/loss")] == list(range(2, 17, 2))
        assert [event.step for event in board.Scalars("val/AP")] == [8]
        assert all(0 < event.value < 1 for event in board.Scalars("speed/share_loss"))
        (picture,) = board.Images("val/detections")
        assert (picture.step, picture.width >= 160, picture.height >= 120) == (8, True, True)
        ends = {"_hparams_/session_start_info", "_hparams_/session_end_info"}
        assert set(board.PluginTagToContent("hparams")) == ends
        (text,) = board.Tensors("config/text_summary")
        assert b"rankdet.losses.ap.APLoss" in text.tensor_proto.string_val[0]

    def test_again_it_is_finished(self, unbroken):
        before = {path: path.stat().st_mtime_ns for path in unbroken.directory.rglob("*")}
        done = tiny.call(train.main, unbroken.arguments)
        assert done == (0, f"{unbroken.directory}: finished already\n", "")
        after = {path: path.stat().st_mtime_ns for path in unbroken.directory.rglob("*")}
        assert {p for p in after if after[p] != before.get(p)} <= {unbroken.file(".lock")}

    def test_another_seed_is_another_run_beside_it(self, unbroken):
        other = Run(Path(unbroken.arguments[0].partition("=")[2]).parent, "seed=1", "splits.monitor=null")
        assert other.directory == unbroken.directory.parent / "seed1"
        assert tiny.call(train.main, other.arguments).code == 0
        key = "heads.box_output.weight"
        assert not torch.equal(other.weights()["model"][key], unbroken.weights()["model"][key])

    def test_looking_at_it_more_often_changes_nothing(self, unbroken, tmp_path):
        """Neither the monitor nor the log nor checkpoints reach the weights; nor does loading by another process."""
        often = ["schedule.monitor_every=20", "runtime.log_every=1", "runtime.num_workers=1", "data.cache=none"]
        run = Run(tmp_path, *often, "runtime.checkpoint_every=100")
        assert tiny.call(train.main, run.arguments).code == 0
        theirs = unbroken.weights()["model"]
        assert all(torch.equal(value, theirs[key]) for key, value in run.weights()["model"].items())
        assert run.detections() == unbroken.detections()


class TestKilled:
    """Bit for bit as if it had not been."""

    def test_ends_as_the_unbroken_one(self, killed, unbroken):
        assert killed.code == -signal.SIGKILL
        assert "record.json" not in killed.left
        assert "weights.pt" not in killed.left
        assert killed.done.code == 0, killed.done.err
        assert "continuing at step " in killed.done.err
        assert_same(killed, unbroken)

    def test_redid_only_what_was_missing(self, killed):
        steps = [line for line in killed.done.err.splitlines() if "images/s" in line]
        assert 1 <= len(steps) <= 6

    def test_tensorboard_shows_no_step_twice(self, killed):
        board = EventAccumulator(str(killed.directory), size_guidance={"scalars": 0})
        board.Reload()
        assert [event.step for event in board.Scalars("train/loss")] == list(range(2, 17, 2))

    def test_beside_a_living_one_a_second_leaves(self, killed):
        assert killed.beside == (BUSY, f"{killed.directory}: another process is training it\n", "")

    @pytest.mark.parametrize("moment", ["before any checkpoint", "in a checkpoint", "evaluating", "recording"])
    def test_at_a_chosen_moment(self, moment, unbroken, tmp_path):
        """The last two begin where the unbroken run's last checkpoint was."""
        ended = moment in ("evaluating", "recording")
        run = copy_of(unbroken, tmp_path, checkpoints=ended)
        assert tiny.in_child(die, moment, run.arguments) == -signal.SIGKILL
        assert not run.file("record.json").exists()
        assert run.file("weights.pt").exists() == (moment == "recording")
        steps = [path.stem for path in checkpoint.list_checkpoints(run.file("checkpoints"))]
        assert steps == {
            "before any checkpoint": [],
            "in a checkpoint": ["step-00000004", "step-00000002"],
        }.get(moment, ["step-00000016", "step-00000014"])
        done = tiny.call(train.main, run.arguments)
        assert done.code == 0
        assert ("continuing at step " in done.err) == (moment != "before any checkpoint")
        assert_same(run, unbroken)

    def test_a_broken_newest_checkpoint_is_passed_over(self, unbroken, tmp_path):
        """From the older one all the same bits, and a line that says so."""
        run = copy_of(unbroken, tmp_path)
        newest = run.file("checkpoints/step-00000016.pt")
        newest.write_bytes(newest.read_bytes()[:5000])
        half = run.file(".weights.1234.partial.pt")
        half.write_bytes(b"what kill -9 left")
        done = tiny.call(train.main, run.arguments)
        assert done.code == 0
        assert not half.exists()
        assert f"{newest}: unreadable" in done.err
        assert "continuing at step 14" in done.err
        assert_same(run, unbroken)


def copy_of(run: Run, folder: Path, checkpoints: bool = True) -> Run:
    """A run of the same settings in another folder, with the same data, and as far as the other's checkpoints."""
    copy = Run(folder)
    shutil.copytree(tiny.shapes(run.arguments), tiny.shapes(copy.arguments))
    if checkpoints:
        shutil.copytree(run.file("checkpoints"), copy.file("checkpoints"))
        shutil.copy(run.file("log.jsonl"), copy.directory)
    return copy


def die(moment, arguments):
    """A training that ends itself by SIGKILL at a moment, in a process of its own."""

    def kill(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    def half(save, content, file):
        save(content, file)
        file.flush()
        file.truncate(1000)
        kill()

    if moment == "in a checkpoint":
        saved = functools.partial(half, torch.save)
        torch.save = lambda content, file, save=torch.save: (saved if content["step"] == 6 else save)(content, file)
    elif moment == "before any checkpoint":
        train.save_checkpoint = kill
    elif moment == "evaluating":
        assess.all_metrics = lambda *a, metrics=assess.all_metrics: kill() if "test" in a[0].split else metrics(*a)
    else:
        train.provenance = kill
    sys.argv = ["train", *arguments]
    train.main()


class TestHalfDone:
    """What a checkpoint must not be continued with."""

    @pytest.fixture
    def half_done(self, unbroken, tmp_path):
        return copy_of(unbroken, tmp_path)

    def test_other_data(self, half_done):
        """One box moved by a pixel in one training image."""
        annotation = tiny.shapes(half_done.arguments) / "Annotations" / "train_00000.xml"
        text = annotation.read_text()
        before, rest = text.split("<xmin>", 1)
        value, after = rest.split("</xmin>", 1)
        annotation.write_text(f"{before}<xmin>{int(value) + 1}</xmin>{after}")
        done = tiny.call(train.main, half_done.arguments)
        assert done.code == 2
        assert done.err.startswith(f"error: {half_done.directory}: was begun on other data; remove it")
        assert done.err.count("\n") == 1
        assert not half_done.file("record.json").exists()

    def test_other_threads_are_said(self, half_done):
        path = half_done.file("checkpoints/step-00000016.pt")
        content = torch.load(path, weights_only=False)
        torch.save(content | {"threads": 2}, path)
        done = tiny.call(train.main, half_done.arguments)
        assert done.code == 0
        assert "begun with runtime.threads=2, continued with 1: other bits" in done.err


class TestEvaluate:
    """python -m rankdet.evaluate."""

    def test_the_record_exactly(self, unbroken, tmp_path):
        """Elsewhere, so that the run's own files stay."""
        arguments = [f"run={unbroken.directory}", "device=cpu", f"output={tmp_path / 'here'}"]
        done = tiny.call(evaluate.main, arguments)
        assert done.code == 0, done.err
        assert json.loads((tmp_path / "here" / "metrics.json").read_text()) == unbroken.record()["metrics"]
        assert (tmp_path / "here" / "detections.json").read_bytes() == unbroken.detections()
        printed = dict(line.rsplit(maxsplit=1) for line in done.out.splitlines()[:-1])
        assert printed["AP50"] == f"{100 * unbroken.record()['metrics']['AP50']:.2f}"
        assert done.out.splitlines()[-1] == f"written to {tmp_path / 'here'}"

    def test_another_split_and_another_rule_lie_beside(self, unbroken):
        ours = unbroken.detections()
        arguments = [f"run={unbroken.directory}", "device=cpu"]
        assert tiny.call(evaluate.main, [*arguments, "split=val"]).code == 0
        few = tiny.call(evaluate.main, [*arguments, "evaluation.detections=3"])
        assert few.out.splitlines()[-1] == f"written to {unbroken.file('evaluation/test-overridden')}"
        found = {
            name: json.loads(unbroken.file(f"evaluation/{name}/detections.json").read_text())
            for name in ("test", "val", "test-overridden")
        }
        assert {d["image_id"] for d in found["val"]} <= set(range(4))
        assert max(d["image_id"] for d in found["test"]) == 8
        counts = np.bincount([d["image_id"] for d in found["test-overridden"]])
        assert counts.max() == 3
        assert unbroken.detections() == ours

    def test_data_that_moved(self, unbroken, tmp_path):
        """data.root says where they are now, and no picture is looked for where they were."""
        moved = tmp_path / tiny.shapes(unbroken.arguments).name
        shutil.copytree(tiny.shapes(unbroken.arguments), moved)
        (moved / "JPEGImages" / "test_00003.png").unlink()
        done = tiny.call(evaluate.main, [f"run={unbroken.directory}", "device=cpu", f"data.root={tmp_path / 'shapes'}"])
        assert done.code == 2
        assert f"{moved}/JPEGImages/test_00003" in done.err


class TestPredict:
    """python -m rankdet.predict."""

    @pytest.fixture
    def folder(self, unbroken, tmp_path):
        """Three images and a note."""
        folder = tmp_path / "in"
        folder.mkdir()
        for i, path in enumerate(sorted((tiny.shapes(unbroken.arguments) / "JPEGImages").glob("test_*"))[:3]):
            shutil.copy(path, folder / f"{i}.png")
        (folder / "notes.txt").write_text("no image")
        return folder

    def test_pictures_of_a_folder(self, unbroken, folder, tmp_path):
        """One PNG an image, with boxes at a threshold of nothing and without at one of 1."""
        for threshold in ("0", "1"):
            output = tmp_path / threshold
            arguments = [f"run={unbroken.directory}", f"input={folder}", "device=cpu", f"output={output}"]
            done = tiny.call(predict.main, [*arguments, f"threshold={threshold}"])
            assert done.code == 0
            assert sorted(path.name for path in output.iterdir()) == ["0.png", "1.png", "2.png"]
            printed = dict(line.split(": ") for line in done.out.splitlines())
            assert printed.keys() == {f"{output}/{i}.png" for i in range(3)}
            assert ({text for text in printed.values()} == {"0 objects"}) == (threshold == "1")
        for path in (tmp_path / "0").iterdir():
            drawn, empty = (cv2.imread(str(tmp_path / threshold / path.name)) for threshold in ("0", "1"))
            assert min(drawn.shape[:2]) >= 480
            rows = min(len(drawn), len(empty), 480)
            assert (drawn[:rows] != empty[:rows]).any()

    def test_beside_the_run_by_default(self, unbroken, folder):
        assert (
            tiny.call(predict.main, [f"run={unbroken.directory}", f"input={folder / '1.png'}", "device=cpu"]).code == 0
        )
        assert [path.name for path in unbroken.file("predictions").iterdir()] == ["1.png"]

    def test_it_sees_what_evaluation_sees(self, unbroken, folder, tmp_path):
        """The number of boxes at every scale and in the mirror image, by the same settings."""
        settings = [f"run={unbroken.directory}", "device=cpu", f"output={tmp_path / 'out'}"]
        settings += ["test_input=keep_aspect", "test_input.scales=[1.0,1.5]", "test_input.flip=true"]
        evaluated = tiny.call(evaluate.main, settings)
        assert evaluated.code == 0, evaluated.err
        found = json.loads((tmp_path / "out" / "detections.json").read_text())
        done = tiny.call(predict.main, [*settings, f"input={folder}", "threshold=0"])
        assert done.code == 0, done.err
        numbers = [int(line.split(": ")[1].split()[0]) for line in done.out.splitlines()]
        assert numbers == [sum(each["image_id"] == image for each in found) for image in range(3)]
        assert sum(numbers) > 0

    def test_two_images_of_one_name_are_both_drawn(self, unbroken, folder, tmp_path):
        cv2.imwrite(str(folder / "0.bmp"), cv2.imread(str(folder / "0.png")))
        arguments = [f"run={unbroken.directory}", f"input={folder}", f"output={tmp_path / 'out'}", "device=cpu"]
        assert tiny.call(predict.main, arguments).code == 0
        names = {path.name for path in (tmp_path / "out").iterdir()}
        assert names == {"0.bmp.png", "0.png.png", "1.png", "2.png"}


@pytest.mark.full
def test_commands_of_their_own(unbroken, tmp_path):
    """evaluate and predict as one types them."""
    arguments = [f"run={unbroken.directory}", "device=cpu"]
    done = tiny.command("evaluate", [*arguments, f"output={tmp_path}"])
    assert done.code == 0, done.err
    assert (tmp_path / "detections.json").read_bytes() == unbroken.detections()
    image = tiny.shapes(unbroken.arguments) / "JPEGImages" / "test_00000.png"
    done = tiny.command("predict", [*arguments, f"input={image}", f"output={tmp_path}"])
    assert done.code == 0, done.err
    assert (tmp_path / "test_00000.png").is_file()


class TestHydra:
    """Hydra's own flags."""

    @pytest.mark.full
    def test_a_sweep_is_several_runs(self, tmp_path):
        """Each in the directory that the same settings alone would have, and no folder of Hydra's own."""
        short = ["schedule.length=4", "schedule.milestones=[]", "splits.monitor=null"]
        runs = [Run(tmp_path, *short, f"seed={seed}") for seed in (0, 1)]
        done = tiny.call(train.main, ["--multirun", *tiny.overrides(tmp_path, *short), "seed=0,1"])
        assert done.code == 0
        assert [run.record()["seed"] for run in runs] == [0, 1]
        assert {path.name for path in (tmp_path / "runs").iterdir()} == {"shapes", "multirun.yaml"}

    def test_the_config_can_be_looked_at(self, tmp_path):
        done = tiny.call(train.main, ["--cfg", "job", *tiny.overrides(tmp_path, "loss.delta=0.5")])
        assert done.code == 0
        assert yaml.safe_load(done.out)["loss"]["delta"] == 0.5
        assert not (tmp_path / "runs").exists()

    def test_a_mistake_in_a_file_is_found_there_too(self, tmp_path):
        done = tiny.call(train.main, ["--multirun", *tiny.overrides(tmp_path, "+loss.dleta=1")])
        assert done.code == 2
        assert done.err.startswith("error: config: there is no key 'loss.dleta'")
