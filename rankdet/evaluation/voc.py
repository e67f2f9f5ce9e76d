"""Pascal VOC's average precision by the rules of the VOC devkit, in both its forms."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from rankdet.evaluation.results import Result, by_category, check_results, mean_of_defined


def voc_metrics(
    ground_truth: dict[str, Any], results: Sequence[Result], iou: float = 0.5, plus_one: bool = False
) -> dict[str, float]:
    """Mean AP over classes and AP per class, fractions in [0, 1]; NaN where there is no object to find.

    Keys, for iou 0.5: voc_AP50_11 (11-point, the VOC2007 rule) and voc_AP50_area (area under the curve, from VOC2010
    on), each also with /<class name>. `ground_truth` is the dict of a COCO annotation file, where a missing `difficult`
    or `iscrowd` is 0. The devkit's rules, class by class over all images: detections go by falling score (ties in the
    order given), and each looks only at the object that it overlaps most. Overlap below `iou`: wrong. A difficult
    object (here also a crowd): the detection does not count, however many there are. An object not found before: right.
    An object found before: wrong. The mean leaves out classes without an object that counts. Results may be empty
    (AP 0). UserError names a bad entry.

    The devkit's corners are whole pixels that belong to the box, so it adds 1 to their differences. Continuous corners,
    this project's, need no such thing and give the same IoU; `plus_one` is for ground truth and results of which both
    still hold the devkit's corners (x + width is the last pixel, not the edge behind it).
    """
    check_results(ground_truth, results)
    objects, detections = by_category(ground_truth["annotations"]), by_category(results)
    eleven, area = {}, {}
    for category in ground_truth["categories"]:
        verdicts = _verdicts(objects[category["id"]], detections[category["id"]], iou, plus_one)
        eleven[category["name"]] = ap_11_point(*verdicts)
        area[category["name"]] = ap_area(*verdicts)

    metrics = {}
    for key, per_class in ((f"voc_AP{round(100 * iou)}_11", eleven), (f"voc_AP{round(100 * iou)}_area", area)):
        metrics[key] = mean_of_defined(per_class.values())
        metrics |= {f"{key}/{name}": ap for name, ap in per_class.items()}
    return metrics


def ap_11_point(right: np.ndarray, num_objects: int) -> float:
    """Mean of the best precision at a recall of at least 0, 0.1 ... 1 (VOC2007); NaN where there is no object.

    `right` is bool [D]: whether each detection that counts is right, by falling score. A recall level is compared in
    whole numbers, so that 3 objects of 10 do reach 0.3, which the devkit's 3 * 0.1 in floating point denies.
    """
    if not num_objects:
        return math.nan
    num_right = np.cumsum(right)
    precision = num_right / np.arange(1, len(right) + 1)
    levels = [precision[10 * num_right >= level * num_objects] for level in range(11)]
    return sum(float(reached.max(initial=0.0)) for reached in levels) / 11


def ap_area(right: np.ndarray, num_objects: int) -> float:
    """Area under the precision-recall curve, precision made non-increasing (from VOC2010 on); arguments as above."""
    if not num_objects:
        return math.nan
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    return float(best_from_here[right].sum() / num_objects)  # recall rises by 1 / num_objects at each right one


def _verdicts(
    objects: list[dict[str, Any]], detections: list[dict[str, Any]], iou: float, plus_one: bool
) -> tuple[np.ndarray, int]:
    """One class's detections that count, by falling score: whether each is right (bool [D]); and how many objects."""
    objects_of = defaultdict(list)
    for annotation in objects:
        objects_of[annotation["image_id"]].append(annotation)
    boxes_of = {image: np.array([each["bbox"] for each in group], float) for image, group in objects_of.items()}
    ignored = {
        image: [bool(each.get("difficult", 0) or each.get("iscrowd", 0)) for each in group]
        for image, group in objects_of.items()
    }
    num_objects = sum(len(flags) - sum(flags) for flags in ignored.values())

    found, right = set(), []
    for detection in sorted(detections, key=lambda detection: -detection["score"]):
        image = detection["image_id"]
        overlaps = _overlaps(detection["bbox"], boxes_of[image], plus_one) if image in boxes_of else np.zeros(1)
        best = int(overlaps.argmax())
        if overlaps[best] < iou:
            right.append(False)
        elif not ignored[image][best]:
            right.append((image, best) not in found)
            found.add((image, best))
    return np.array(right, bool), num_objects


def _overlaps(box: Sequence[float], boxes: np.ndarray, plus_one: bool) -> np.ndarray:
    """IoU of one xywh box with G xywh boxes [G, 4], in float64; 0 where two empty boxes meet."""
    extra = 1.0 if plus_one else 0.0
    x, y, width, height = box
    across = np.minimum(x + width, boxes[:, 0] + boxes[:, 2]) - np.maximum(x, boxes[:, 0]) + extra
    down = np.minimum(y + height, boxes[:, 1] + boxes[:, 3]) - np.maximum(y, boxes[:, 1]) + extra
    shared = across.clip(min=0) * down.clip(min=0)
    union = (width + extra) * (height + extra) + (boxes[:, 2] + extra) * (boxes[:, 3] + extra) - shared
    return shared / np.where(union > 0, union, 1.0)
