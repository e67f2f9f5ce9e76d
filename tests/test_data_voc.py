"""Reading folders in VOC's layout: what is there, what may be missing, and what each mistake is told."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rankdet.data.voc import VOCSource
from rankdet.errors import UserError


def write_image(
    root: Path, stem: str, boxes=(), suffix=".jpg", size="<size><width>20</width><height>10</height></size>"
):
    """A 20 x 10 image and its annotation; boxes: (name, xmin, ymin, xmax, ymax[, more tags])."""
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 10)).save(root / "JPEGImages" / f"{stem}{suffix}")
    objects = ""
    for name, *corners in boxes:
        tags = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=False)
        box = "".join(f"<{tag}>{value}</{tag}>" for tag, value in tags)
        extra = "".join(corners[4:])
        objects += f"<object><name>{name}</name>{extra}<bndbox>{box}</bndbox></object>"
    (root / "Annotations" / f"{stem}.xml").write_text(f"<annotation>{size}{objects}</annotation>")


def write_split(root: Path, split: str, text: str):
    (root / "ImageSets" / "Main" / f"{split}.txt").write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three images: train has a and b, val has c; no trainval, no test."""
    root = tmp_path / "pets"
    write_image(root, "a", [("dog", 1, 1, 20, 10), ("cat", 3, 4, 4, 6, "<difficult>1</difficult>")])
    write_image(root, "b", suffix=".png")
    write_image(root, "c", [("ant", 2.5, 3, 6, 7)], suffix=".jpeg")
    write_split(root, "train", "a\nb\n")
    write_split(root, "val", "c\n")
    return root


def test_values_by_hand(root: Path):
    """VOC's (1, 1, 20, 10) is the whole 20 x 10 image; (3, 4, 4, 6) is [2, 4] x [3, 6] in continuous pixels. ant is in
    val only, yet has label 0 everywhere."""
    data = VOCSource(root).read("train")
    assert (data.name, data.split) == ("pets", "train")
    assert data.classes == ("ant", "cat", "dog")
    assert data.category_ids == (1, 2, 3)
    assert data.dirt == {}
    a, b = data.records
    assert [a.image_id, b.image_id] == [0, 1]
    assert [a.path, b.path] == [root / "JPEGImages/a.jpg", root / "JPEGImages/b.png"]
    assert (a.height, a.width) == (10, 20)
    assert a.boxes.tolist() == [[0, 0, 20, 10], [2, 3, 4, 6]]
    assert a.labels.tolist() == [2, 1]
    assert a.difficult.tolist() == [False, True]
    assert a.crowd.tolist() == [False, False]
    for record, count in ((a, 2), (b, 0)):
        assert record.boxes.dtype == np.float32
        assert record.boxes.shape == (count, 4)
        assert record.labels.dtype == np.int64
        assert record.difficult.dtype == record.crowd.dtype == bool
        assert len(record.labels) == len(record.difficult) == len(record.crowd) == count


def test_given_classes_set_name_and_order(root: Path):
    data = VOCSource(root, "mine", ["dog", "cat", "ant", "emu"]).read("train")
    assert data.name == "mine"
    assert data.classes == ("dog", "cat", "ant", "emu")
    assert data.records[0].labels.tolist() == [0, 1]


def test_a_class_that_is_given_twice_is_refused(root: Path):
    with pytest.raises(UserError, match=r"data\.classes has 'dog' twice"):
        VOCSource(root, classes=["dog", "cat", "dog"])


def test_split_files_may_have_blank_lines_columns_and_windows_line_ends(root: Path):
    (root / "ImageSets/Main/train.txt").write_bytes(b"\xef\xbb\xbf\r\na  1\r\n\r\n  b -1\r\n")
    assert [record.path.stem for record in VOCSource(root).read("train").records] == ["a", "b"]


def test_file_names_may_hold_blanks(root: Path):
    write_image(root, "a dog 2", [("dog", 1, 1, 5, 5)])
    write_split(root, "train", "a dog 2\nb 1\n")
    assert [record.path.name for record in VOCSource(root).read("train").records] == ["a dog 2.jpg", "b.png"]


def test_splits_map_our_word_to_a_file(root: Path):
    source = VOCSource(root, splits={"test": "val", "train": "train"})
    assert source.read("test").split == "test"
    assert [record.path.stem for record in source.read("test").records] == ["c"]


def test_trainval_is_its_own_file_or_train_and_val(root: Path):
    source = VOCSource(root, splits={"trainval": "trainval"})
    union = source.read("trainval")
    assert [record.path.stem for record in union.records] == ["a", "b", "c"]
    assert [record.image_id for record in union.records] == [0, 1, 2]
    write_split(root, "trainval", "c\na\n")
    assert [record.path.stem for record in source.read("trainval").records] == ["c", "a"]


def test_parts_of_an_object_are_not_objects(root: Path):
    """VOC's person layout nests <part> with a name and a box of its own, here before the object's own."""
    part = "<part><name>head</name><bndbox><xmin>9</xmin></bndbox></part>"
    write_image(root, "a", [("dog", 1, 1, 5, 5, part)])
    data = VOCSource(root).read("train")
    assert data.classes == ("ant", "dog")
    assert data.records[0].boxes.tolist() == [[0, 0, 5, 5]]


def test_dirt_is_mended_counted_and_flags_stay_with_their_boxes(root: Path):
    """Of five boxes the second and fourth go (zero-area, inverted) and the last is clipped from 25 to 20; labels and
    difficult flags of the others stay theirs. An image without <size> is measured."""
    hard = "<difficult>1</difficult>"
    boxes = [("dog", 1, 1, 5, 5), ("cat", 4, 4, 4, 4), ("cat", 2, 2, 9, 9, hard), ("dog", 8, 2, 5, 9)]
    write_image(root, "a", [*boxes, ("ant", 11, 1, 25, 10)], size="")
    data = VOCSource(root).read("train")
    record = data.records[0]
    assert record.boxes.tolist() == [[0, 0, 5, 5], [1, 1, 9, 9], [10, 0, 20, 10]]
    assert record.labels.tolist() == [2, 1, 0]
    assert record.difficult.tolist() == [False, True, False]
    assert (record.height, record.width) == (10, 20)
    expected = {"zero-area box dropped": 1, "inverted box dropped": 1, "box clipped": 1, "image size missing": 1}
    assert data.dirt == expected


def make_mistake(root: Path, mistake: str):
    """One mistake in the folder of the fixture."""
    xml, main = root / "Annotations/a.xml", root / "ImageSets/Main"
    text = xml.read_text()
    changes = {
        "class": lambda: xml.write_text(text.replace("dog", "dgo")),
        "no image": lambda: (root / "JPEGImages/a.jpg").unlink(),
        "no annotation": lambda: xml.unlink(),
        "cut xml": lambda: xml.write_text("<annotation>\n<object>\n<name>do"),
        "empty xml": lambda: xml.write_text(""),
        "no corner": lambda: xml.write_text(text.replace("<xmax>20</xmax>", "")),
        "no name": lambda: xml.write_text(text.replace("<name>dog</name>", "<name> </name>")),
        "no number": lambda: xml.write_text(text.replace("<xmax>20</xmax>", "<xmax>wide</xmax>")),
        "no split": lambda: (main / "train.txt").unlink(),
        "twice": lambda: (main / "train.txt").write_text("a\nb\na\n"),
        "no folder": lambda: shutil.rmtree(root / "JPEGImages"),
        "no root": lambda: shutil.rmtree(root),
    }
    changes[mistake]()


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ("class", ["a.xml", "'dgo'", "data.classes", "ant, cat, dog"]),
        ("no image", ["JPEGImages/a.jpg", "does not exist", "'a'"]),
        ("no annotation", ["Annotations/a.xml", "does not exist", "'a'"]),
        ("cut xml", ["a.xml", "not valid XML", "line 3", "mend"]),
        ("empty xml", ["a.xml", "not valid XML", "line 1", "mend"]),
        ("no corner", ["a.xml", "<bndbox><xmax>", "add it"]),
        ("no name", ["a.xml", "<name>", "add it"]),
        ("no number", ["a.xml", "<xmax>", "'wide'", "correct"]),
        ("no split", ["Main/train.txt", "does not exist", "data.source.splits", "(val)"]),
        ("twice", ["train.txt", "'a'", "twice", "remove"]),
        ("no folder", ["pets", "no folder JPEGImages", "data.root"]),
        ("no root", ["pets", "does not exist", "data.root"]),
    ],
)
def test_each_mistake_gets_one_line_that_names_the_file_and_the_remedy(root: Path, mistake: str, words: list[str]):
    make_mistake(root, mistake)
    with pytest.raises(UserError) as caught:
        VOCSource(root, classes=["ant", "cat", "dog"]).read("train")
    message = str(caught.value)
    assert [word for word in words if word not in message] == []
    assert "\n" not in message


def test_a_union_of_splits_that_share_an_image_is_an_error(root: Path):
    write_split(root, "val", "c\nb\n")
    with pytest.raises(UserError, match=r"train\.txt and .*val\.txt: image 'b' is listed twice"):
        VOCSource(root).read("trainval")


def test_classes_cannot_be_discovered_where_there_is_no_object(tmp_path: Path):
    write_image(tmp_path, "a")
    write_split(tmp_path, "train", "a\n")
    with pytest.raises(UserError, match=r"no object in any annotation.*data\.classes"):
        VOCSource(tmp_path).read("train")
    assert VOCSource(tmp_path, classes=["dog"]).read("train").classes == ("dog",)


def test_fingerprint_follows_content_and_not_place(root: Path, tmp_path: Path):
    copy = shutil.copytree(root, tmp_path / "elsewhere" / "other")
    before = VOCSource(root).read("train").fingerprint()
    assert len(before) == 16
    assert int(before, 16) >= 0
    assert VOCSource(copy, "name").read("train").fingerprint() == before
    xml = copy / "Annotations/a.xml"
    text = xml.read_text()
    others = {before}
    for old, new in (
        ("dog", "doe"),
        ("<xmax>4<", "<xmax>5<"),
        ("<difficult>1", "<difficult>0"),
        ("<width>20", "<width>21"),
    ):
        assert old in text
        xml.write_text(text.replace(old, new))
        others.add(VOCSource(copy).read("train").fingerprint())
    xml.write_text(text)
    assert len(others) == 5
    assert VOCSource(copy).read("val").fingerprint() not in others
    assert VOCSource(copy).read("train").fingerprint() == before


def test_bccd(shared_data: Path):
    """364 photographs of 640 x 480; two RBC are written as a single point, one in train and one in val. Corners of the
    first object of BloodImage_00007 as its file has them: 193 92 387 285."""
    source = VOCSource(shared_data / "bccd")
    splits = {split: source.read(split) for split in ("train", "val", "trainval", "test")}
    assert {split: len(data.records) for split, data in splits.items()} == {
        "train": 205,
        "val": 87,
        "trainval": 292,
        "test": 72,
    }
    assert {data.classes for data in splits.values()} == {("Platelets", "RBC", "WBC")}
    assert [data.dirt for data in splits.values()] == [{"zero-area box dropped": number} for number in (1, 1, 2)] + [{}]
    num_objects = sum(len(record.boxes) for split in ("trainval", "test") for record in splits[split].records)
    assert num_objects == 4888 - 2
    assert splits["test"].records[0].boxes[0].tolist() == [192, 91, 387, 285]
    assert splits["test"].name == "bccd"
