"""Matching: against pycocotools' own, match for match, and its rules one by one."""

import contextlib
import io

import numpy as np
import pytest
from evaluated import golden, ground_truth, predictions, random_data, result
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rankdet.errors import UserError
from rankdet.evaluation.matches import RANGES, coco_matches


class Difficult(COCOeval):
    """COCOeval that ignores difficult objects; its _prepare overwrites the field `ignore`."""

    def _prepare(self):
        super()._prepare()
        for annotations in self._gts.values():
            for annotation in annotations:
                annotation["ignore"] = annotation["ignore"] or annotation.get("difficult", 0)


def index(truth, annotations):
    coco = COCO()
    coco.dataset = truth | {"annotations": [entry | {"id": i + 1} for i, entry in enumerate(annotations)]}
    coco.createIndex()
    return coco


def pycocotools_matches(truth, results, iou):
    """(area, class name) -> scores, right, ious, num_objects, put together from pycocotools' evalImgs."""
    objects = [{"area": b["bbox"][2] * b["bbox"][3], "iscrowd": 0} | b for b in truth["annotations"]]
    boxes = [b | {"area": b["bbox"][2] * b["bbox"][3], "iscrowd": 0} for b in results]
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = Difficult(index(truth, objects), index(truth, boxes), "bbox")
        evaluator.params.iouThrs = np.array([iou])
        evaluator.evaluate()
    limits = {tuple(map(float, limits)): area for area, limits in RANGES.items()}
    names = {category["id"]: category["name"] for category in truth["categories"]}
    found = {(area, name): ([], [], [], [0]) for area in RANGES for name in names.values()}
    for entry in filter(None, evaluator.evalImgs):
        pair = (entry["image_id"], entry["category_id"])
        scores, right, ious, count = found[limits[tuple(map(float, entry["aRng"]))], names[pair[1]]]
        count[0] += int((entry["gtIgnore"] == 0).sum())
        columns = [annotation["id"] for annotation in evaluator._gts[pair]]
        for row, score in enumerate(entry["dtScores"]):
            if not entry["dtIgnore"][0, row]:
                match = int(entry["dtMatches"][0, row])
                scores.append(score)
                right.append(match > 0)
                ious.append(evaluator.ious[pair][row, columns.index(match)] if match else 0.0)
    return found


def agree(truth, results, iou=0.5):
    """Asserts that both match alike, exactly; returns the number of detections that count."""
    ours, visited = coco_matches(truth, results, iou, tuple(RANGES)), 0
    for (area, name), (scores, right, ious, count) in pycocotools_matches(truth, results, iou).items():
        order = np.argsort(-np.array(scores), kind="stable")
        matches = ours[area][name]
        assert matches.scores.tolist() == [scores[i] for i in order]
        assert matches.right.tolist() == [right[i] for i in order]
        assert matches.ious.tolist() == [ious[i] for i in order]
        assert matches.num_objects == count[0]
        visited += len(scores)
    return visited


class TestAgainstPycocotools:
    """Scores, right and wrong, the IoU of each match and the count of objects, by class and range of sizes."""

    @pytest.mark.parametrize("name", ["lrp", "lrp_edge"])
    def test_golden_data(self, name):
        assert agree(*golden(name)[:2]) > 200

    @pytest.mark.parametrize("iou", [0.5, 0.75])
    def test_a_detectors_predictions(self, iou):
        truth, results = predictions()
        for place, annotation in enumerate(truth["annotations"]):
            annotation |= {"difficult": int(place % 5 == 0), "iscrowd": int(place % 7 == 0)}
        assert agree(truth, results, iou) > 1000

    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 2**31), iou=st.sampled_from([0.1, 0.5, 0.95]))
    def test_random_data(self, seed, iou):
        agree(*random_data(seed, difficult=True, images=4), iou)


def test_by_hand():
    """Two objects of 10 x 10. The best detection fits the first with IoU 0.8 and takes it; the next fits it exactly.

    It comes too late and is wrong, as is the third, beside both; the last finds the second object with IoU 0.5.
    """
    truth = ground_truth([[0, 0, 10, 10], [50, 0, 10, 10]])
    results = [
        result([50, 0, 5, 10], 0.1),
        result([0, 0, 8, 10], 0.9),
        result([0, 0, 10, 10], 0.8),
        result([100, 100, 10, 10], 0.8),
    ]
    found = coco_matches(truth, results)["all"]["a"]
    assert found.scores.tolist() == [0.9, 0.8, 0.8, 0.1]
    assert found.right.tolist() == [True, False, False, True]
    assert found.ious == pytest.approx([0.8, 0, 0, 0.5], abs=1e-12)
    assert found.num_objects == 2


def test_equal_scores_stand_by_image_and_then_as_given():
    truth = ground_truth([(2, 1, [0, 0, 10, 10]), (1, 1, [0, 0, 10, 10])], images=2)
    sizes = {8: 2, 9: 1, 10: 2}  # the width tells which is which
    results = [result([0, 0, width, 10], 0.5, image=image) for width, image in sizes.items()]
    found = coco_matches(truth, results)["all"]["a"]
    assert found.ious == pytest.approx([0.9, 0.8, 0])  # image 1 first; in image 2 the first given takes the object


def test_nothing_to_find_and_nothing_found():
    truth = ground_truth([[0, 0, 10, 10]], categories=("a", "b"))
    assert [len(part) for part in coco_matches(truth, [])["all"]["a"][:3]] == [0, 0, 0]
    assert coco_matches(truth, [])["all"]["a"].num_objects == 1
    wrong = coco_matches(truth, [result([0, 0, 10, 10], 0.5, category=2)])["all"]["b"]
    assert (wrong.right.tolist(), wrong.num_objects) == ([False], 0)


def test_bad_results_are_refused():
    with pytest.raises(UserError, match="results entry 0: image_id 2"):
        coco_matches(ground_truth([[0, 0, 10, 10]]), [result([0, 0, 10, 10], 0.5, image=2)])
