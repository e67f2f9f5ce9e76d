"""scripts/check_data.py: its exit codes, its lines, and what it says of real sets."""

import json

import numpy as np
import pytest
from voc_folders import annotation, voc_folder

from rankdet.build import open_source
from rankdet.checking.check import survey
from rankdet.checking.report import as_text
from rankdet.config import compose
from rankdet.data.coco import COCOSource
from rankdet.data.voc import VOCSource
from rankdet.evaluation.draw import PALETTE, draw_annotations


@pytest.fixture(scope="module")
def main(front_end):
    return front_end("check_data")


@pytest.fixture
def folder(tmp_path):
    annotations = {"a": annotation(("cat", 1, 1, 10, 10)), "b": annotation(("cat", 1, 1, 10, 50))}
    return voc_folder(tmp_path / "some", {"train": ["a"], "val": ["b"]}, annotations, "ab")


def test_exit_codes(main, folder, tmp_path, capsys):
    """A box that sticks out is mended by the readers: a warning and 0. A file that is no image: 1."""
    output = tmp_path / "out"
    assert main(["--data", str(folder), "--output", str(output)]) == 0
    printed = capsys.readouterr()
    assert "warning: box clipped (1)" in printed.out
    assert "b.jpg: box clipped, 1 x" in printed.out
    assert printed.err.splitlines()[0] == "reading train"
    (folder / "JPEGImages" / "a.jpg").write_text("no image")
    assert main(["--data", str(folder), "--output", str(output), "--jobs", "1"]) == 1
    assert "error: image refused (1)" in capsys.readouterr().out
    assert json.loads((output / "report.json").read_text())["findings"][0]["kind"] == "image refused"


def test_mistakes_are_one_line_and_leave_nothing(main, folder, tmp_path, capsys):
    output = tmp_path / "out"
    (tmp_path / "file").touch()
    cases = [
        (["--data", str(tmp_path / "nowhere")], "no such folder"),
        (["--data", str(tmp_path)], "in neither"),
        (["--data", str(folder), "--jobs", "0"], "--jobs 0"),
        (["--data", str(folder), "data.sorce.root=x"], "sorce"),
        (["data=voc"], "data.root is not set"),
        (["--data", str(folder), "--output", str(tmp_path / "file" / "out")], "cannot be made"),
    ]
    for arguments, words in cases:
        assert main([*([] if "--output" in arguments else ["--output", str(output)]), *arguments]) == 2, words
        printed = capsys.readouterr()
        assert printed.out == ""
        (line,) = printed.err.splitlines()
        assert line.startswith("error: ")
        assert words in line
    assert not (output / "report.json").exists()


def test_the_drawn_set_and_other_configs(main, tmp_path, capsys):
    """The drawn set is drawn for it; data=voc with the devkit's own splits would go the same way."""
    settings = [f"data.root={tmp_path / 'shapes'}", *(f"data.source.num_{word}=3" for word in ("train", "val", "test"))]
    assert main(["--output", str(tmp_path / "out"), *settings]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {word: split["images"] for word, split in report["splits"].items()} == {"train": 3, "val": 3, "test": 3}
    assert report["unions"] == ["trainval"]
    assert report["findings"] == []
    assert "9 image files decoded" in capsys.readouterr().out


def test_a_devkit_of_two_years_and_a_split_without_annotations(tmp_path):
    """07++12: of four parts the test split has images alone; what is not there is said, not refused."""
    classes = ["cat", "dog"]
    one = annotation(("cat", 1, 1, 10, 10))
    root = tmp_path / "VOCdevkit"
    voc_folder(root / "VOC2007", {"trainval": ["a"], "test": ["b"]}, {"a": one, "b": one}, "ab")
    voc_folder(root / "VOC2012", {"trainval": ["c"], "test": ["d"]}, {"c": one}, "xycd")  # x and y look like a and b
    overrides = ["data=voc07pp12", f"data.root={tmp_path}", f"data.source.classes=[{','.join(classes)}]"]
    report = survey(open_source(compose(overrides)), "07++12", "", 1, lambda line: None).report
    assert "test (no annotations)  " in as_text(report)
    assert report["absent"] == ["train", "val"]
    assert {word: split["images"] for word, split in report["splits"].items()} == {"test": 1, "trainval": 3}
    assert not report["splits"]["test"]["labelled"]
    kinds = sorted((finding["kind"], finding["file"].rpartition("/")[2]) for finding in report["findings"])
    assert kinds == [("image not listed", "x.jpg"), ("image not listed", "y.jpg")]


@pytest.mark.full
def test_real_photographs(shared_data):
    """bccd has two boxes without height (its own annotation files say so); coco128 is clean."""
    bccd = survey(VOCSource(shared_data / "bccd"), "bccd", "", 2, lambda line: None).report
    assert {word: split["images"] for word, split in bccd["splits"].items()} == {"train": 205, "val": 87, "test": 72}
    assert sum(split["boxes"] for split in bccd["splits"].values()) == 4886
    assert bccd["unions"] == ["trainval"]
    files = [(finding["kind"], finding["file"].rpartition("/")[2]) for finding in bccd["findings"]]
    assert files == [("zero-area box dropped", f"BloodImage_00{number}.jpg") for number in (343, 338)]
    coco = survey(COCOSource(shared_data / "coco128"), "coco128", "", 2, lambda line: None).report
    assert {word: split["images"] for word, split in coco["splits"].items()} == {"train": 128, "val": 128}
    assert coco["findings"] == []


def test_annotations_are_drawn_with_their_classes():
    """A large box on the left half, a small one in it, drawn last; the one that does not count is dashed in white."""
    grey = np.full((60, 80, 3), 90, np.uint8)
    boxes, classes = [[10, 30, 20, 40], [2, 20, 40, 58]], ("cell", "other")
    solid = draw_annotations(grey, boxes, [0, 1], classes, [False, False], short_side=60)
    dashed = draw_annotations(grey, boxes, [0, 1], classes, [False, True], short_side=60)
    colours = [tuple(int(PALETTE[label][place : place + 2], 16) for place in (1, 3, 5)) for label in (0, 1)]
    assert (solid[30:40, 10] == colours[0]).all()
    assert (solid[20:58, 2] == colours[1]).all()
    assert (dashed[30:40, 10] == colours[0]).all()
    column = {tuple(pixel) for pixel in dashed[20:58, 2].tolist()}
    assert column == {colours[1], (255, 255, 255)}
    assert dashed.shape[0] >= solid.shape[0] > 60  # the legend says what dashes mean
    assert (draw_annotations(grey, [], [], classes, [], short_side=60)[:60] == 90).all()
