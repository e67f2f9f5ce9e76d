"""VOC's AP: hand-worked curves, the devkit's rules one by one, a slow twin, and both conventions of corners."""

import math
from fractions import Fraction

import numpy as np
import pytest
from evaluated import predictions
from hypothesis import given, settings
from hypothesis import strategies as st

from rankdet.errors import UserError
from rankdet.evaluation.voc import ap_11_point, ap_area, voc_metrics


def ground_truth(objects, categories=("a",), images=2):
    """Objects (image, category, box xywh, further fields)."""
    annotations = [
        {"id": i + 1, "image_id": image, "category_id": category, "bbox": bbox, **fields}
        for i, (image, category, bbox, fields) in enumerate(objects)
    ]
    return {
        "images": [{"id": i + 1} for i in range(images)],
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(categories)],
        "annotations": annotations,
    }


def result(bbox, score, image=1, category=1):
    return {"image_id": image, "category_id": category, "bbox": bbox, "score": score}


def test_both_forms_by_hand():
    """Four objects; by falling score right, wrong, right, right: recall .25 .25 .5 .75, precision 1 .5 .667 .75.

    Best precision from each recall on: 1 up to .25, then .75 up to .75, then 0.
    11 points: 0 .1 .2 have 1, .3 .4 .5 .6 .7 have .75, .8 .9 1 have 0: (3 + 5 * .75) / 11 = 6.75 / 11.
    Area: .25 * 1 + .5 * .75 = .625.
    """
    right = np.array([True, False, True, True])
    assert ap_11_point(right, 4) == pytest.approx(6.75 / 11, abs=1e-12)
    assert ap_area(right, 4) == pytest.approx(0.625, abs=1e-12)


def test_recall_levels_are_exact():
    """3 of 10 objects found, nothing wrong: recall 0, .1, .2 and .3 are reached, though 3 * 0.1 > 0.3 in floats."""
    right = np.ones(3, bool)
    assert ap_11_point(right, 10) == pytest.approx(4 / 11, abs=1e-12)
    assert ap_area(right, 10) == pytest.approx(0.3, abs=1e-12)


@pytest.mark.parametrize("average_precision", [ap_11_point, ap_area])
def test_edges_of_the_curve(average_precision):
    assert average_precision(np.ones(5, bool), 5) == pytest.approx(1, abs=1e-12)
    assert average_precision(np.zeros(5, bool), 5) == 0
    assert average_precision(np.zeros(0, bool), 5) == 0
    assert math.isnan(average_precision(np.zeros(2, bool), 0))


def test_through_boxes_by_hand():
    """The curve of the first test, drawn with boxes over two images, and a second class found at once."""
    box = [10.0, 10.0, 20.0, 20.0]
    far = [100.0, 100.0, 20.0, 20.0]
    objects = [(1, 1, box, {}), (1, 1, far, {}), (2, 1, box, {}), (2, 1, far, {}), (1, 2, box, {})]
    results = [
        result(far, 0.6, image=2),
        result(box, 0.9),
        result([50.0, 50.0, 9.0, 9.0], 0.8),
        result(box, 0.7, image=2),
        result(box, 0.1, category=2),
    ]
    metrics = voc_metrics(ground_truth(objects, ("a", "b")), results)
    assert metrics == pytest.approx(
        {
            "voc_AP50_11": (6.75 / 11 + 1) / 2,
            "voc_AP50_11/a": 6.75 / 11,
            "voc_AP50_11/b": 1,
            "voc_AP50_area": 1.625 / 2,
            "voc_AP50_area/a": 0.625,
            "voc_AP50_area/b": 1,
        },
        abs=1e-12,
    )


def area_ap(objects, results, **options):
    metrics = voc_metrics(ground_truth(objects), results, **options)
    return next(value for key, value in metrics.items() if key.endswith("_area"))


def test_duplicates_are_wrong():
    """One object of two found twice before the other: right, wrong, right gives (1 + 2 / 3) / 2."""
    objects = [(1, 1, [0, 0, 10, 10], {}), (2, 1, [0, 0, 10, 10], {})]
    results = [result([0, 0, 10, 10], 0.9), result([0, 0, 10, 10], 0.8), result([0, 0, 10, 10], 0.7, image=2)]
    assert area_ap(objects, results) == pytest.approx(5 / 6, abs=1e-12)


def test_detection_looks_only_at_the_object_it_overlaps_most():
    """The second detection fits the found object better than the other (IoU 1 and 0.6): a duplicate, not a find."""
    objects = [(1, 1, [0, 0, 10, 10], {}), (1, 1, [0, 0, 10, 6], {})]
    results = [result([0, 0, 10, 10], 0.9), result([0, 0, 10, 10], 0.8)]
    assert area_ap(objects, results) == 0.5


@pytest.mark.parametrize("flag", ["difficult", "iscrowd"])
def test_difficult_objects_swallow_any_number_of_detections(flag):
    objects = [(1, 1, [0, 0, 10, 10], {flag: 1}), (1, 1, [50, 50, 10, 10], {flag: 0})]
    on_it = [result([0, 0, 10, 10], score) for score in (0.9, 0.8, 0.7)]
    assert area_ap(objects, [*on_it, result([50, 50, 10, 10], 0.5)]) == 1
    assert area_ap(objects, [result([50, 50, 10, 10], 0.5)]) == 1
    assert area_ap(objects, [result([0, 0, 10, 4], 0.9), result([50, 50, 10, 10], 0.5)]) == 0.5  # IoU 0.4: wrong
    assert area_ap(objects, on_it) == 0


def test_overlap_of_exactly_the_limit_is_enough():
    objects = [(1, 1, [0, 0, 10, 10], {})]
    assert area_ap(objects, [result([0, 0, 10, 5], 0.9)]) == 1
    assert area_ap(objects, [result([0, 0, 10, 4.99], 0.9)]) == 0
    assert area_ap(objects, [result([0, 0, 10, 5], 0.9)], iou=0.55) == 0


def test_keys_name_the_iou():
    metrics = voc_metrics(ground_truth([(1, 1, [0, 0, 10, 10], {})]), [], iou=0.75)
    assert set(metrics) == {"voc_AP75_11", "voc_AP75_11/a", "voc_AP75_area", "voc_AP75_area/a"}


def test_plus_one_by_hand():
    """Inclusive corners 0..9 and 0..4: 10 x 10 and 10 x 5 pixels, IoU 0.5; as continuous boxes 9 * 4 / 81 = 0.44."""
    objects, results = [(1, 1, [0, 0, 9, 9], {})], [result([0, 0, 9, 4], 0.9)]
    assert area_ap(objects, results, plus_one=True) == 1
    assert area_ap(objects, results) == 0


def test_plus_one_makes_neighbours_share_a_pixel():
    """Inclusive 0..4 and 4..8 share column 4: 5 of 45 pixels; continuous boxes of these corners share none."""
    objects, results = [(1, 1, [0, 0, 4, 4], {})], [result([4, 0, 4, 4], 0.9)]
    assert area_ap(objects, results, plus_one=True, iou=0.11) == 1
    assert area_ap(objects, results, plus_one=True, iou=0.12) == 0
    assert area_ap(objects, results, iou=0.11) == 0


def test_ties_keep_the_order_given():
    objects = [(1, 1, [0, 0, 10, 10], {})]
    right, wrong = result([0, 0, 10, 10], 0.5), result([50, 50, 10, 10], 0.5)
    assert area_ap(objects, [right, wrong]) == 1
    assert area_ap(objects, [wrong, right]) == 0.5


def test_empty_sides():
    metrics = voc_metrics(ground_truth([(1, 1, [0, 0, 10, 10], {})], ("a", "b")), [])
    assert metrics["voc_AP50_11"] == metrics["voc_AP50_area"] == metrics["voc_AP50_11/a"] == 0
    assert math.isnan(metrics["voc_AP50_11/b"])
    assert all(math.isnan(value) for value in voc_metrics(ground_truth([]), [result([0, 0, 1, 1], 0.5)]).values())
    only_difficult = ground_truth([(1, 1, [0, 0, 10, 10], {"difficult": 1})])
    assert math.isnan(voc_metrics(only_difficult, [result([0, 0, 1, 1], 0.5)])["voc_AP50_area"])


def test_empty_boxes_match_nothing():
    """Two boxes without area have no IoU; it counts as 0."""
    assert area_ap([(1, 1, [5, 5, 0, 0], {})], [result([5, 5, 0, 0], 0.9)]) == 0


def test_bad_results_are_refused():
    truth = ground_truth([(1, 1, [0, 0, 10, 10], {})])
    with pytest.raises(UserError, match=r"results entry 0: .*finite"):
        voc_metrics(truth, [result([0, math.nan, 10, 10], 0.5)])
    with pytest.raises(UserError, match="results entry 1: image_id 3"):
        voc_metrics(truth, [result([0, 0, 10, 10], 0.5), result([0, 0, 10, 10], 0.5, image=3)])


def slow_twin(objects, results, threshold, extra):
    """One class in exact fractions: corners in, the devkit's loops, precision-recall points, both areas under them."""
    used, points, num_right, num_wrong = set(), [], 0, 0
    total = sum(not hard for *_, hard in objects)
    for image, x1, y1, x2, y2, _ in sorted(results, key=lambda entry: -entry[-1]):
        best, found = Fraction(-1), None
        for place, (other, gx1, gy1, gx2, gy2, _) in enumerate(objects):
            across = min(x2, gx2) - max(x1, gx1) + extra
            down = min(y2, gy2) - max(y1, gy1) + extra
            if other == image and across > 0 and down > 0:
                shared = across * down
                sizes = [(c - a + extra) * (d - b + extra) for a, b, c, d in ((x1, y1, x2, y2), (gx1, gy1, gx2, gy2))]
                if Fraction(shared, sum(sizes) - shared) > best:
                    best, found = Fraction(shared, sum(sizes) - shared), place
        if best >= threshold and objects[found][-1]:
            continue
        if best >= threshold and found not in used:
            used.add(found)
            num_right += 1
        else:
            num_wrong += 1
        points.append((Fraction(num_right, total), Fraction(num_right, num_right + num_wrong)))
    eleven = sum(max((p for r, p in points if r >= Fraction(k, 10)), default=Fraction(0)) for k in range(11)) / 11
    recalls = sorted({r for r, _ in points} | {Fraction(0)})
    steps = zip(recalls[1:], recalls, strict=False)
    area = sum((high - low) * max(p for r, p in points if r >= high) for high, low in steps)
    return float(eleven), float(area)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    num_objects=st.integers(1, 15),
    num_results=st.integers(0, 40),
    plus_one=st.booleans(),
    iou=st.sampled_from([0.5, 0.25, 0.75]),
)
def test_agrees_with_a_slow_twin(seed, num_objects, num_results, plus_one, iou):
    """Integer corners on a small raster: many overlaps, ties of score, exact thresholds."""
    rng = np.random.default_rng(seed)

    def corners():
        x, y, w, h = (int(v) for v in (*rng.integers(0, 12, 2), *rng.integers(3, 9, 2)))
        return int(rng.integers(1, 3)), x, y, x + w, y + h

    objects = [(*corners(), place > 0 and bool(rng.random() < 0.3)) for place in range(num_objects)]
    results = [(*corners(), float(rng.integers(1, 10)) / 10) for _ in range(num_results)]
    truth = ground_truth(
        [(i, 1, [x1, y1, x2 - x1, y2 - y1], {"difficult": int(hard)}) for i, x1, y1, x2, y2, hard in objects]
    )
    entries = [result([x1, y1, x2 - x1, y2 - y1], score, image=i) for i, x1, y1, x2, y2, score in results]
    metrics = voc_metrics(truth, entries, iou=iou, plus_one=plus_one)
    expected = slow_twin(objects, results, Fraction(iou), int(plus_one))
    key = f"voc_AP{round(100 * iou)}"
    assert (metrics[f"{key}_11"], metrics[f"{key}_area"]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("plus_one", [False, True])
def test_agrees_with_the_slow_twin_on_a_detectors_predictions(plus_one):
    """Three classes on photographs, every third object difficult; hundredths of a pixel as whole numbers."""
    truth, results = predictions()
    for place, entry in enumerate([*truth["annotations"], *results]):
        x, y, width, height = (round(100 * value) for value in entry["bbox"])
        entry |= {"bbox": [x, y, width, height], "corners": (entry["image_id"], x, y, x + width, y + height)}
        entry["difficult"] = int(place % 3 == 0)
    metrics = voc_metrics(truth, results, plus_one=plus_one)
    expected = []
    for category in truth["categories"]:
        objects, found = (
            [entry for entry in entries if entry["category_id"] == category["id"]]
            for entries in (truth["annotations"], results)
        )
        expected.append(
            slow_twin(
                [(*entry["corners"], bool(entry["difficult"])) for entry in objects],
                [(*entry["corners"], entry["score"]) for entry in found],
                Fraction(1, 2),
                int(plus_one),
            )
        )
        ours = (metrics[f"voc_AP50_11/{category['name']}"], metrics[f"voc_AP50_area/{category['name']}"])
        assert ours == pytest.approx(expected[-1], abs=1e-12)
    assert len(expected) == 3
    means = np.mean(expected, axis=0)
    assert (metrics["voc_AP50_11"], metrics["voc_AP50_area"]) == pytest.approx(tuple(means), abs=1e-12)
    assert 0.3 < means[1] < 0.95
