"""Which images a detector does best and worst on, and those images with their boxes."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from rankdet.data.image import read_image
from rankdet.data.records import DetectionSet
from rankdet.evaluation.draw import draw_detections
from rankdet.evaluation.results import Result
from rankdet.report.verdicts import Verdicts, judge

SIDE = 560  # longest side of a picture's image, in pixels
SHORT_SIDE = 320  # to which small images are enlarged
MOST_BOXES = 25  # drawn, those of highest score: more would hide the image


class ImageError(NamedTuple):
    """What a detector made of one image at one score threshold."""

    image_id: int
    error: float  # in [0, 1]; NaN where there is no object and no detection
    num_right: int
    num_wrong: int
    num_missed: int

    @property
    def total(self) -> int:
        """Right, wrong and missed ones."""
        return self.num_right + self.num_wrong + self.num_missed


def image_errors(
    ground_truth: dict[str, Any], results: Sequence[Result], score: float, iou: float = 0.5
) -> list[ImageError]:
    """Every image's error with the detections of at least `score`, in the order of the ground truth's images.

    The error is the localisation-recall-precision error (Oksuz et al., ECCV 2018, Eq. 2), of all classes together:
    (sum over right ones of (1 - IoU) / (1 - iou) + wrong + missed) / (right + wrong + missed).
    """
    return errors_by_image(ground_truth, judge(ground_truth, results, iou), score, iou)


def errors_by_image(ground_truth: dict[str, Any], verdicts: Verdicts, score: float, iou: float) -> list[ImageError]:
    """The same from verdicts at that IoU."""
    shown = verdicts.scoring(score)
    right, wrong, objects = defaultdict(list), defaultdict(int), defaultdict(int)
    for image_id, overlap in zip(shown.image_id[shown.right].tolist(), shown.found_iou[shown.right], strict=True):
        right[image_id].append(float(overlap))
    for image_id in shown.image_id[shown.wrong].tolist():
        wrong[image_id] += 1
    for image_id in verdicts.objects.image_id[verdicts.objects.counts].tolist():
        objects[image_id] += 1
    errors = []
    for image in ground_truth["images"]:
        overlaps, num_wrong = right[image["id"]], wrong[image["id"]]
        num_missed = objects[image["id"]] - len(overlaps)
        total = len(overlaps) + num_wrong + num_missed
        loose = sum((1 - overlap) / (1 - iou) for overlap in overlaps)
        error = (loose + num_wrong + num_missed) / total if total else float("nan")
        errors.append(ImageError(image["id"], error, len(overlaps), num_wrong, num_missed))
    return errors


def best_and_worst(errors: Sequence[ImageError], number: int) -> tuple[list[ImageError], list[ImageError]]:
    """At most `number` images of least error, best first, and as many of the others of greatest error, worst first.

    Of equal errors the more telling image, with more objects and detections, goes first, then the earlier one. Images
    without an error (NaN) are left out.
    """
    defined = [each for each in errors if each.total]
    best = sorted(defined, key=lambda each: (each.error, -each.total))[:number]
    rest = [each for each in defined if each not in best]
    return best, sorted(rest, key=lambda each: (-each.error, -each.total))[:number]


def draw_image(split: DetectionSet, results: Sequence[Result], image_id: int, score: float) -> np.ndarray:
    """uint8 [H, W, 3] RGB: an image of the split with its true boxes and its detections of at least `score`.

    At most MOST_BOXES detections are drawn, the best scored. Large images are reduced before that, so that text stays
    legible. UserError names a file that is missing.
    """
    record = next(record for record in split.records if record.image_id == image_id)
    image = read_image(record.path, (record.height, record.width))
    factor = min(1.0, SIDE / max(image.shape[:2]))
    if factor < 1:
        image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    shown = [each for each in results if each["image_id"] == image_id and each["score"] >= score]
    shown = sorted(shown, key=lambda each: -each["score"])[:MOST_BOXES]
    boxes = factor * np.array([each["bbox"] for each in shown], float).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    labels = [split.category_ids.index(each["category_id"]) for each in shown]
    scores = [each["score"] for each in shown]
    truth = (factor * record.boxes, record.labels)
    return draw_detections(image, boxes, labels, scores, split.classes, truth, SHORT_SIDE)
