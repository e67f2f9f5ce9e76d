"""Optimal LRP: golden numbers, hand-worked cases, a slow twin in fractions, and what is undefined."""

import math
from fractions import Fraction

import numpy as np
import pytest
from evaluated import golden, ground_truth, random_data, result
from hypothesis import given
from hypothesis import strategies as st

from rankdet.errors import UserError
from rankdet.evaluation.lrp import OptimalLRP, lrp_metrics, optimal_lrp
from rankdet.evaluation.matches import RANGES, Matches, coco_matches

PARTS = {"oLRP": "error", "oLRP_loc": "loc", "oLRP_FP": "fp", "oLRP_FN": "fn", "threshold": "threshold"}


def same(ours, expected):
    """To 1e-9; golden data write null or -1 for what is undefined."""
    return math.isnan(ours) if expected in (None, -1) else abs(ours - expected) < 1e-9


def test_golden_numbers():
    """7 means of each set, and of each class 5 parts in 4 ranges of sizes."""
    visited = undefined = 0
    for name in ("lrp", "lrp_edge"):
        truth, results, expected = golden(name)
        metrics = lrp_metrics(truth, results)
        means = [key for key in expected if key.startswith("oLRP")]
        assert all(same(metrics[key], expected[key]) for key in means)
        visited += len(means)
        names = {category["id"]: category["name"] for category in truth["categories"]}
        matches = coco_matches(truth, results, areas=tuple(RANGES))
        for place, category_id in enumerate(expected["category_ids"]):
            class_name = names[category_id]
            for area in RANGES:
                ours = optimal_lrp(matches[area][class_name], 0.5)
                for key, part in PARTS.items():
                    value = expected["per_class"][key][area][place]
                    assert same(getattr(ours, part), value), (name, class_name, area, key)
                    visited += 1
                    undefined += value in (None, -1)
            for key, part in PARTS.items():
                whole = metrics[f"{'oLRP_threshold' if key == 'threshold' else key}/{class_name}"]
                assert same(whole, expected["per_class"][key]["all"][place]), part
    assert visited == 2 * (7 + 3 * 4 * 5)
    assert undefined == 34


def matches(right, ious, num_objects, scores=None):
    scores = np.linspace(0.9, 0.1, len(right)) if scores is None else np.array(scores)
    return Matches(scores, np.array(right, bool), np.array(ious, float), num_objects)


def test_by_hand():
    """Four objects; by falling score IoU 0.9, wrong, IoU 0.7, wrong; tau 0.5, so errors 0.2 and 0.6.

    Keeping 1: (0.2 + 3) / 4 = 0.8. 2: (0.2 + 1 + 3) / 5 = 0.84. 3: (0.8 + 1 + 2) / 5 = 0.76, the least. 4: 4.8 / 6.
    At 3: mean 1 - IoU (0.1 + 0.3) / 2, one of three wrong, two of four missed, score of the third.
    """
    found = optimal_lrp(matches([1, 0, 1, 0], [0.9, 0, 0.7, 0], 4, [0.8, 0.7, 0.6, 0.5]), 0.5)
    assert found == pytest.approx(OptimalLRP(error=0.76, loc=0.2, fp=1 / 3, fn=0.5, threshold=0.6), abs=1e-12)


def test_through_boxes_by_hand():
    """One of two objects found with IoU 0.8: error (0.2 / 0.5 + 1) / 2 = 0.7; a class not found at all has error 1.

    Means over both classes: oLRP 0.85, FN 0.75; box and FP parts are only defined in the first.
    """
    truth = ground_truth([(1, 1, [0, 0, 10, 10]), (1, 1, [50, 0, 10, 10]), (1, 2, [90, 90, 10, 10])], ("a", "b", "c"))
    metrics = lrp_metrics(truth, [result([0, 0, 10, 8], 0.25), result([0, 0, 5, 5], 0.5, category=3)])
    expected = {"oLRP": 0.85, "oLRP_loc": 0.2, "oLRP_FP": 0, "oLRP_FN": 0.75, "oLRP_small": 0.85}
    expected |= {"oLRP/a": 0.7, "oLRP_loc/a": 0.2, "oLRP_FP/a": 0, "oLRP_FN/a": 0.5, "oLRP_threshold/a": 0.25}
    expected |= {"oLRP/b": 1, "oLRP_FN/b": 1}
    assert {key: metrics[key] for key in expected} == pytest.approx(expected, abs=1e-12)
    undefined = {"oLRP_medium", "oLRP_large"} | {f"{key}/b" for key in ("oLRP_loc", "oLRP_FP", "oLRP_threshold")}
    undefined |= {f"{key}/c" for key in ("oLRP", "oLRP_loc", "oLRP_FP", "oLRP_FN", "oLRP_threshold")}
    assert {key for key, value in metrics.items() if math.isnan(value)} == undefined
    assert set(expected) | undefined == set(metrics)


def test_perfect_detections_have_no_error():
    assert optimal_lrp(matches([1, 1], [1, 1], 2), 0.5)[:4] == (0, 0, 0, 0)


def test_a_match_as_bad_as_none_is_still_a_match():
    """IoU 0.5 at tau 0.5 costs as much as a miss: error 1 however many are kept; the parts are those of the match."""
    assert optimal_lrp(matches([0, 1], [0, 0.5], 1, [0.9, 0.3]), 0.5) == (1, 0.5, 0.5, 0, 0.3)


def test_tau_decides_what_is_found_and_what_a_box_costs():
    """IoU 0.8 at tau 0.75 costs 0.2 / 0.25; at 0.85 nothing is found."""
    truth, results = ground_truth([[0, 0, 10, 10]]), [result([0, 0, 10, 8], 0.5)]
    assert lrp_metrics(truth, results, tau=0.75)["oLRP"] == pytest.approx(0.8)
    assert lrp_metrics(truth, results, tau=0.85)["oLRP"] == 1
    for tau in (0.0, 1.0):
        with pytest.raises(ValueError, match="tau"):
            lrp_metrics(truth, results, tau)


def slow_twin(right, ious, num_objects):
    """The least error over numbers kept, in fractions, from Eq. 6's counts."""
    errors = [Fraction(1)]
    for kept in range(1, len(right) + 1):
        hits = [Fraction(iou) for iou, is_right in zip(ious[:kept], right, strict=False) if is_right]
        wrong, missed = kept - len(hits), num_objects - len(hits)
        errors.append((sum((1 - iou) / Fraction(1, 2) for iou in hits) + wrong + missed) / (len(hits) + wrong + missed))
    return min(errors)


@given(found=st.lists(st.one_of(st.none(), st.floats(0.5, 1)), max_size=12), missed=st.integers(0, 5))
def test_agrees_with_a_slow_twin_and_adds_up(found, missed):
    """Any order of wrong (None) and right detections; the parts, weighted as LRP weighs them, are the error again."""
    right, ious = [iou is not None for iou in found], [iou or 0.0 for iou in found]
    num_objects = sum(right) + missed
    ours = optimal_lrp(matches(right, ious, num_objects), 0.5)
    if not num_objects:
        assert all(math.isnan(part) for part in ours)
        return
    assert ours.error == pytest.approx(float(slow_twin(right, ious, num_objects)), abs=1e-12)
    if any(right):
        hits = (1 - ours.fn) * num_objects
        wrong = hits * ours.fp / (1 - ours.fp)
        total = hits * ours.loc / 0.5 + wrong + ours.fn * num_objects
        assert total / (wrong + num_objects) == pytest.approx(ours.error, abs=1e-9)


def test_order_of_results_and_other_images_do_not_matter():
    truth, results = random_data(5)
    for place, entry in enumerate(results):
        entry["score"] = 1 - place / 1000
    metrics = lrp_metrics(truth, results)
    more = truth | {"images": [*truth["images"], {"id": 99}]}
    np.testing.assert_equal(lrp_metrics(more, results[::-1]), metrics)


def test_nothing_at_all():
    assert all(math.isnan(value) for value in lrp_metrics(ground_truth([]), []).values())
    assert lrp_metrics(ground_truth([[0, 0, 10, 10]]), [])["oLRP"] == 1


def test_bad_results_are_refused():
    with pytest.raises(UserError, match="results entry 0: score nan"):
        lrp_metrics(ground_truth([[0, 0, 10, 10]]), [result([0, 0, 10, 10], math.nan)])
