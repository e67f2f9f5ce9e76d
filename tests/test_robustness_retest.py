"""The command that tests a run again, on a run of seconds: records, pictures, the same numbers twice, and mistakes."""

import json
import shutil

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from rankdet import retest, train
from rankdet.config import compose, run_directory
from rankdet.results.retests import FIELDS
from rankdet.robustness import adversarial, suite
from rankdet.robustness.conditions import BOUNDS, CONDITIONS, SUITE_VERSION, TRAINING_STEP

SHORT = ("splits.monitor=null", "loss=ap")
LOW = "evaluation.score_threshold=0"  # so little trained, the network finds something only without a threshold


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The directory of a finished run."""
    arguments = tiny.overrides(tmp_path_factory.mktemp("finished"), *SHORT)
    assert tiny.call(train.main, arguments).code == 0
    return run_directory(compose(arguments))


@pytest.fixture
def run(finished, tmp_path, monkeypatch):
    """A copy of it; textures are trained for two steps, and DeepFool attacks two images."""
    monkeypatch.setattr(adversarial, "STEPS", 2)
    monkeypatch.setattr(suite, "ATTACKED", 2)
    return shutil.copytree(finished, tmp_path / "run")


def retested(run, conditions, *more):
    done = tiny.call(retest.main, [f"run={run}", f"conditions={conditions}", "device=cpu", *more])
    assert done.code == 0, done.err
    return {path.stem: json.loads(path.read_text()) for path in sorted((run / "retests").glob("*.json"))}


def test_every_condition_is_recorded_with_its_picture(run):
    """Unaltered images give the run's own metrics again; each test says what it was of."""
    names = [name for name in CONDITIONS if name != TRAINING_STEP]
    records = retested(run, ",".join(names))
    own = json.loads((run / "record.json").read_text())
    assert list(records) == sorted(names)
    for name, record in records.items():
        assert set(FIELDS) <= record.keys()
        assert record["condition"] == name
        assert (record["suite_version"], record["suite_seed"], record["num_images"]) == (SUITE_VERSION, 0, 9)
        assert all(record[key] == own[key] for key in ("config_hash", "seed", "data_hash", "split", "run"))
    assert records["original"]["metrics"] == pytest.approx(own["metrics"], abs=1e-9)
    assert records["deepfool"]["metrics"].keys() >= {"norm", "attacked", "fooled", "threshold"}
    for name in BOUNDS:
        assert records[name]["metrics"].keys() == {"AP", "AP50", "AP75", "AP90", "rho"}
        assert records[name]["metrics"]["AP50"] == pytest.approx(own["metrics"]["AP50"], abs=1e-9)
    pictures = {path.stem: np.asarray(Image.open(path)) for path in (run / "retests" / "pictures").glob("*.png")}
    assert pictures.keys() - {"sheet"} <= CONDITIONS.keys() - BOUNDS.keys()
    assert len(pictures) == 8
    heights = [picture.shape[0] for name, picture in pictures.items() if name != "sheet"]
    assert pictures["sheet"].shape[0] == sum(heights)
    assert len({picture.tobytes() for picture in pictures.values()}) == 8


@pytest.mark.full
@pytest.mark.parametrize("loss", [("loss=ghm_c",), ("loss=alrp", "box_loss=none")])
def test_what_a_step_of_a_loss_with_a_memory_costs(tmp_path, loss):
    """One that keeps running counts, and one whose weight changes by the epoch."""
    arguments = tiny.overrides(tmp_path, "splits.monitor=null", *loss)
    assert tiny.call(train.main, arguments).code == 0
    (record,) = retested(run_directory(compose(arguments)), TRAINING_STEP).values()
    assert 0 < record["metrics"]["loss_ms"] < record["metrics"]["ms"]


@pytest.mark.full
def test_what_a_training_step_costs(run):
    """Less time for the loss than for the step; as much memory as the weights take four times (with gradients and the
    two averages of Adam), and more. Nothing is trained: the weights stay, and no picture is drawn."""
    before = (run / "weights.pt").read_bytes()
    (record,) = retested(run, TRAINING_STEP).values()
    metrics = record["metrics"]
    assert 0 < metrics["loss_ms"] < metrics["ms"] < 60_000
    weights = torch.load(run / "weights.pt", weights_only=True)["model"].values()
    assert metrics["mib"] is None or metrics["mib"] > 4 * sum(tensor.nbytes for tensor in weights) / 2**20
    assert (run / "weights.pt").read_bytes() == before
    assert not (run / "retests" / "pictures" / f"{TRAINING_STEP}.png").exists()


@pytest.mark.full
def test_the_same_test_gives_the_same_numbers(run):
    """The texture and DeepFool too; and whether other conditions come before it does not matter."""
    names = "adversarial_patch,random_patch,gaussian_noise"
    first = {name: record["metrics"] for name, record in retested(run, names, LOW).items()}
    shutil.rmtree(run / "retests")
    alone = retested(run, "gaussian_noise", LOW)
    again = retested(run, "random_patch,adversarial_patch", LOW) | alone
    assert first == {name: record["metrics"] for name, record in again.items()}
    assert len(first) == 3
    assert all(metrics["AP50"] is not None for metrics in first.values())


def test_settings_of_the_test_are_part_of_its_name(run):
    """Not so where the data lie and how it runs."""
    records = retested(run, "original", "evaluation.score_threshold=0.2", "runtime.num_workers=0")
    assert list(records) == ["original-score_threshold-0.2"]
    record = records["original-score_threshold-0.2"]
    assert record["overrides"] == ["evaluation.score_threshold=0.2"]
    pictures = {path.stem for path in (run / "retests" / "pictures").iterdir()}
    assert pictures == {"original", "original-score_threshold-0.2", "sheet"}


def fails(message, *arguments):
    done = tiny.call(retest.main, arguments)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1


def test_mistakes_are_one_line_and_leave_nothing(run, tmp_path):
    fails("conditions= is missing", f"run={run}")
    fails(
        "conditions=blue_patch: there is no such condition; there are original,", f"run={run}", "conditions=blue_patch"
    )
    fails("config.yaml: no such file", f"run={tmp_path}", "conditions=original")
    other = ["data.source.num_test=8", f"data.root={tmp_path}/other"]
    fails("trained or tested on other annotations", f"run={run}", "conditions=original", *other)
    two_views = "test_input=keep_aspect_multi"
    fails("deepfool: attacks one view of an image", f"run={run}", "conditions=deepfool", two_views)
    (run / "record.json").unlink()
    fails("record.json: not there, so the run is not finished", f"run={run}", "conditions=original")
    (run / "weights.pt").write_bytes(b"no weights")
    fails("weights.pt: cannot be read", f"run={run}", "conditions=original")
    assert not list((run / "retests").glob("**/*"))
