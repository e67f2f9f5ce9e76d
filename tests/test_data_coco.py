"""Reading folders in COCO's layout, telling them from VOC's, and what each mistake is told."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rankdet.data.coco import COCOSource, coco_splits
from rankdet.data.layout import detect_source
from rankdet.errors import UserError

CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]


def annotation(image_id: int, category_id: int, bbox: list[Any], **more: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": image_id, "category_id": category_id, "bbox": bbox, **more}


def content(names: dict[int, str], annotations: list[dict[str, Any]]) -> dict[str, Any]:
    """What a JSON of 20 x 10 images holds."""
    images = [{"id": key, "file_name": name, "width": 20, "height": 10} for key, name in names.items()]
    return {"images": images, "annotations": annotations, "categories": CATEGORIES}


def write(root: Path, split: str, data: dict[str, Any]):
    path = root / f"annotations/instances_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1))
    for image in data["images"]:
        file = root / split / image["file_name"]
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 10)).save(file)


def train_content() -> dict[str, Any]:
    """Images 5 (two objects), 2 (none) and 9 (a crowd), listed in this order."""
    boxes = [
        annotation(9, 3, [0, 0, 20, 10], iscrowd=1),
        annotation(5, 7, [1.5, 2, 3, 4], iscrowd=0),
        annotation(5, 3, [10, 0, 10, 10]),
    ]
    return content({5: "x/five.jpg", 2: "two.png", 9: "nine.jpg"}, boxes)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """train2017 and val2017 with two categories, 3 and 7."""
    root = tmp_path / "pets"
    write(root, "train2017", train_content())
    write(root, "val2017", content({5: "v.jpg"}, []))
    return root


def test_values_by_hand(root: Path):
    """COCO's [1.5, 2, 3, 4] is x, y, width, height: [1.5, 4.5] x [2, 6]. Category 3 is label 0, 7 is label 1."""
    data = COCOSource(root).read("train")
    assert (data.name, data.split) == ("pets", "train")
    assert data.classes == ("cat", "dog")
    assert data.category_ids == (3, 7)
    assert data.dirt == {}
    assert [record.image_id for record in data.records] == [5, 2, 9]
    five, two, nine = data.records
    assert five.path == root / "train2017/x/five.jpg"
    assert (five.height, five.width) == (10, 20)
    assert five.boxes.tolist() == [[1.5, 2, 4.5, 6], [10, 0, 20, 10]]
    assert five.labels.tolist() == [1, 0]
    assert five.crowd.tolist() == [False, False]
    assert nine.crowd.tolist() == [True]
    for record, count in ((five, 2), (two, 0), (nine, 1)):
        assert record.boxes.dtype == np.float32
        assert record.boxes.shape == (count, 4)
        assert record.labels.dtype == np.int64
        assert record.difficult.tolist() == [False] * count
        assert record.difficult.dtype == record.crowd.dtype == bool


def test_dirt_is_mended_counted_and_flags_stay_with_their_boxes(root: Path):
    """Dropped: a width of 0, a height of -1, NaN, a box at x = 30. Clipped: [15, 0, 10, 5] to x = 20. An image without
    width is measured. Only the crowd and the clipped dog are left."""
    data = train_content()
    boxes = [[0, 0, 0, 5], [1, 8, 5, -1], [float("nan"), 0, 1, 1], [30, 0, 5, 5], [15, 0, 10, 5]]
    data["annotations"] = [annotation(5, 7, box) for box in boxes]
    data["annotations"].insert(2, annotation(5, 3, [1, 1, 2, 2], iscrowd=1))
    del data["images"][0]["width"]
    write(root, "train2017", data)
    result = COCOSource(root, "other").read("train")
    record = result.records[0]
    assert record.boxes.tolist() == [[1, 1, 3, 3], [15, 0, 20, 5]]
    assert record.labels.tolist() == [0, 1]
    assert record.crowd.tolist() == [True, False]
    assert (record.height, record.width) == (10, 20)
    kinds = ("zero-area box dropped", "inverted box dropped", "non-finite box dropped", "box outside its image dropped")
    assert result.dirt == dict.fromkeys([*kinds, "box clipped", "image size missing"], 1)


def test_other_places_for_files(tmp_path: Path):
    write(tmp_path / "a", "train", train_content())
    (tmp_path / "a/annotations/instances_train.json").rename(tmp_path / "a/train/_annotations.coco.json")
    source = COCOSource(tmp_path / "a", annotations="{split}/_annotations.coco.json")
    assert source.splits == {"train": "train", "trainval": "train"}
    assert len(source.read("train").records) == 3
    shutil.move(tmp_path / "a/train", tmp_path / "b")
    source = COCOSource(tmp_path, annotations="b/_annotations.coco.json", images="b", splits={})
    assert len(source.read("anything").records) == 3


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (
            ["train2017", "val2017"],
            {"train": "train2017", "val": "val2017", "trainval": "train2017", "test": "val2017"},
        ),
        (
            ["test", "train", "valid"],
            {"train": "train", "val": "valid", "test": "test", "trainval": ["train", "valid"]},
        ),
        (["train", "minival"], {"train": "train", "trainval": "train"}),
        (["test"], {"test": "test"}),
        ([], {}),
    ],
)
def test_splits_are_found_by_their_files_names(tmp_path: Path, names: list[str], splits: dict[str, Any]):
    (tmp_path / "annotations").mkdir()
    for name in names:
        (tmp_path / f"annotations/instances_{name}.json").touch()
    (tmp_path / "annotations/captions_train2017.json").touch()
    assert coco_splits(tmp_path) == splits


def test_several_files_for_a_split_are_not_guessed(root: Path):
    (root / "annotations/instances_train2014.json").touch()
    with pytest.raises(UserError, match=r"several train splits \(train2014, train2017\).*data\.source\.splits\.train"):
        COCOSource(root)
    assert len(COCOSource(root, splits={"train": "train2017"}).read("train").records) == 3


def test_a_union_numbers_its_images_anew(root: Path):
    """Both splits have an image with id 5."""
    data = COCOSource(root, splits={"trainval": ["train2017", "val2017"]}).read("trainval")
    assert [record.image_id for record in data.records] == [0, 1, 2, 3]
    assert [record.path.name for record in data.records] == ["five.jpg", "two.png", "nine.jpg", "v.jpg"]
    with pytest.raises(UserError, match="train2017 and train2017 share images"):
        COCOSource(root, splits={"trainval": ["train2017", "train2017"]}).read("trainval")


def test_a_union_needs_one_list_of_categories(root: Path):
    other = content({1: "v.jpg"}, [])
    other["categories"] = [{"id": 3, "name": "cat"}]
    write(root, "val2017", other)
    with pytest.raises(
        UserError, match=r"instances_val2017\.json and .*instances_train2017\.json list different categ"
    ):
        COCOSource(root, splits={"trainval": ["train2017", "val2017"]}).read("trainval")


def edited(**lists: list[Any]) -> str:
    return json.dumps(train_content() | lists)


IMAGES = train_content()["images"]
MISTAKES: list[tuple[str | bytes, list[str]]] = [
    ('{"images": [],\n "annotations": [,]}', ["not valid JSON", "line 2, column 18", "mend"]),
    ("", ["not valid JSON", "line 1", "mend"]),
    (b'{"images": "\xff"}', ["not valid JSON", "byte 12", "mend"]),
    ("[]", ["no list 'images'", "correct"]),
    ('{"images": [], "annotations": []}', ["no list 'categories'", "correct"]),
    (edited(images=[*IMAGES, {"id": 1}]), ["images[3]", "file_name", "str"]),
    (edited(images=[{"id": "1", "file_name": "two.png"}]), ["images[0]", "no id of type int"]),
    (edited(images=["two.png"]), ["images[0]", "no id"]),
    (edited(images=[*IMAGES, {"id": 5, "file_name": "y"}]), ["images", "id 5 twice"]),
    (edited(images=[*IMAGES, {"id": 6, "file_name": "two.png"}]), ["images", "'two.png' twice"]),
    (edited(images=[*IMAGES, {"id": 6, "file_name": "gone.jpg"}]), ["train2017/gone.jpg", "does not exist", "id 6"]),
    (edited(images=[IMAGES[0] | {"width": "wide"}], annotations=[]), ["width", "id 5", "'wide'", "correct"]),
    (edited(categories=[{"id": 3}]), ["categories[0]", "name"]),
    (edited(categories=[*CATEGORIES, {"id": 3, "name": "emu"}]), ["categories", "id 3 twice"]),
    (edited(categories=[*CATEGORIES, {"id": 4, "name": "cat"}]), ["categories", "'cat' twice"]),
    (edited(categories=[], annotations=[]), ["categories is empty", "add"]),
    (edited(annotations=[{"id": 1, "image_id": 5, "category_id": 3}]), ["annotations[0]", "bbox"]),
    (edited(annotations=[annotation(4, 3, [0, 0, 1, 1])]), ["annotation 1", "image_id 4", "images does not list"]),
    (
        edited(annotations=[annotation(5, 4, [0, 0, 1, 1])]),
        ["annotation 1", "category_id 4", "categories does not list"],
    ),
    (edited(annotations=[annotation(5, 3, [0, 0, 1])]), ["bbox", "id 1", "[0, 0, 1]", "4 number"]),
    (edited(annotations=[annotation(5, 3, [0, 0, 1, "1"])]), ["bbox", "id 1", "4 number"]),
]


@pytest.mark.parametrize(("text", "words"), MISTAKES, ids=[" ".join(words) for _, words in MISTAKES])
def test_each_mistake_gets_one_line_that_names_the_file_and_the_remedy(root: Path, text: str | bytes, words: list[str]):
    path = root / "annotations/instances_train2017.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as caught:
        COCOSource(root).read("train")
    message = str(caught.value)
    assert [word for word in ["instances_train2017.json", *words] if word not in message] == []
    assert "\n" not in message


def test_missing_root_and_missing_split(root: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"nowhere does not exist: set data\.root"):
        COCOSource(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"instances_mini\.json does not exist.*splits.*instances_train2017\.json"):
        COCOSource(root).read("mini")
    (root / "annotations/instances_train2017.json").unlink()
    with pytest.raises(UserError, match=r"instances_train\.json does not exist.*\(instances_val2017\.json\)"):
        COCOSource(root).read("train")


def test_detect_source(root: Path, tmp_path: Path):
    assert detect_source(root) == "coco"
    (tmp_path / "voc/Annotations").mkdir(parents=True)
    (tmp_path / "voc/ImageSets/Main").mkdir(parents=True)
    assert detect_source(str(tmp_path / "voc")) == "voc"
    with pytest.raises(UserError, match=r"neither VOC.*Annotations.*nor COCO.*instances_"):
        detect_source(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        detect_source(tmp_path / "nowhere")
    shutil.copytree(tmp_path / "voc", root, dirs_exist_ok=True)
    with pytest.raises(UserError, match="VOC's and in COCO's layout: choose with data=voc or data=coco"):
        detect_source(root)


def test_coco128(shared_data: Path):
    """128 photographs each; 80 classes whose ids run to 90. The first training annotation is [1.08, 187.69, 611.59,
    285.84], category 51."""
    folder = shared_data / "coco128"
    assert detect_source(folder) == "coco"
    source = COCOSource(folder)
    train, test = source.read("train"), source.read("test")
    assert (len(train.records), len(test.records)) == (128, 128)
    assert train.classes == test.classes
    assert len(train.classes) == len(train.category_ids) == 80
    assert (train.category_ids[0], train.category_ids[-1]) == (1, 90)
    assert (train.classes[0], train.classes[-1]) == ("person", "toothbrush")
    assert sum(len(record.boxes) for record in train.records) == 929
    assert sum(len(record.boxes) == 0 for record in train.records) == 2
    first = train.records[0]
    np.testing.assert_allclose(first.boxes[0], [1.08, 187.69, 612.67, 473.53], rtol=1e-6)
    assert train.category_ids[first.labels[0]] == 51
    assert train.dirt == test.dirt == {}
