"""COCO results lists: from detections, to a file and back, and what is refused."""

import json
import math

import pytest
import torch

from rankdet.errors import UserError
from rankdet.evaluation.postprocess import Detections
from rankdet.evaluation.results import check_results, load_results, save_results, to_results

GROUND_TRUTH = {
    "images": [{"id": 4}, {"id": 9}],
    "categories": [{"id": 3, "name": "a"}, {"id": 7, "name": "b"}],
    "annotations": [],
}
GOOD = {"image_id": 4, "category_id": 7, "bbox": [1.0, 2.0, 3.0, 4.0], "score": 0.5}


def detections(boxes, scores, labels):
    return Detections(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.tensor(scores), torch.tensor(labels).long()
    )


def test_results_hold_xywh_category_ids_and_plain_numbers():
    found = [detections([[1, 2, 4, 6], [0, 0, 1, 1]], [0.75, 0.25], [1, 0]), detections([], [], [])]
    assert to_results(found, [4, 9], (3, 7)) == [
        {"image_id": 4, "category_id": 7, "bbox": [1.0, 2.0, 3.0, 4.0], "score": 0.75},
        {"image_id": 4, "category_id": 3, "bbox": [0.0, 0.0, 1.0, 1.0], "score": 0.25},
    ]


def test_file_gives_back_the_very_numbers_sorted_by_image(tmp_path):
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(2, 5, 2, generator=generator) * 50
    boxes = torch.cat([corners, corners + torch.rand(2, 5, 2, generator=generator)], 2)
    found = [Detections(boxes[i], torch.rand(5, generator=generator), torch.arange(5) % 2) for i in range(2)]
    path = tmp_path / "new" / "results.json"
    save_results(to_results(found, [9, 4], (3, 7)), path)
    assert load_results(path) == to_results(found[::-1], [4, 9], (3, 7))


def test_file_does_not_depend_on_the_order_of_images(tmp_path):
    others = [GOOD | {"image_id": 9, "score": score} for score in (0.5, 0.5, 0.1)]
    save_results([GOOD, *others], tmp_path / "one.json")
    save_results([*others, GOOD], tmp_path / "two.json")
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert len(load_results(tmp_path / "one.json")) == 4


def test_no_results_make_a_file_too(tmp_path):
    save_results([], tmp_path / "results.json")
    assert load_results(tmp_path / "results.json") == []


def test_failed_save_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "results.json"
    save_results([GOOD], path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_results([GOOD | {"score": math.nan}], path)
    assert load_results(path) == [GOOD]
    assert list(tmp_path.iterdir()) == [path]


def test_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    save_results([GOOD], path)

    def full_disk(self, target):
        raise OSError("no space left on device")

    monkeypatch.setattr(type(path), "replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_results([], path)
    assert load_results(path) == [GOOD]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), ("[{", "not a JSON file"), ('{"a": 1}', "JSON dict"), ("\xff", "not a")],
)
def test_unreadable_files_are_named(tmp_path, content, message):
    path = tmp_path / "theirs.json"
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=rf"theirs\.json.*{message}"):
        load_results(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 5}, "image_id 5 is not in the ground truth"),
        ({"image_id": [4]}, r"image_id \[4\] is not in the ground truth"),
        ({"image_id": None}, "image_id None is not in the ground truth"),
        ({"image_id": "4"}, "image_id '4' is not in the ground truth"),
        ({"category_id": 1}, "category_id 1 .*is not in the ground truth"),
        ({"category_id": {}}, "category_id {} .*is not in the ground truth"),
        ({"score": math.nan}, "score nan .*is not a finite number"),
        ({"score": -math.inf}, "score -inf .*is not a finite number"),
        ({"score": None}, "score None .*is not a finite number"),
        ({"score": "0.5"}, "score '0.5' .*is not a finite number"),
        ({"score": 10**400}, "score 1000.*is not a finite number"),
        ({"bbox": [1, 2, math.inf, 4]}, "is not four finite numbers"),
        ({"bbox": [1, 2, 3]}, "is not four finite numbers"),
        ({"bbox": [1, 2, "3", 4]}, "is not four finite numbers"),
        ({"bbox": 3}, "bbox 3 is not four finite numbers"),
        ({"bbox": [1, 2, -3, 4]}, r"negative size; it must be x, y, width, height \(image_id 4\)"),
        ({"bbox": [1, 2, 1e200, 1e200]}, "no area that a computer can hold"),
        ({"bbox": [1, 2, 1e-200, 1e-200]}, "no area that a computer can hold"),
    ],
)
def test_bad_entries_are_named_by_their_place(change, message):
    with pytest.raises(UserError, match=f"^results entry 2: .*{message}"):
        check_results(GROUND_TRUTH, [GOOD, GOOD, GOOD | change, GOOD])


@pytest.mark.parametrize(
    "change",
    [{"score": 0}, {"score": -7.5}, {"score": 1e300}, {"bbox": [1, 2, 0, 0]}, {"bbox": (-9, -9, 3, 4)}, {"id": 5}],
)
def test_what_is_odd_but_legal(change):
    """Any finite score, for only the order matters; boxes without area or outside the image; further fields."""
    check_results(GROUND_TRUTH, [GOOD | change])
    check_results(GROUND_TRUTH, [])


def test_the_file_is_named_where_it_is_known():
    with pytest.raises(UserError, match=r"^theirs\.json entry 0: score nan"):
        check_results(GROUND_TRUTH, [GOOD | {"score": math.nan}], "theirs.json")


def test_missing_fields_and_wrong_types_are_named():
    with pytest.raises(UserError, match=r"results entry 1: .*score"):
        check_results(GROUND_TRUTH, [GOOD, {key: GOOD[key] for key in ("image_id", "category_id", "bbox")}])
    with pytest.raises(UserError, match="results entry 0: 17 is not a COCO result"):
        check_results(GROUND_TRUTH, [17])


def test_files_keep_json_readable_by_others(tmp_path):
    save_results([GOOD, GOOD], tmp_path / "results.json")
    assert json.loads((tmp_path / "results.json").read_text()) == [GOOD, GOOD]
