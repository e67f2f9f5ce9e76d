"""Splits of COCO that are cut by lists of image ids, or whose annotations a server keeps."""

import json

import pytest
from made_up_sets import COCO_IMAGES, coco_root, composed

from rankdet.build import make
from rankdet.data.coco import COCOSource
from rankdet.errors import UserError

OLD = ("annotations_trainval2014", "val2014", "train2014", "annotations_trainval2017")


@pytest.fixture
def root(tmp_path):
    """COCO 2014, the JSON files of 2017, and 2017's test images."""
    return coco_root(tmp_path / "coco", *OLD, "image_info_test2017", "test2017")


def source(root, data, minival=None):
    cfg = composed([f"data={data}"])
    cfg.data.root = str(root)
    if minival:
        cfg.data.minival = minival
    return make(cfg.data.source)


def names(split):
    return [record.path.name for record in split.records]


def test_trainval35k_and_minival(root):
    """Of val2014's 7, 30 and 40, val2017 has 7 and 40. minival keeps COCO's ids; the union is numbered from 0."""
    made = source(root, "coco_trainval35k")
    learnt = ["COCO_train2014_000000000009.jpg", "COCO_train2014_000000000025.jpg", "COCO_val2014_000000000030.jpg"]
    reported = ["COCO_val2014_000000000007.jpg", "COCO_val2014_000000000040.jpg"]
    for word in ("train", "trainval"):
        split = made.read(word)
        assert names(split) == learnt
        assert [record.image_id for record in split.records] == [0, 1, 2]
    for word in ("val", "test"):
        split = made.read(word)
        assert names(split) == reported
        assert [record.image_id for record in split.records] == [7, 40]
    assert made.read("test").records[1].boxes.tolist() == [[1, 2, 31, 7]]
    assert made.read("test").category_ids == (1, 18)


def test_the_list_may_be_text(root):
    (root / "minival.txt").write_text("40\r\n7\n")
    made = source(root, "coco_trainval35k", "minival.txt")
    assert [record.image_id for record in made.read("val").records] == [7, 40]
    assert len(made.read("train").records) == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "minival.txt does not exist: it must list image ids, one a line (.txt) or as the images of a COCO"),
        ("7\nforty\n", "minival.txt is no list of image ids"),
        ("7\n41\n", "minival.txt lists image id 41, which "),
    ],
)
def test_a_list_that_cannot_be(root, content, words):
    if content:
        (root / "minival.txt").write_text(content)
    made = source(root, "coco_trainval35k", "minival.txt")
    for word in ("train", "val"):
        with pytest.raises(UserError) as caught:
            made.read(word)
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
    (root / "minival.json").write_text("{}")
    with pytest.raises(UserError, match=r"minival\.json is no list of image ids \(KeyError\('images'\)\)"):
        source(root, "coco_trainval35k", "minival.json").read("val")


def test_test_dev_has_images_and_nothing_else(root):
    split = source(root, "coco2017").read("test-dev")
    assert [record.image_id for record in split.records] == COCO_IMAGES["test2017"]
    assert names(split) == ["000000000003.jpg", "000000000006.jpg"]
    assert sum(len(record.boxes) for record in split.records) == 0
    assert split.category_ids == (1, 18)
    assert not split.labelled
    path = root / "annotations/image_info_test-dev2017.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"categories": []}))
    with pytest.raises(UserError, match="categories is empty"):
        source(root, "coco2017").read("test-dev")


def test_annotations_may_be_missing_only_where_that_is_said(root):
    made = COCOSource(root, annotations="annotations/image_info_{split}.json", images="test2017", splits={})
    with pytest.raises(UserError, match="no list 'annotations'"):
        made.read("test-dev2017")


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"split": "val2014", "olny": "x"}, "a part has no key 'olny'; there are split, annotations"),
        ({"images": "val2014"}, "needs a split, or annotations and images"),
    ],
)
def test_a_part_that_is_none(root, part, words):
    with pytest.raises(UserError, match=r"data\.source\.splits") as caught:
        COCOSource(root, splits={"val": part}).read("val")
    assert words in str(caught.value)


def test_parts_that_share_an_image(root):
    parts = ["val2014", {"split": "val2014", "only": "annotations/instances_val2017.json"}]
    with pytest.raises(UserError, match="share images, so all would have them twice"):
        COCOSource(root, splits={"all": parts}).read("all")
