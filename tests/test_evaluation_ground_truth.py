"""Ground truth that others wrote: read, and what damage is named."""

import copy
import json
import math

import pytest

from rankdet.errors import UserError
from rankdet.evaluation.coco import coco_metrics
from rankdet.evaluation.ground_truth import check_ground_truth, read_ground_truth
from rankdet.evaluation.lrp import lrp_metrics
from rankdet.evaluation.voc import voc_metrics

GOOD = {
    "images": [{"id": 4}, {"id": 9}],
    "categories": [{"id": 3, "name": "a"}, {"id": 7, "name": "b"}],
    "annotations": [
        {"id": 1, "image_id": 4, "category_id": 3, "bbox": [0, 0, 10, 10]},
        {"id": 2, "image_id": 9, "category_id": 7, "bbox": [0, 0, 0, 10], "area": 0, "iscrowd": 1, "difficult": True},
    ],
}


def test_reads_what_is_sound(tmp_path):
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(GOOD))
    assert read_ground_truth(path) == GOOD
    check_ground_truth(GOOD)
    check_ground_truth({"images": [], "categories": [], "annotations": []})


def test_ids_of_annotations_may_be_missing():
    bare = copy.deepcopy(GOOD)
    for annotation in bare["annotations"]:
        del annotation["id"]
    check_ground_truth(bare)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"cannot be read \(No such file"),
        ("", "not a JSON file"),
        (json.dumps(GOOD)[:-40], "not a JSON file .*is it complete"),
        ("[" * 100_000, "not a JSON file"),
        ("[]", "holds a JSON list"),
        ('{"images": []}', "has no list 'categories'"),
    ],
)
def test_unreadable_files_are_named(tmp_path, content, message):
    path = tmp_path / "theirs.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=rf"theirs\.json.*{message}") as caught:
        read_ground_truth(path)
    assert "\n" not in str(caught.value)


def test_a_folder_in_the_place_of_a_file(tmp_path):
    with pytest.raises(UserError, match=rf"{tmp_path}: cannot be read"):
        read_ground_truth(tmp_path)


BAD = [
    ("images", 1, {"id": 4}, "images: id 4 occurs twice"),
    ("images", 1, {"id": "9"}, r"images\[1\]: id is '9', not a whole number"),
    ("images", 1, {"id": True}, r"images\[1\]: id is True, not a whole number"),
    ("images", 1, {"id": None}, r"images\[1\]: id is None"),
    ("categories", 1, {"id": 3}, "categories: id 3 occurs twice"),
    ("categories", 1, {"name": "a"}, "categories: name 'a' occurs twice"),
    ("categories", 0, {"name": 5}, r"categories\[0\]: name is 5, not text"),
    ("annotations", 1, {"id": 1}, "annotations: id 1 occurs twice"),
    ("annotations", 1, {"image_id": 5}, r"annotations\[1\] \(id 2\): image_id 5 is not among the images"),
    ("annotations", 1, {"image_id": [9]}, "image_id .9. is not among the images"),
    ("annotations", 1, {"category_id": 5}, "category_id 5 is not among the categories"),
    ("annotations", 0, {"bbox": [0, 0, -1, 5]}, r"annotations\[0\] \(id 1\): .*negative size"),
    ("annotations", 0, {"bbox": [0, math.nan, 1, 5]}, "not four finite numbers"),
    ("annotations", 0, {"bbox": [0, 1, 5]}, "not four finite numbers"),
    ("annotations", 0, {"bbox": None}, "bbox None is not four finite numbers"),
    ("annotations", 0, {"area": math.nan}, "area is nan, not a finite number"),
    ("annotations", 0, {"area": None}, "area is None, not a finite number"),
    ("annotations", 0, {"iscrowd": 2}, "iscrowd is 2, not 0 or 1"),
    ("annotations", 0, {"difficult": "yes"}, "difficult is 'yes', not 0 or 1"),
]


@pytest.mark.parametrize(("name", "place", "change", "message"), BAD)
def test_damage_is_named(name, place, change, message):
    damaged = copy.deepcopy(GOOD)
    damaged[name][place] |= change
    with pytest.raises(UserError, match=rf"^theirs: .*{message}"):
        check_ground_truth(damaged, "theirs")


def test_damage_by_what_is_missing():
    for name, key in (("images", "id"), ("categories", "name"), ("annotations", "bbox"), ("annotations", "image_id")):
        damaged = copy.deepcopy(GOOD)
        del damaged[name][0][key]
        with pytest.raises(UserError, match=rf"^ground truth: {name}\[0\].*{key}"):
            check_ground_truth(damaged)
    with pytest.raises(UserError, match="no list 'images' of objects"):
        check_ground_truth(GOOD | {"images": [4]})


@pytest.mark.parametrize("metric", [coco_metrics, voc_metrics, lrp_metrics])
def test_every_metric_refuses_it(metric):
    with pytest.raises(UserError, match="images: id 4 occurs twice"):
        metric(GOOD | {"images": [{"id": 4}, {"id": 4}]}, [])
