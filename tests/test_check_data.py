"""A set with every kind of fault: each is found, with its file, in one go; and what a clean set is said to hold."""

import json
import os

import numpy as np
import pytest
from PIL import Image
from voc_folders import HEIGHT, WIDTH, annotation, noise, voc_folder

from rankdet.checking import images
from rankdet.checking.check import has_errors, save, survey
from rankdet.checking.findings import (
    ANNOTATION,
    IMAGE,
    LEAK,
    NO_IMAGE,
    SHARED,
    TURNED,
    TWICE,
    TWIN,
    UNLISTED,
    Finding,
    num_duplicates,
)
from rankdet.checking.images import decode_all
from rankdet.checking.pictures import COLUMNS, ROWS, sample
from rankdet.checking.report import SHOWN, as_text
from rankdet.checking.splits import read_all
from rankdet.checking.statistics import split_statistics
from rankdet.data.coco import COCOSource
from rankdet.data.journal import noting, refuse
from rankdet.data.records import DetectionSet, Record
from rankdet.data.voc import VOCSource
from rankdet.errors import UserError


@pytest.fixture
def clean(tmp_path):
    """Train a (two boxes), b (none); val c (one box)."""
    annotations = {
        "a": annotation(("cat", 1, 1, 10, 10), ("dog", 11, 6, 40, 30)),
        "b": annotation(),
        "c": annotation(("cat", 5, 5, 8, 12)),
    }
    return voc_folder(tmp_path / "clean", {"train": ["a", "b"], "val": ["c"]}, annotations, "abc")


@pytest.fixture
def dirty(tmp_path):
    """Each image but a and i has one fault; i is a again, k is i's pixels in another file."""
    one = annotation(("cat", 2, 2, 20, 20))
    annotations = dict.fromkeys(["a", "b", "d", "i", "j", "k", "lone"], one)
    annotations |= {
        "c": "<annotation><object>",
        "e": annotation(("cat", 2, 2, 20, 20), ("dog", 5, 5, 5, 9), ("dog", 30, 5, 50, 9)),
        "f": annotation(("cat", 2, 2, 20, 20), ("cat", 2, 2, 20, 20), ("dog", 2, 2, 20, 20), ("cat", 2, 2, 20, 20)),
        "g": annotation(("cat", 2, 2, 20, 20), height=HEIGHT + 1),
        "h": annotation(("cat", 2, 2, 20, "wide")),
    }
    splits = {"train": ["a", "b", "c", "d", "e", "f", "a"], "val": ["g", "h", "i"], "test": ["e", "j", "k"]}
    root = voc_folder(tmp_path / "dirty", splits, annotations, "abcefghj")
    pictures = root / "JPEGImages"
    (pictures / "b.jpg").write_bytes((pictures / "b.jpg").read_bytes()[:-200])
    (pictures / "i.jpg").write_bytes((pictures / "a.jpg").read_bytes())
    Image.open(pictures / "a.jpg").save(pictures / "k.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    noise(50).save(pictures / "j.jpg", exif=exif)
    noise(51).save(pictures / "lone.jpg")
    noise(52).save(pictures / "stray.png")
    return root


FAULTS = {  # of the dirty folder: kind -> files, by their names
    ANNOTATION: ["train", "train", "train", "val"],
    IMAGE: ["b.jpg", "g.jpg"],
    SHARED: ["e.jpg"],
    LEAK: ["i.jpg", "k.png"],
    "zero-area box dropped": ["e.jpg"],
    "box clipped": ["e.jpg"],
    TWICE: ["f.jpg"],
    UNLISTED: ["lone.jpg", "stray.png"],
    TURNED: ["j.jpg"],
}


def faults(report):
    found = {}
    for finding in report["findings"]:
        found.setdefault(finding["kind"], []).append(finding["file"].rpartition("/")[2])
    return {kind: sorted(files) for kind, files in found.items()}


def look(root, source=VOCSource, jobs=1):
    return survey(source(root), "some", str(root), jobs, lambda line: None)


def run(root, source=VOCSource, jobs=1):
    return look(root, source, jobs).report


def test_every_fault_is_found_with_its_file(dirty):
    report = run(dirty)
    assert faults(report) == FAULTS
    texts = {finding["kind"]: finding["text"] for finding in report["findings"]}
    refused = [finding["text"] for finding in report["findings"] if finding["kind"] == ANNOTATION]
    for words in ("'a' is listed twice", "c.xml is not valid XML", "d.jpg (or .jpeg, .png) does not exist", "'wide'"):
        assert sum(words in text for text in refused) == 1, words
    assert "a.jpg in train and" in texts[LEAK]
    assert "k.png in test are the same pixels" in texts[LEAK]
    assert next(finding for finding in report["findings"] if finding["kind"] == TWICE)["number"] == 2
    assert has_errors(report)
    severities = [finding["severity"] for finding in report["findings"]]
    assert severities == ["error"] * 9 + ["warning"] * 6  # errors first
    assert {name: part["images"] for name, part in report["splits"].items()} == {"train": 4, "val": 2, "test": 3}


def test_several_processes_find_the_same(dirty):
    """Twenty images, so that more than one piece of work is dealt out."""
    for number in range(20):
        stem = f"more{number:02d}"
        noise(100 + number).save(dirty / "JPEGImages" / f"{stem}.jpg")
        (dirty / "Annotations" / f"{stem}.xml").write_text(annotation(("dog", 1, 1, 9, 9)))
        with (dirty / "ImageSets" / "Main" / "train.txt").open("a") as file:
            file.write(f"{stem}\n")
    alone, together = (run(dirty, jobs=jobs) for jobs in (1, 2))
    assert alone.pop("seconds") >= 0
    assert together.pop("seconds") >= 0
    assert alone == together
    assert together["images"] == 28
    assert faults(together) == FAULTS


def test_what_is_written(dirty, tmp_path):
    """Both reports say all; the terminal's version shortens; pictures open; those without a subject are removed."""
    output = tmp_path / "out"
    found = look(dirty)
    save(found, output)
    report = found.report
    assert json.loads((output / "report.json").read_text()) == report
    text = (output / "report.txt").read_text()
    assert all(finding["text"] in text for finding in report["findings"])
    assert "9 errors and 6 warnings" in text
    report["findings"] *= 3
    short = as_text(report, SHOWN)
    assert f"... and {12 - SHOWN} more, in report.txt" in short
    assert short.count("cannot be decoded") == 3
    for name in ("examples", "doubtful", "classes", "sizes"):
        with Image.open(output / f"{name}.png") as picture:
            assert min(picture.size) > 100, name
    (dirty / "ImageSets" / "Main" / "train.txt").write_text("a\n")
    (dirty / "ImageSets" / "Main" / "test.txt").write_text("j\n")
    save(look(dirty), output)
    assert not (output / "doubtful.png").exists()
    assert not list(output.glob(".*partial*"))


def test_a_clean_set(clean):
    """By hand: a's boxes are 10 x 10 and 30 x 25, c's 4 x 8; all are small but 750 < 32^2 = 1024 too."""
    report = run(clean)
    assert report["findings"] == []
    assert not has_errors(report)
    assert report["absent"] == ["test", "trainval"]
    train, val = report["splits"]["train"], report["splits"]["val"]
    assert (train["images"], train["empty"], train["boxes"]) == (2, 1, 2)
    assert train["boxes_of_class"] == {"cat": 1, "dog": 1}
    assert val["boxes_of_class"] == val["images_of_class"] == {"cat": 1, "dog": 0}
    assert (val["box_width"], val["box_height"]) == ([4, 4, 4], [8, 8, 8])
    assert train["box_width"] == [10, 20, 30]
    assert train["box_sizes"] == {"small": 2, "medium": 0, "large": 0}
    assert train["boxes_per_image"] == [0, 1, 2]
    text = as_text(report)
    assert "There is no split test, trainval." in text
    assert "val has no box of: dog" in text
    assert "0 errors and 0 warnings" in text


def test_trainval_is_no_leak_and_left_out_where_it_is_train_and_val(clean):
    lists = clean / "ImageSets" / "Main"
    (lists / "trainval.txt").write_text("a\nb\nc\n")
    report = run(clean)
    assert (report["unions"], list(report["splits"]), report["findings"]) == (["trainval"], ["train", "val"], [])
    assert "trainval is train and val together." in as_text(report)
    (lists / "trainval.txt").write_text("a\nc\n")
    report = run(clean)
    assert (report["unions"], list(report["splits"])) == ([], ["train", "val", "trainval"])
    assert report["findings"] == []
    (lists / "test.txt").write_text("c\n")
    assert faults(run(clean)) == {SHARED: ["c.jpg", "c.jpg"]}  # with val, and with trainval


def test_same_picture_in_one_split_is_a_warning(clean):
    (clean / "JPEGImages" / "b.jpg").write_bytes((clean / "JPEGImages" / "a.jpg").read_bytes())
    report = run(clean)
    assert faults(report) == {TWIN: ["b.jpg"]}
    assert not has_errors(report)


def test_a_split_that_cannot_be_read_hides_no_other(clean):
    (clean / "ImageSets" / "Main" / "train.txt").write_bytes(b"a\n\xff\xfe\n")
    report = run(clean)
    assert list(report["splits"]) == ["val"]
    (finding,) = (finding for finding in report["findings"] if finding["kind"] == ANNOTATION)
    assert "not UTF-8" in finding["text"]
    (clean / "ImageSets" / "Main" / "val.txt").write_text("")
    assert faults(run(clean)) == {ANNOTATION: ["train"], NO_IMAGE: ["val"]}
    for path in (clean / "ImageSets" / "Main").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"train\.txt does not exist"):
        run(clean)


@pytest.fixture
def dirty_coco(tmp_path):
    """Eight images of 40 x 30, some with a fault; test means val, as COCOSource finds."""
    root = tmp_path / "coco"
    for folder in ("annotations", "train", "val"):
        (root / folder).mkdir(parents=True)
    images = [{"id": key, "file_name": f"{key}.png", "height": HEIGHT, "width": WIDTH} for key in range(1, 8)]
    for image in images[:-1]:
        noise(image["id"]).save(root / "train" / image["file_name"])
    images.append(images[0] | {"file_name": "8.png"})
    noise(8).save(root / "train" / "8.png")
    boxes = {1: [1, 1, 9, 9], 2: [1, 1, 0, 9], 3: [1, 1, 9], 4: [1, 1, -9, 9]}
    items = [
        {"id": key, "image_id": key, "category_id": 5, "bbox": bbox, "iscrowd": int(key == 1)}
        for key, bbox in boxes.items()
    ]
    items += [
        {"id": 10, "image_id": 99, "category_id": 98, "bbox": [1, 1, 2, 2]},
        {"id": 11, "image_id": 5, "category_id": 97, "bbox": [1, 1, 2, 2]},
        {"id": 12, "image_id": 5, "category_id": 5},
        "nonsense",
    ]
    categories = [{"id": 5, "name": "cat"}]
    train = {"images": images, "annotations": items, "categories": categories}
    (root / "annotations" / "instances_train.json").write_text(json.dumps(train))
    noise(70).save(root / "val" / "v.png")
    val = {"images": [{"id": 1, "file_name": "v.png", "height": HEIGHT, "width": WIDTH}], "annotations": []}
    (root / "annotations" / "instances_val.json").write_text(json.dumps(val | {"categories": categories}))
    return root


def test_every_fault_of_a_coco_file_is_found(dirty_coco):
    report = run(dirty_coco, COCOSource)
    assert list(report["splits"]) == ["train", "val"]  # test is val, trainval is train
    refused = [finding["text"] for finding in report["findings"] if finding["kind"] == ANNOTATION]
    for words in (
        "images has id 1 twice",
        "annotation 10 has image_id 99",
        "annotation 10 has category_id 98",
        "annotation 11 has category_id 97",
        "annotations[6] has no bbox",
        "annotations[7] has no image_id",
        "annotations[7] has no category_id",
        "annotations[7] has no bbox",
        "bbox of id 3 is [1, 1, 9], not 4",
        "7.png does not exist",
    ):
        assert sum(words in text for text in refused) == 1, words
    assert len(refused) == 10
    others = {kind: files for kind, files in faults(report).items() if kind != ANNOTATION}
    assert others == {
        "zero-area box dropped": ["2.png"],
        "inverted box dropped": ["4.png"],
        UNLISTED: ["8.png"],
    }
    assert (report["splits"]["train"]["images"], report["splits"]["train"]["crowd"]) == (5, 1)


def test_readers_stop_at_the_first_fault_unless_noted(dirty, dirty_coco):
    """What training sees stays as it was; after noting, too; a note within a note is its own."""
    for source in (VOCSource(dirty, classes=["cat", "dog"]), COCOSource(dirty_coco)):
        with noting() as journal:
            noted = source.read("train")
        assert journal.problems
        with pytest.raises(UserError) as failure:
            source.read("train")
        assert str(failure.value) == journal.problems[0]
        assert {kind: counts.total() for kind, counts in journal.mended.items()} == noted.dirt
    with noting() as outer:
        with noting() as inner:
            refuse(UserError("inner"))
        refuse(UserError("outer"))
        refuse(UserError("outer"))
    assert (outer.problems, inner.problems) == (["outer"], ["inner"])


def record(path, boxes, labels, crowd=None, size=(HEIGHT, WIDTH)):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    flags = np.zeros(len(boxes), bool)
    return Record(0, path, *size, boxes, np.array(labels, np.int64), flags, flags if crowd is None else np.array(crowd))


def test_duplicate_boxes_by_hand(tmp_path):
    """100 x 20 against 96 x 20 inside it: IoU 0.96; 94 x 20: 0.94. Another class and crowds do not count."""
    outer = [0, 0, 100, 20]
    cases = [
        ([outer, [0, 0, 96, 20]], [0, 0], None, 1),
        ([outer, [0, 0, 94, 20]], [0, 0], None, 0),
        ([outer, outer], [0, 1], None, 0),
        ([outer, outer], [0, 0], [False, True], 0),
        ([outer, outer, outer], [0, 0, 0], None, 2),
        ([outer], [0], None, 0),
        ([], [], None, 0),
    ]
    for boxes, labels, crowd, expected in cases:
        assert num_duplicates(record(tmp_path, boxes, labels, crowd)) == expected, boxes


def test_statistics_of_sizes_at_their_limits(tmp_path):
    """Areas 1023 (small), 1024 and 9215 (medium), 9216 (large); a split of nothing has counts of 0."""
    boxes = [[0, 0, 31, 33], [0, 0, 32, 32], [0, 0, 95, 97], [0, 0, 96, 96]]
    split = DetectionSet("some", "train", ("cat",), (1,), (record(tmp_path, boxes, [0] * 4),))
    assert 31 * 33 == 1023
    assert 95 * 97 == 9215
    assert split_statistics(split)["box_sizes"] == {"small": 1, "medium": 2, "large": 1}
    nothing = split_statistics(DetectionSet("some", "train", ("cat",), (1,), ()))
    assert (nothing["images"], nothing["boxes"], nothing["box_width"]) == (0, 0, None)
    assert nothing["boxes_of_class"] == {"cat": 0}


def test_examples_are_spread_over_splits_and_files(tmp_path):
    """Of 16 cells the first of three splits gets 5, the next two all they have: the second's middle image is taken."""
    records = [record(tmp_path / str(number), [], []) for number in range(110)]
    splits = [
        DetectionSet("some", word, ("cat",), (1,), tuple(records[part]))
        for word, part in (("train", slice(0, 100)), ("val", slice(98, 101)), ("test", slice(101, 110)))
    ]
    chosen = sample(splits)
    words = [split.split for split, _ in chosen]
    paths = [record.path for _, record in chosen]
    assert len(set(paths)) == len(paths) <= COLUMNS * ROWS
    assert {word: words.count(word) for word in words} == {"train": 5, "val": 2, "test": 9}
    assert paths[:5] == [records[place].path for place in (0, 25, 50, 74, 99)]
    assert sample([]) == []


def test_an_unreadable_file_is_a_finding(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    (found,) = decode_all([(tmp_path / "folder.jpg", (1, 1))], jobs=1)
    assert "cannot be read" in found.problem
    assert Finding(IMAGE, "x", found.problem).severity == "error"


def die(item):
    """Stands for a process that the system kills, out of memory."""
    os._exit(1)


def test_a_killed_process_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "decode", die)
    with pytest.raises(UserError, match=r"0\.jpg or soon after: try fewer, --jobs 1"):
        decode_all([(tmp_path / f"{number}.jpg", (1, 1)) for number in range(20)], jobs=2)


def test_words_that_mean_the_same_are_read_once(dirty_coco):
    """A mapping for the parts, an alias, a union of parts, and one that is nobody's."""
    source = COCOSource(dirty_coco, splits={"all": ["train", "val"], "train": "train", "val": "val", "dev": ["val"]})
    reading = read_all(source)
    assert [split.split for split in reading.splits] == ["train", "val"]
    source = COCOSource(dirty_coco, splits={"val": {"split": "val"}, "test": {"split": "nowhere"}})
    reading = read_all(source)
    assert ([split.split for split in reading.splits], reading.absent) == (["val"], ["test"])
