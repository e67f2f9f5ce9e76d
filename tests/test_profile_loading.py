"""Timing of loading: turns and sums by hand, the comparison's pipelines, the command."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from drawn_sets import drawn_set
from torchvision.transforms import v2
from voc_folders import annotation, voc_folder

from rankdet.data.augment import Augment, sample_seed
from rankdet.profiling import loading
from rankdet.profiling.loading import (
    OURS,
    STAGES,
    WARM_UP,
    OwnPipeline,
    Pass,
    TorchvisionPipeline,
    advantage,
    measure,
    speeds,
)
from rankdet.profiling.loading_report import loading_csv, loading_json, verdict

PASSES = [  # of 10 images: ours takes 0.1, 0.2 and 0.1 s, the others 0.3, 0.9, 0.4 and 0.6, 0.6, 0.6
    *(Pass(OURS, number, 10, seconds / 4, 3 * seconds / 4) for number, seconds in enumerate((0.1, 0.2, 0.1))),
    *(Pass("other", number, 10, 0.1, seconds - 0.1) for number, seconds in enumerate((0.3, 0.9, 0.4))),
    *(Pass("slow", number, 10, 0.3, 0.3) for number in range(3)),
]


def test_medians_by_hand():
    """Ours: 100, 50 and 100 images/s. The other's ratios are 3, 4.5 and 4; the slow one's 6, 3 and 6."""
    ours, other, _ = speeds(PASSES)
    assert ours[1:] == pytest.approx((2.5, 7.5, 100.0))
    assert other[1:] == pytest.approx((10.0, 30.0, 25.0))
    assert advantage(PASSES) == pytest.approx({"other": 4.0, "slow": 6.0})
    assert verdict(PASSES) == "4.00 times as fast as other; goal: 3 times as fast: met"
    poor = [each._replace(decode=10 * each.decode) if each.pipeline == OURS else each for each in PASSES]
    assert verdict(poor).endswith("not met")


def test_csv_and_json_hold_the_passes():
    rows = list(csv.DictReader(loading_csv(PASSES).splitlines()))
    assert [(row["pipeline"], int(row["number"])) for row in rows] == [(each[0], each[1]) for each in PASSES]
    assert float(rows[1]["images_per_second"]) == pytest.approx(50)
    content = json.loads(json.dumps(loading_json({"device": "cpu"}, PASSES)))
    assert content["times_slower"]["other"] == pytest.approx(4)
    assert len(content["speeds"]) == 3


def test_turns_and_what_is_timed(monkeypatch):
    """A clock that each stage moves on: 1 and 2 s in one pipeline, 3 and 4 s in the other, for each of 10 images.

    Which is first alternates with the image and the pass; both get an image's same seed, another one in each pass."""
    now, calls = [0.0], []
    monkeypatch.setattr(loading, "time", SimpleNamespace(process_time=lambda: now[0]))

    class Fake:
        def __init__(self, name, decode, augment):
            self.name, self.stages = name, {"decode": decode, "augment": augment}

        def decode(self, record):
            now[0] += self.stages["decode"]
            return record

        def augment(self, record, image, seed):
            assert image is record
            now[0] += self.stages["augment"]
            calls.append((self.name, record, seed))

    shown = []
    found = measure([Fake("a", 1.0, 2.0), Fake("b", 3.0, 4.0)], list(range(10)), 2, lambda: shown.append(1))
    assert found == [
        Pass(name, number, 10, *sums) for number in (0, 1) for name, sums in (("a", (10, 20)), ("b", (30, 40)))
    ]
    timed = calls[2 * WARM_UP :]
    assert len(timed) == 2 * 2 * 10
    assert len(shown) == 20
    assert [name for name, *_ in timed[:6]] == list("abbaab")
    assert [name for name, *_ in timed[20:24]] == list("baab")
    assert timed[0][2] == timed[1][2] == sample_seed(0, 0, 0)
    assert len({seed for *_, seed in timed}) == 20


@pytest.mark.parametrize("form", ["tensor", "PIL"])
def test_torchvision_pipelines(tmp_path, form):
    """They give images as ours does, the same for the same seed; recipe and order are SSD's."""
    records = drawn_set(tmp_path, 3).records
    pipeline = TorchvisionPipeline(form, 48, 64)
    for record in records:
        decoded = pipeline.decode(record)
        result = pipeline.augment(record, decoded, sample_seed(0, 0, 1))
        assert (result.shape, result.dtype) == ((3, 48, 64), torch.uint8)
        assert torch.equal(result, pipeline.augment(record, pipeline.decode(record), sample_seed(0, 0, 1)))
        assert not torch.equal(result, pipeline.augment(record, decoded, sample_seed(0, 0, 2)))
    distort, zoom, crop, flip, resize, _ = pipeline._transform.transforms
    assert isinstance(distort, v2.RandomPhotometricDistort)
    assert tuple(distort.brightness) == (0.875, 1.125)
    assert tuple(distort.contrast) == tuple(distort.saturation) == (0.5, 1.5)
    assert tuple(distort.hue) == (-0.05, 0.05)
    assert (zoom.p, tuple(zoom.side_range)) == (0.5, (1.0, 4.0))
    assert (crop.min_scale, crop.max_scale, crop.min_aspect_ratio, crop.max_aspect_ratio) == (0.3, 1.0, 0.5, 2.0)
    assert crop.options == [0.0, 0.1, 0.3, 0.7, 0.9, 1.0]
    assert crop.trials == 50
    assert flip.p == 0.5
    assert resize.size == [48, 64]


def test_own_pipeline_is_what_training_loads(tmp_path):
    record = drawn_set(tmp_path, 2).records[1]
    pipeline = OwnPipeline(Augment((20, 30)))
    image = pipeline.decode(record)
    assert image.shape == (40, 60, 3)
    result = pipeline.augment(record, image, 0)
    expected = Augment((20, 30)).prepare(image)
    np.testing.assert_array_equal(result.permute(1, 2, 0).numpy(), expected)


@pytest.fixture(scope="module")
def main(front_end):
    return front_end("profile_loading")


def test_the_command(main, tmp_path, capsys):
    folder = voc_folder(
        tmp_path / "some", {"train": list("abc")}, dict.fromkeys("abc", annotation(("cat", 2, 2, 30, 20))), "abc"
    )
    threads = torch.get_num_threads()
    size = ["--images", "2", "--passes", "2", "--size", "64"]
    assert main(["--data", str(folder), *size, "--output", str(tmp_path / "out")]) == 0
    torch.set_num_threads(threads)
    text = capsys.readouterr().out
    assert "times as fast as torchvision v2" in text
    assert "2 images of some/train at 64 x 64" in text
    assert (tmp_path / "out" / "loading.md").read_text() in text
    rows = list(csv.DictReader((tmp_path / "out" / "loading.csv").read_text().splitlines()))
    assert len(rows) == 2 * 3
    assert all(float(row[stage]) > 0 for row in rows for stage in STAGES)
    assert json.loads((tmp_path / "out" / "loading.json").read_text())["goal"] == 3.0


def test_mistakes_are_one_line(main, tmp_path, capsys):
    (tmp_path / "file").touch()
    cases = [
        (["--images", "0"], "--images 0"),
        (["--passes", "-1"], "--passes -1"),
        (["--data", str(tmp_path / "nowhere")], "no such folder"),
        (["--output", str(tmp_path / "file" / "out")], "cannot be made"),
    ]
    for arguments, words in cases:
        assert main(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line
