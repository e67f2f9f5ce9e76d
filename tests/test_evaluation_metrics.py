"""All metrics together: the keys of a record, groups, the text, and where COCO's and VOC's AP must agree."""

import math

import numpy as np
import pytest
from evaluated import golden, ground_truth, predictions, random_data, result
from hypothesis import given, settings
from hypothesis import strategies as st

from rankdet.data.records import DetectionSet, Record
from rankdet.errors import UserError
from rankdet.evaluation.coco import coco_metrics
from rankdet.evaluation.metrics import GROUPS, all_metrics, metrics_of, metrics_text
from rankdet.evaluation.voc import voc_metrics

OVERALL = {
    *("AP", "AP_small", "AP_medium", "AP_large", "AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large"),
    *(f"AP{iou}" for iou in range(50, 100, 5)),
    *("voc_AP50_11", "voc_AP50_area", "rho"),
    *("oLRP", "oLRP_loc", "oLRP_FP", "oLRP_FN", "oLRP_small", "oLRP_medium", "oLRP_large"),
}
PER_CLASS = {"AP", "AP50", "voc_AP50_11", "voc_AP50_area", "oLRP", "oLRP_loc", "oLRP_FP", "oLRP_FN", "rho"} | {
    "oLRP_threshold"
}


def test_what_a_run_records(tmp_path):
    box = np.array([[10, 10, 50, 50]], np.float32)
    record = Record(3, tmp_path / "a.jpg", 100, 100, box, np.array([1]), np.array([False]), np.array([False]))
    split = DetectionSet("toy", "test", ("cat", "dog/wolf"), (1, 2), (record,))
    metrics = all_metrics(split, [result([10, 10, 40, 40], 0.25, image=3, category=2)])
    assert set(metrics) == OVERALL | {f"{key}/{name}" for key in PER_CLASS for name in ("cat", "dog/wolf")}
    assert metrics["AP"] == metrics["AP90"] == metrics["voc_AP50_area"] == 1
    assert metrics["oLRP"] == 0
    assert metrics["oLRP_threshold/dog/wolf"] == 0.25
    assert metrics["AP/cat"] is metrics["oLRP/cat"] is metrics["AP_small"] is metrics["rho"] is None
    assert all(value is None or type(value) is float for value in metrics.values())


def test_a_split_whose_objects_a_server_keeps_has_none(tmp_path):
    """All keys, no value, whatever was detected; nothing is spent on matching."""
    none = np.zeros(0, bool)
    record = Record(3, tmp_path / "a.jpg", 100, 100, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), none, none)
    split = DetectionSet("toy", "test", ("cat",), (1,), (record,), labelled=False)
    metrics = all_metrics(split, [result([10, 10, 40, 40], 0.25, image=3)])
    assert set(metrics) == OVERALL | {f"{key}/cat" for key in PER_CLASS}
    assert set(metrics.values()) == {None}


def test_groups_are_each_others_complement():
    truth, results = golden("lrp")[:2]
    whole, parts = metrics_of(truth, results), [metrics_of(truth, results, [group]) for group in GROUPS]
    assert {key: value for part in parts for key, value in part.items()} == whole
    assert sum(map(len, parts)) == len(whole)


def test_order_of_images_does_not_matter():
    """Scores tie between images; within one they keep their order."""
    truth, results = random_data(8)
    by_image = sorted(results, key=lambda entry: -entry["image_id"])
    assert [entry["image_id"] for entry in by_image] != [entry["image_id"] for entry in results]
    assert metrics_of(truth, by_image) == metrics_of(truth, results)


def test_bad_results_are_refused_before_anything_is_done():
    with pytest.raises(UserError, match="results entry 1: 5 is not a COCO result"):
        metrics_of(ground_truth([]), [result([0, 0, 1, 1], 0.5), 5])


def test_text_by_hand():
    metrics = {"AP": 0.12345, "AP_small": None, "rho": -0.5, "AP/cat": 1.0, "AP/big dog": None}
    metrics |= {"oLRP_threshold/cat": 3.25, "rho/big dog": 0.1}
    lines = [line.rstrip() for line in metrics_text(metrics).splitlines()]
    assert [line.split() for line in lines] == [
        ["in", "percent,", "except", "rho", "and", "oLRP_threshold"],
        ["AP", "12.35"],
        ["AP_small", "-"],
        ["rho", "-0.500"],
        ["class", "AP", "oLRP_threshold", "rho"],
        ["-" * 7, "-" * 6, "-" * 16, "-" * 5],
        ["cat", "100.00", "3.250", "-"],
        ["big", "dog", "-", "-", "0.100"],
    ]
    assert len({line.rindex(number) + len(number) for line, number in ((lines[1], "12.35"), (lines[3], "0.500"))}) == 1
    assert metrics_text({"AP": 0.5}).split("\n")[0] == "in percent"


def test_text_of_real_numbers_has_no_gaps():
    """Every line ends in a value, so that it can be read back word by word."""
    lines = metrics_text(metrics_of(*predictions())).splitlines()
    assert all(line.strip() for line in lines)
    assert max(map(len, lines)) <= 140


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), num_objects=st.sampled_from([2, 4, 5, 10]))
def test_cocos_and_vocs_ap_agree_where_they_must(seed, num_objects):
    """Objects far apart, each with any number of detections of IoU 0.9, and some beside: both match alike.

    With n objects COCO's 101 recall levels are 0 and 100 / n to each object, VOC's 11 are 0 and 10 / n to each. So with
    p the best precision of all, 101 AP50 = p + 100 area (n = 2, 4) and 11 AP_11 = p + 10 area (n = 2, 5, 10). COCO
    compares in floating point, where 7 objects of 10 do not reach the recall 0.7, so n = 5 and 10 are left out there.
    """
    rng = np.random.default_rng(seed)
    truth = ground_truth([[20 * place, 0, 10, 10] for place in range(num_objects)])
    boxes = [[20 * place, 0, 10, 9] for place in rng.integers(0, num_objects, rng.integers(0, 20))]
    boxes += [[20 * place, 50, 10, 10] for place in range(rng.integers(0, 8))]
    scores = rng.permutation(len(boxes)) / 100
    results = [result(box, float(score)) for box, score in zip(boxes, scores, strict=True)]
    voc = voc_metrics(truth, results)
    area, eleven = voc["voc_AP50_area"], voc["voc_AP50_11"]
    best = precision_of_best_prefix(boxes, scores)
    if num_objects != 4:
        assert 11 * eleven == pytest.approx(best + 10 * area, abs=1e-9)
    for reference in (False, True) if num_objects in (2, 4) else ():
        assert 101 * coco_metrics(truth, results, reference)["AP50"] == pytest.approx(best + 100 * area, abs=1e-9)


def precision_of_best_prefix(boxes, scores):
    """The most that precision ever is, counted from the boxes: those at y 0 find their object once."""
    found, right, best = set(), 0, 0.0
    for kept, place in enumerate(np.argsort(-scores), start=1):
        x, y, *_ = boxes[place]
        right += y == 0 and x not in found
        if y == 0:
            found.add(x)
        best = max(best, right / kept)
    return best


def test_all_undefined_is_none():
    assert set(metrics_of(ground_truth([]), []).values()) == {None}
    assert not any(math.isnan(value) for value in metrics_of(*predictions()).values() if value is not None)
