"""Which detections are right, by COCO's rule, and what each overlaps: what all sections of a report start from."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask

from rankdet.evaluation.matches import MOST, MOST_IOU, take
from rankdet.evaluation.results import Result, check_results


class Objects(NamedTuple):
    """G annotations, in the ground truth's order."""

    image_id: np.ndarray  # int64 [G]
    category_id: np.ndarray  # int64 [G]
    box: np.ndarray  # float64 [G, 4]: x, y, width, height
    crowd: np.ndarray  # bool [G]
    counts: np.ndarray  # bool [G]: neither crowd nor difficult, which need not be found


class Verdicts(NamedTuple):
    """D detections by image id and within one by falling score.

    An object is given by its place among all G annotations, -1: none. `same` and `other` are about those that count.
    """

    image_id: np.ndarray  # int64 [D]
    category_id: np.ndarray  # int64 [D]
    score: np.ndarray  # float64 [D]
    right: np.ndarray  # bool [D]: it has found an object
    ignored: np.ndarray  # bool [D]: neither right nor wrong
    found: np.ndarray  # int64 [D]: the object that a right one has found
    found_iou: np.ndarray  # float64 [D]: and its overlap with it; 0 of the others
    same_iou: np.ndarray  # float64 [D]: greatest overlap with an object of its class
    same_object: np.ndarray  # int64 [D]: which one
    other_iou: np.ndarray  # float64 [D]: greatest overlap with an object of another class
    other_object: np.ndarray  # int64 [D]: which one
    objects: Objects

    @property
    def wrong(self) -> np.ndarray:
        """bool [D]: false positives."""
        return ~(self.right | self.ignored)

    def scoring(self, least: float) -> "Verdicts":
        """Those of at least this score, which are what judging them alone would give; none for NaN."""
        *columns, objects = self
        return Verdicts(*(column[self.score >= least] for column in columns), objects)


def judge(ground_truth: dict[str, Any], results: Sequence[Result], iou: float = 0.5) -> Verdicts:
    """Verdicts at an IoU threshold, by the rule of pycocotools' COCOeval; neither argument is changed.

    Image by image and class by class, detections go by falling score (ties in the order given), the best 100 of them.
    Each takes the object still free that it overlaps most, if by at least `iou` (of equal overlaps the last), and is
    right; else a crowd (as often as it likes) or a difficult object (the first that comes), and is ignored; else it is
    wrong. The overlap with a crowd is the share of the detection that lies in it. Missing `iscrowd` and `difficult` are
    0. Results may be empty. UserError names a bad entry.
    """
    check_results(ground_truth, results)
    objects = _objects(ground_truth["annotations"])
    there, detected = _places(objects.image_id.tolist()), _places([each["image_id"] for each in results])
    parts = [_no_detections()]
    for image_id in sorted(detected):
        mine = [results[place] for place in detected[image_id]]
        parts.append(_judge_image(mine, objects, np.array(there.get(image_id, []), np.int64), min(iou, MOST_IOU)))
    return Verdicts(*(np.concatenate(column) for column in zip(*parts, strict=True)), objects)


def _judge_image(results: list[Result], objects: Objects, there: np.ndarray, iou: float) -> tuple[np.ndarray, ...]:
    """One image's columns of Verdicts, but for the last; `there` (int64 [g]) are its annotations."""
    scores = np.array([each["score"] for each in results], float)
    categories = np.array([each["category_id"] for each in results], np.int64)
    best = _best(scores, categories)
    scores, categories = scores[best], categories[best]
    boxes = np.array([results[place]["bbox"] for place in best], float)
    counts, crowd = objects.counts[there], objects.crowd[there]
    overlaps = np.zeros((len(boxes), len(there)))
    if len(there):
        overlaps = np.asarray(mask.iou(boxes, objects.box[there], crowd.astype(np.uint8)))
    same = categories[:, None] == objects.category_id[there]
    pairs = [(d, g, overlaps[d, g]) for d, g in np.argwhere(same & (overlaps >= iou)).tolist()]
    taken = take(pairs, len(boxes), ~counts, crowd)
    right, ignored = np.zeros((2, len(boxes)), bool)
    right[taken >= 0], ignored[taken >= 0] = counts[taken[taken >= 0]], ~counts[taken[taken >= 0]]
    found, found_iou = np.full(len(boxes), -1), np.zeros(len(boxes))
    found[right], found_iou[right] = there[taken[right]], overlaps[right, taken[right]]
    same_best = _greatest(np.where(same & counts, overlaps, 0.0), there)
    other_best = _greatest(np.where(~same & counts, overlaps, 0.0), there)
    image_id = np.full(len(boxes), results[0]["image_id"])
    return image_id, categories, scores, right, ignored, found, found_iou, *same_best, *other_best


def _no_detections() -> tuple[np.ndarray, ...]:
    whole, real, flag = np.zeros(0, np.int64), np.zeros(0), np.zeros(0, bool)
    return whole, whole, real, flag, flag, whole, real, real, whole, real, whole


def _objects(annotations: Sequence[dict[str, Any]]) -> Objects:
    crowd = np.array([bool(each.get("iscrowd", 0)) for each in annotations], bool)
    difficult = np.array([bool(each.get("difficult", 0)) for each in annotations], bool)
    ids = ([each[key] for each in annotations] for key in ("image_id", "category_id"))
    boxes = np.array([each["bbox"] for each in annotations], float).reshape(-1, 4)
    return Objects(*(np.array(column, np.int64) for column in ids), boxes, crowd, ~(crowd | difficult))


def _places(image_ids: list[int]) -> dict[int, list[int]]:
    """Where in a list each image stands."""
    groups = defaultdict(list)
    for place, image_id in enumerate(image_ids):
        groups[image_id].append(place)
    return groups


def _best(scores: np.ndarray, categories: np.ndarray) -> np.ndarray:
    """int64: one image's detections by falling score, without those that rank behind the 100th of their class."""
    order = np.argsort(-scores, kind="stable")
    kept = np.zeros(len(scores), bool)
    for category in np.unique(categories):
        kept[order[categories[order] == category][:MOST]] = True
    return order[kept[order]]


def _greatest(overlaps: np.ndarray, there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each row of [D, g] the greatest overlap and the object it is with; 0 and -1 where there is none."""
    if not len(there):
        return np.zeros(len(overlaps)), np.full(len(overlaps), -1)
    column = overlaps.argmax(axis=1)
    greatest = overlaps[np.arange(len(overlaps)), column]
    return greatest, np.where(greatest > 0, there[column], -1)
