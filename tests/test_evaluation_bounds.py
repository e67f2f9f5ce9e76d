"""aLRP's bounds: a case by hand, every exchange tried out, and COCO's own AP where they must agree."""

import itertools
import math

import numpy as np
import pytest
from evaluated import golden, ground_truth, predictions, random_data, result
from hypothesis import given
from hypothesis import strategies as st

from rankdet.evaluation.bounds import ORDERS, bound_metrics, class_ap
from rankdet.evaluation.coco import IOUS, coco_metrics
from rankdet.evaluation.correlation import correlation_metrics
from rankdet.evaluation.matches import Matches, coco_matches


def test_by_hand():
    """Two objects, the better score with IoU .6, the worse with .8, a wrong one between them; 51 + 50 recall levels.

    IoU .5 to .6: right, wrong, right: (51 + 50 * 2 / 3) / 101 whatever the order. IoU .65 to .8: one is right, first or
    third: upper 51 / 101, lower and kept (51 / 3) / 101. Above, nothing is. Of two, ranks agree or are reversed.
    """
    truth = ground_truth([[0, 0, 10, 10], [50, 0, 10, 10]])
    results = [result([0, 0, 10, 6], 0.9), result([90, 90, 10, 10], 0.8), result([50, 0, 10, 8], 0.7)]
    metrics = bound_metrics(truth, results)
    both, first, last = (51 + 50 * 2 / 3) / 101, 51 / 101, 17 / 101
    expected = {}
    for name, one, rho in (("lower", last, -1), ("kept", last, -1), ("upper", first, 1)):
        expected |= {f"{name}_AP": (3 * both + 4 * one) / 10, f"{name}_AP50": both}
        expected |= {f"{name}_AP75": one, f"{name}_AP90": 0, f"{name}_rho": rho}
    assert metrics == pytest.approx(expected, abs=1e-12)


@given(
    found=st.lists(st.one_of(st.none(), st.sampled_from([0.5, 0.6, 0.72, 0.8, 0.97])), min_size=1, max_size=8),
    missed=st.integers(0, 2),
)
def test_no_exchange_gives_less_than_lower_or_more_than_upper(found, missed):
    right, ious = np.array([iou is not None for iou in found]), np.array([iou or 0.0 for iou in found])
    if not right.any() or right.sum() > 5:
        return
    matches = Matches(np.linspace(1, 0, len(found)), right, ious, int(right.sum()) + missed)
    for iou in (0.5, 0.75, 0.95):
        every = [
            class_ap(matches, lambda _, dealt=dealt: np.array(dealt), iou)
            for dealt in set(itertools.permutations(ious[right]))
        ]
        lower, kept, upper = (class_ap(matches, ORDERS[name], iou) for name in ("lower", "kept", "upper"))
        assert (min(every), max(every)) == (lower, upper)
        assert kept in every


@pytest.mark.parametrize("data", [lambda: golden("lrp")[:2], lambda: golden("lrp_edge")[:2], predictions])
def test_ap50_is_cocos_and_the_others_lie_in_order(data):
    truth, results = data()
    metrics, coco = bound_metrics(truth, results), coco_metrics(truth, results)
    for name in ORDERS:
        assert metrics[f"{name}_AP50"] == pytest.approx(coco["AP50"], abs=1e-12)
    for key in ("AP", "AP75", "AP90"):
        assert metrics[f"lower_{key}"] < metrics[f"kept_{key}"] < metrics[f"upper_{key}"]
    assert metrics["kept_AP"] == pytest.approx(coco["AP"], abs=0.02)
    assert metrics["kept_rho"] == pytest.approx(correlation_metrics(truth, results)["rho"], abs=1e-12)
    assert metrics["lower_rho"] < metrics["kept_rho"] < metrics["upper_rho"]


def test_kept_ap_is_cocos_where_no_object_is_found_twice():
    """One detection an object at most, so that COCO cannot match another way at a higher IoU."""
    truth, results = random_data(11, images=30)
    truth["annotations"] = [entry for entry in truth["annotations"] if not entry["iscrowd"]]
    matched = coco_matches(truth, results)["all"]
    assert sum(found.right.sum() for found in matched.values()) > 20
    once, taken = [], set()
    for entry in sorted(results, key=lambda entry: -entry["score"]):
        key = (entry["image_id"], entry["category_id"])
        if key not in taken:
            taken.add(key)
            once.append(entry)
    assert bound_metrics(truth, once)["kept_AP"] == pytest.approx(coco_metrics(truth, once)["AP"], abs=1e-12)


def test_thresholds_are_the_evaluators():
    assert [round(100 * iou) for iou in IOUS] == list(range(50, 100, 5))


def test_nothing_at_all():
    assert all(math.isnan(value) for value in bound_metrics(ground_truth([]), []).values())
    found = bound_metrics(ground_truth([[0, 0, 10, 10]]), [])
    assert {value for key, value in found.items() if "rho" not in key} == {0}
    assert all(math.isnan(found[f"{name}_rho"]) for name in ORDERS)
