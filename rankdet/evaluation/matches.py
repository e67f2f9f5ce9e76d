"""COCO's matching of detections with objects at one IoU: what oLRP, the rank correlation and its bounds start from."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from pycocotools import mask

from rankdet.evaluation.results import Result, by_category, check_results

MOST = 100  # detections per image and class that count, COCO's rule
MOST_IOU = 1 - 1e-10  # the evaluator's own guard for a threshold of 1
RANGES = {  # COCO's ranges of object sizes, square pixels, both ends included
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}


class Matches(NamedTuple):
    """One class's detections by falling score, and how many objects there are. D: the detections that count.

    Left out are those that found an ignored object and those outside the range of sizes that found none. Equal scores
    stand in COCO's order: by image id, then as given.
    """

    scores: np.ndarray  # float64 [D]
    right: np.ndarray  # bool [D]: whether an object was found
    ious: np.ndarray  # float64 [D]: with that object; 0 where wrong
    num_objects: int  # not ignored; found or not


def coco_matches(
    ground_truth: dict[str, Any], results: Sequence[Result], iou: float = 0.5, areas: Sequence[str] = ("all",)
) -> dict[str, dict[str, Matches]]:
    """Range of sizes -> class name -> its matches, by the rules of pycocotools' evaluateImg.

    In each image the best MOST detections of a class choose by falling score. Each takes the free object of highest IoU
    (the last of equals), at least `iou`; only where there is none, an ignored one: a crowd (which stays free, and whose
    "IoU" is over the detection's own area), a difficult object, or one outside the range. Arguments as in coco_metrics.
    """
    check_results(ground_truth, results)
    place = {key: index for index, key in enumerate(sorted(image["id"] for image in ground_truth["images"]))}
    objects, detections = by_category(ground_truth["annotations"]), by_category(results)
    matches: dict[str, dict[str, Matches]] = {area: {} for area in areas}
    for category in ground_truth["categories"]:
        one_class = _Class(objects[category["id"]], detections[category["id"]], place, iou)
        for area in areas:
            matches[area][category["name"]] = one_class.match(RANGES[area])
    return matches


def take(
    pairs: Iterable[tuple[int, int, float]], num_detections: int, ignored: np.ndarray, crowd: np.ndarray
) -> np.ndarray:
    """int64 [D]: the object that each of D = num_detections detections takes, by the rule of coco_matches; -1: none.

    pairs: (detection, object, IoU) of those that may match, by detection, which choose in that order. ignored, crowd:
    bool [G], of the objects; a crowd is ignored.
    """
    taken = np.full(num_detections, -1)
    free, passed_over = [True] * len(ignored), ignored.tolist()
    for detection, candidates in groupby(pairs, key=itemgetter(0)):
        options = [(not passed_over[g], iou, g) for _, g, iou in candidates if free[g]]
        if options:
            taken[detection] = found = max(options)[-1]
            free[found] = bool(crowd[found])
    return taken


class _Class:
    """One class's objects and best detections, and all pairs of the two in one image whose IoU is high enough."""

    def __init__(
        self, objects: list[dict[str, Any]], detections: list[Result], place: dict[int, int], iou: float
    ) -> None:
        by_image: dict[int, list[Result]] = defaultdict(list)
        for detection in sorted(detections, key=itemgetter("score"), reverse=True):  # keeps the order of equals
            by_image[place[detection["image_id"]]].append(detection)
        objects_of: dict[int, list[int]] = defaultdict(list)
        for index, each in enumerate(objects):
            objects_of[place[each["image_id"]]].append(index)

        kept = [detection for image in sorted(by_image) for detection in by_image[image][:MOST]]
        self.scores = np.array([each["score"] for each in kept], np.float64)
        boxes, true_boxes = (
            np.array([each["bbox"] for each in some], np.float64).reshape(-1, 4) for some in (kept, objects)
        )
        self.areas = boxes[:, 2] * boxes[:, 3]
        sizes = (true_boxes[:, 2] * true_boxes[:, 3]).tolist()
        self.object_areas = np.array([each.get("area", size) for each, size in zip(objects, sizes, strict=True)], float)
        self.crowd = np.array([bool(each.get("iscrowd", 0)) for each in objects], bool)
        self.ignored = self.crowd | np.array([bool(each.get("difficult", 0)) for each in objects], bool)

        iou = min(iou, MOST_IOU)
        self.pairs: list[tuple[int, int, float]] = []  # detection, object, IoU; by detection, that is by falling score
        start = 0
        for image in sorted(by_image):
            stop, there = start + min(len(by_image[image]), MOST), objects_of.get(image)
            if there:
                ious = mask.iou(boxes[start:stop], true_boxes[there], self.crowd[there].astype(np.uint8).tolist())
                self.pairs += [(start + d, there[g], ious[d, g]) for d, g in np.argwhere(ious >= iou).tolist()]
            start = stop

    def match(self, limits: tuple[float, float]) -> Matches:
        """The matches for objects of a range of sizes, square pixels."""
        low, high = limits
        ignored = self.ignored | (self.object_areas < low) | (self.object_areas > high)
        counts = (self.areas >= low) & (self.areas <= high)
        taken = take(self.pairs, len(counts), ignored, self.crowd)
        counts[taken >= 0] = ~ignored[taken[taken >= 0]]
        ious = np.zeros(len(counts))
        for detection, found, overlap in self.pairs:
            if counts[detection] and taken[detection] == found:
                ious[detection] = overlap
        order = np.argsort(-self.scores, kind="stable")
        order = order[counts[order]]
        return Matches(self.scores[order], ious[order] > 0, ious[order], int((~ignored).sum()))
