"""COCO's average precision by pycocotools, as a function from ground truth and results to a flat dict."""

import contextlib
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rankdet.data.records import DetectionSet
from rankdet.evaluation.results import Result, check_results

MAX_DETECTIONS = (1, 10, 100)
AREAS = ("all", "small", "medium", "large")  # COCO's: up to 32^2, 32^2 to 96^2, from 96^2 square pixels


def coco_ground_truth(detection_set: DetectionSet) -> dict[str, Any]:
    """A split as the dict of a COCO annotation file, with VOC's flag as a further field `difficult` (0 or 1).

    Annotation ids start at 1 (pycocotools takes a match with id 0 for none). `area` is the box's, also for COCO's own
    images, whose annotation files give the smaller area of the mask.
    """
    images, annotations = [], []
    for record in detection_set.records:
        images.append(
            {"id": record.image_id, "file_name": record.path.name, "height": record.height, "width": record.width}
        )
        objects = zip(
            record.boxes.tolist(),
            record.labels.tolist(),
            record.difficult.tolist(),
            record.crowd.tolist(),
            strict=True,
        )
        for (x1, y1, x2, y2), label, difficult, crowd in objects:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": record.image_id,
                    "category_id": detection_set.category_ids[label],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(crowd),
                    "difficult": int(difficult),
                }
            )
    names = zip(detection_set.category_ids, detection_set.classes, strict=True)
    categories = [{"id": category_id, "name": name} for category_id, name in names]
    return {"images": images, "annotations": annotations, "categories": categories}


def coco_metrics(ground_truth: dict[str, Any], results: Sequence[Result]) -> dict[str, float]:
    """COCO's box metrics, fractions in [0, 1]; NaN where there is no object to find.

    Keys: AP (mean over IoU 0.50:0.05:0.95), AP50, AP55 ... AP95, AP_small, AP_medium, AP_large; AR_1, AR_10, AR_100 (at
    most so many detections per image and class), AR_small, AR_medium, AR_large; AP/<class name> for each category.
    `ground_truth` is the dict of a COCO annotation file; `area` (default: the box's), `iscrowd` and `difficult`
    (default: 0) may be missing. Neither argument is changed. Crowds follow COCO's rule. A difficult object is treated
    as COCO treats one outside the asked range of sizes: it need not be found, and one detection that overlaps it enough
    (by plain IoU), and no object that counts, is neither right nor wrong. Results may be empty (AP 0). UserError names
    a bad entry.
    """
    check_results(ground_truth, results)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        evaluator = _Evaluator(_index(ground_truth, _objects(ground_truth)), _index(ground_truth, _boxes(results)))
        evaluator.evaluate()
        evaluator.accumulate()
    precision = evaluator.eval["precision"]  # [IoU, recall, category, area, max detections]
    recall = evaluator.eval["recall"]  # [IoU, category, area, max detections]

    metrics = {"AP": _mean(precision[..., 0, -1])}
    for index, iou in enumerate(evaluator.params.iouThrs):
        metrics[f"AP{round(100 * iou)}"] = _mean(precision[index, ..., 0, -1])
    metrics |= {f"AP_{area}": _mean(precision[..., index, -1]) for index, area in enumerate(AREAS) if index}
    metrics |= {f"AR_{most}": _mean(recall[..., 0, index]) for index, most in enumerate(MAX_DETECTIONS)}
    metrics |= {f"AR_{area}": _mean(recall[..., index, -1]) for index, area in enumerate(AREAS) if index}
    names = {category["id"]: category["name"] for category in ground_truth["categories"]}
    for index, category_id in enumerate(evaluator.params.catIds):
        metrics[f"AP/{names[category_id]}"] = _mean(precision[:, :, index, 0, -1])
    return metrics


class _Evaluator(COCOeval):
    """COCOeval for boxes that also ignores difficult objects; its own _prepare overwrites `ignore` with `iscrowd`."""

    def __init__(self, ground_truth: COCO, results: COCO) -> None:
        super().__init__(ground_truth, results, iouType="bbox")
        self.params.maxDets = list(MAX_DETECTIONS)

    def _prepare(self) -> None:
        super()._prepare()
        for annotations in self._gts.values():
            for annotation in annotations:
                annotation["ignore"] = annotation["ignore"] or annotation["difficult"]


def _objects(ground_truth: dict[str, Any]) -> list[dict[str, Any]]:
    """Copies of the annotations with every field that pycocotools needs and ids from 1."""
    objects = []
    for annotation in ground_truth["annotations"]:
        width, height = annotation["bbox"][2:]
        defaults = {"area": width * height, "iscrowd": 0, "difficult": 0}
        objects.append(defaults | annotation | {"id": len(objects) + 1})
    return objects


def _boxes(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Copies of the results with the fields that pycocotools needs; its own loadRes fails on none at all."""
    extra = ({"area": result["bbox"][2] * result["bbox"][3], "iscrowd": 0} for result in results)
    return [
        result | fields | {"id": place + 1} for place, (result, fields) in enumerate(zip(results, extra, strict=True))
    ]


def _index(ground_truth: dict[str, Any], annotations: list[dict[str, Any]]) -> COCO:
    """pycocotools' view of some annotations of the ground truth's images."""
    coco = COCO()
    coco.dataset = {
        "images": ground_truth["images"],
        "categories": ground_truth["categories"],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


def _mean(values: np.ndarray) -> float:
    """The mean of what is defined: pycocotools writes -1 where a category has no object to find."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else math.nan
