"""COCO's AP: hand-worked cases, golden numbers, parity with pycocotools, difficult objects, empty and bad results."""

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
from evaluated import golden, ground_truth, predictions, random_data, result
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rankdet.data.records import DetectionSet, Record
from rankdet.errors import UserError
from rankdet.evaluation.coco import coco_ground_truth, coco_metrics

TWELVE = [  # in the order of COCOeval.stats
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large"),
]


def rounded_metrics(truth, results):
    """Metrics to 12 digits: pycocotools' precision of 1 is 1 - 2e-16."""
    return {key: round(value, 12) for key, value in coco_metrics(truth, results).items()}


def pycocotools_stats(truth, results):
    """The 12 numbers by pycocotools' own road: loadRes and summarize."""
    gt = COCO()
    gt.dataset = copy.deepcopy(truth)
    gt.createIndex()
    evaluator = COCOeval(gt, gt.loadRes(copy.deepcopy(results)), "bbox")
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    return evaluator.stats


def test_perfect_detection_scores_one_everywhere():
    boxes = [[10, 10, 40, 40], [80, 80, 50, 50]]
    metrics = rounded_metrics(ground_truth(boxes), [result(box, 0.9) for box in boxes])
    assert {key for key, value in metrics.items() if value != 1} == {
        "AP_small", "AR_small", "AP_large", "AR_large", "AR_1"
    }  # fmt: skip
    assert metrics["AR_1"] == 0.5  # one detection an image for two objects
    assert math.isnan(metrics["AP_small"])


def test_ap_by_hand():
    """Three objects; by falling score right, wrong, right.

    Recall 1/3 at precision 1, 2/3 at 2/3, never more. Of the 101 recall levels 0 ... 0.33 (34) have precision 1 and
    0.34 ... 0.66 (33) have 2/3, the rest 0: (34 + 33 * 2 / 3) / 101 = 56 / 101 at each IoU threshold.
    """
    truth = ground_truth([[10, 10, 40, 40], [60, 10, 40, 40], [110, 10, 40, 40]])
    results = [result([10, 10, 40, 40], 0.9), result([10, 100, 40, 40], 0.8), result([60, 10, 40, 40], 0.7)]
    metrics = coco_metrics(truth, results)
    assert metrics["AP"] == pytest.approx(56 / 101, abs=1e-12)
    for key in ("AP50", "AP95", "AP/a", "AP50/a"):
        assert metrics[key] == pytest.approx(56 / 101, abs=1e-12)
    assert metrics["AR_100"] == pytest.approx(2 / 3)
    assert metrics["AR_1"] == pytest.approx(1 / 3)


def test_ap_at_each_iou_by_hand():
    """A detection of IoU 40 * 29 / 40^2 = 0.725 is right at 0.50 ... 0.70, five of ten thresholds."""
    metrics = rounded_metrics(ground_truth([[10, 10, 40, 40]]), [result([10, 10, 40, 29], 0.9)])
    assert [metrics[f"AP{iou}"] for iou in range(50, 100, 5)] == [1, 1, 1, 1, 1, 0, 0, 0, 0, 0]
    assert metrics["AP"] == 0.5


def test_areas_split_at_32_and_96_pixels():
    truth = ground_truth([[0, 0, 31, 31], [40, 0, 40, 40], [90, 0, 100, 100]])
    metrics = rounded_metrics(truth, [result([0, 0, 31, 31], 0.9), result([90, 0, 100, 100], 0.8)])
    assert [metrics[f"AP_{area}"] for area in ("small", "medium", "large")] == [1, 0, 1]
    assert [metrics[f"AR_{area}"] for area in ("small", "medium", "large")] == [1, 0, 1]


def test_golden_numbers():
    visited = 0
    for name in ("lrp", "lrp_edge"):
        truth, results, expected = golden(name)
        metrics = coco_metrics(truth, results)
        np.testing.assert_allclose([metrics[key] for key in TWELVE], expected["coco_stats"], rtol=0, atol=1e-9)
        names = {category["id"]: category["name"] for category in truth["categories"]}
        for key in ("AP", "AP50"):
            for category_id, ap in zip(expected["category_ids"], expected[f"per_class_{key}"], strict=True):
                ours = metrics[f"{key}/{names[category_id]}"]
                assert math.isnan(ours) if ap is None or ap < 0 else ours == pytest.approx(ap, abs=1e-9)
                visited += 1
    assert visited == 12


@pytest.mark.parametrize("seed", range(4))
def test_equals_pycocotools_on_random_data(seed):
    truth, results = random_data(seed)
    assert len(results) > 20
    expected = [math.nan if value < 0 else value for value in pycocotools_stats(truth, results)]
    by_reference, metrics = coco_metrics(truth, results, reference=True), coco_metrics(truth, results)
    np.testing.assert_array_equal([by_reference[key] for key in TWELVE], expected)
    np.testing.assert_allclose([metrics[key] for key in TWELVE], expected, rtol=0, atol=1e-12)
    assert metrics["AP"] == pytest.approx(np.mean([metrics[f"AP{iou}"] for iou in range(50, 100, 5)]), abs=1e-12)
    assert metrics["AP"] == pytest.approx(np.mean([metrics[f"AP/class {i}"] for i in (2, 5, 11)]), abs=1e-12)


def test_arguments_are_left_alone_and_nothing_is_printed(capsys):
    truth, results = random_data(1)
    before = copy.deepcopy((truth, results))
    first = coco_metrics(truth, results)
    assert (truth, results) == before
    assert coco_metrics(truth, results) == first
    assert capsys.readouterr() == ("", "")


def test_annotation_ids_do_not_matter():
    """pycocotools alone takes a match with annotation id 0 for none."""
    truth, results = random_data(2)
    renumbered = copy.deepcopy(truth)
    for place, annotation in enumerate(renumbered["annotations"]):
        annotation["id"] = place
    bare = copy.deepcopy(truth)
    for annotation in bare["annotations"]:
        del annotation["id"], annotation["area"]
    assert coco_metrics(renumbered, results) == coco_metrics(bare, results) == coco_metrics(truth, results)


def test_no_results_score_zero():
    metrics = coco_metrics(ground_truth([[10, 10, 20, 20]], categories=("a", "b")), [])
    assert metrics["AP"] == metrics["AP50"] == metrics["AR_100"] == metrics["AP_small"] == metrics["AP/a"] == 0
    assert math.isnan(metrics["AP/b"])
    assert math.isnan(metrics["AP_large"])


def test_no_objects_are_not_a_number():
    metrics = coco_metrics(ground_truth([]), [result([0, 0, 10, 10], 0.5)])
    assert all(math.isnan(value) for value in metrics.values())
    assert all(math.isnan(value) for value in coco_metrics(ground_truth([]), []).values())


def test_class_without_objects_does_not_lower_the_mean():
    truth = ground_truth([[10, 10, 40, 40]], categories=("a", "b"))
    metrics = rounded_metrics(truth, [result([10, 10, 40, 40], 0.5), result([80, 80, 40, 40], 0.9, category=2)])
    assert metrics["AP"] == 1


def test_difficult_object_counts_neither_way():
    """Found or not, a difficult object changes nothing; a detection far from both stays wrong."""
    truth = ground_truth([[10, 10, 40, 40], [100, 100, 40, 40]])
    truth["annotations"][1]["difficult"] = 1
    easy, hard, wrong = result([10, 10, 40, 40], 0.5), result([100, 100, 40, 40], 0.9), result([10, 100, 40, 40], 0.8)
    assert rounded_metrics(truth, [easy])["AP"] == 1
    assert rounded_metrics(truth, [easy, hard])["AP"] == 1
    assert rounded_metrics(truth, [easy, hard, wrong])["AP"] == pytest.approx(0.5)
    assert rounded_metrics(truth, [hard])["AP"] == 0


def test_difficult_object_is_matched_by_iou_and_once_where_a_crowd_is_not():
    """Two small detections inside one large region: a crowd (overlap over the detection's own area) swallows both.

    A difficult object has IoU 400 / 10000 with each, so both stay wrong; and of two that fit it, the second is wrong.
    """
    truth = ground_truth([[0, 0, 20, 20], [50, 50, 100, 100]])
    inside = [result([60, 60, 20, 20], 0.9), result([100, 100, 20, 20], 0.8), result([0, 0, 20, 20], 0.7)]
    twice = [result([50, 50, 100, 100], 0.9), result([50, 50, 100, 99], 0.8), result([0, 0, 20, 20], 0.7)]
    truth["annotations"][1]["iscrowd"] = 1
    assert rounded_metrics(truth, inside)["AP"] == rounded_metrics(truth, twice)["AP"] == 1
    truth["annotations"][1] |= {"iscrowd": 0, "difficult": 1}
    assert rounded_metrics(truth, inside)["AP"] == pytest.approx(1 / 3)
    assert rounded_metrics(truth, twice)["AP"] == pytest.approx(1 / 2)


def test_detection_prefers_the_object_that_counts():
    """The difficult box fits better (IoU 1 against 0.8), yet the detection finds the one that counts."""
    truth = ground_truth([[0, 0, 100, 100], [0, 0, 100, 80]])
    truth["annotations"][0]["difficult"] = 1
    assert rounded_metrics(truth, [result([0, 0, 100, 100], 0.9)])["AP80"] == 1
    assert rounded_metrics(truth, [result([0, 0, 100, 100], 0.9)])["AP85"] == 0


def test_bad_results_are_refused():
    truth = ground_truth([[10, 10, 20, 20]])
    with pytest.raises(UserError, match=r"results entry 1: .*finite"):
        coco_metrics(truth, [result([10, 10, 20, 20], 0.5), result([math.nan, 10, 20, 20], 0.5)])
    with pytest.raises(UserError, match="results entry 0: image_id 2"):
        coco_metrics(truth, [result([10, 10, 20, 20], 0.5, image=2)])
    with pytest.raises(UserError, match="results entry 0: category_id 2"):
        coco_metrics(truth, [result([10, 10, 20, 20], 0.5, category=2)])


def test_ground_truth_of_a_detection_set():
    flags = {"difficult": np.array([False, True]), "crowd": np.array([True, False])}
    boxes = np.array([[1, 2, 11, 22], [0, 0, 5, 4]], np.float32)
    full = Record(7, Path("somewhere/seven.jpg"), 30, 40, boxes, np.array([1, 0]), **flags)
    empty = Record(
        3,
        Path("three.jpg"),
        10,
        20,
        np.zeros((0, 4), np.float32),
        np.zeros(0, int),
        np.zeros(0, bool),
        np.zeros(0, bool),
    )
    truth = coco_ground_truth(DetectionSet("toy", "test", ("a", "b"), (4, 90), (full, empty)))
    assert truth["images"] == [
        {"id": 7, "file_name": "seven.jpg", "height": 30, "width": 40},
        {"id": 3, "file_name": "three.jpg", "height": 10, "width": 20},
    ]
    assert truth["categories"] == [{"id": 4, "name": "a"}, {"id": 90, "name": "b"}]
    assert truth["annotations"] == [
        {"id": 1, "image_id": 7, "category_id": 90, "bbox": [1, 2, 10, 20], "area": 200, "iscrowd": 1, "difficult": 0},
        {"id": 2, "image_id": 7, "category_id": 4, "bbox": [0, 0, 5, 4], "area": 20, "iscrowd": 0, "difficult": 1},
    ]
    assert json.loads(json.dumps(truth)) == truth


def agree(truth, results):
    """Asserts that both evaluators give the same to 1e-12, key by key; returns how many keys have a number."""
    fast, reference = coco_metrics(truth, results), coco_metrics(truth, results, reference=True)
    assert list(fast) == list(reference)
    np.testing.assert_allclose(list(fast.values()), list(reference.values()), rtol=0, atol=1e-12, equal_nan=True)
    return sum(not math.isnan(value) for value in fast.values())


class TestTwoEvaluators:
    """faster-coco-eval, the default, against pycocotools: every key, on everything that may come."""

    @pytest.mark.parametrize("name", ["lrp", "lrp_edge"])
    def test_on_golden_data(self, name):
        assert agree(*golden(name)[:2]) > 20

    def test_on_a_detectors_predictions(self):
        truth, results = predictions()
        assert len(results) == 1000
        assert agree(truth, results) > 20
        assert coco_metrics(truth, results)["AP"] > 0.2

    def test_on_difficult_objects_and_crowds_among_them(self):
        truth, results = predictions()
        for place, annotation in enumerate(truth["annotations"]):
            annotation |= {"difficult": int(place % 3 == 0), "iscrowd": int(place % 7 == 0)}
        assert agree(truth, results) > 20

    def test_on_more_than_100_detections(self):
        """150 in one image, the right one 120th: it never counts."""
        truth = ground_truth([[0, 0, 40, 40]])
        results = [result([100, 100, 40, 40], 1 - place / 200) for place in range(150)]
        results[119]["bbox"] = [0, 0, 40, 40]
        assert agree(truth, results)
        assert coco_metrics(truth, results)["AP"] == 0

    def test_on_scores_that_are_logits_whole_or_huge(self):
        truth, results = random_data(3)
        for place, entry in enumerate(results):
            entry["score"] = (-3, 2, 1e300, -0.5, 0)[place % 5]
        assert agree(truth, results) > 10

    def test_on_scores_closer_than_single_precision_tells(self):
        truth, results = random_data(3)
        for place, entry in enumerate(results):
            entry["score"] = 0.5 + (place * 37 % 101) * 1e-12
        assert agree(truth, results) > 10

    def test_on_boxes_without_area(self):
        truth = ground_truth([[5, 5, 0, 0], [50, 50, 10, 10]])
        assert agree(truth, [result([5, 5, 0, 0], 0.9), result([50, 50, 10, 10], 0.8), result([50, 50, 0, 9], 0.7)])
        assert coco_metrics(truth, [result([5, 5, 0, 0], 0.9)])["AP"] == 0

    def test_on_nothing(self):
        truth, results = random_data(0)
        assert agree(truth, []) > 10
        assert agree(truth | {"annotations": []}, results) == agree(truth | {"annotations": []}, []) == 0
        assert agree(truth | {"annotations": [], "images": []}, []) == 0
        assert agree({"images": [], "annotations": [], "categories": []}, []) == 0

    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 2**31), crowds=st.booleans(), difficult=st.booleans(), size=st.sampled_from([1, 4]))
    def test_on_random_data(self, seed, crowds, difficult, size):
        """Scores of one digit, so that ties abound, within images and between them."""
        truth, results = random_data(seed, crowds, difficult, images=size)
        agree(truth, results)


def test_only_the_fields_that_count_reach_the_evaluators():
    """Other fields, of results as of objects, may mean something to an evaluator; values of NumPy are numbers too."""
    truth, results = random_data(4)
    expected = coco_metrics(truth, results)
    odd = [
        entry
        | {"drop": True, "iscrowd": 1, "area": 3.0, "ignore": 1, "id": 0, "segmentation": []}
        | {"bbox": tuple(np.float64(x) for x in entry["bbox"]), "score": np.float64(entry["score"])}
        for entry in results
    ]
    objects = [entry | {"ignore": 1, "lvis_mark": True, "segmentation": None} for entry in truth["annotations"]]
    assert coco_metrics(truth | {"annotations": objects}, odd) == expected
    images = [{"id": np.int64(image["id"])} for image in truth["images"]]
    assert coco_metrics(truth | {"images": images}, results) == expected
    assert type(images[0]["id"]) is np.int64
