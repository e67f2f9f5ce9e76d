"""COCO's average precision and recall as a function from ground truth and results to a flat dict."""

import contextlib
import io
import math
from collections.abc import Sequence
from typing import Any

import faster_coco_eval
import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rankdet.data.records import DetectionSet
from rankdet.evaluation.matches import MOST, RANGES
from rankdet.evaluation.results import Result, check_results

MAX_DETECTIONS = (1, 10, MOST)
IOUS = np.linspace(0.5, 0.95, 10)


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


def coco_metrics(ground_truth: dict[str, Any], results: Sequence[Result], reference: bool = False) -> dict[str, float]:
    """COCO's box metrics, fractions in [0, 1]; NaN where there is no object to find.

    Keys: AP (mean over IoU 0.50:0.05:0.95), AP50, AP55 ... AP95, AP_small, AP_medium, AP_large; AR_1, AR_10, AR_100 (at
    most so many detections per image and class), AR_small, AR_medium, AR_large; AP/<class name> and AP50/<class name>
    for each category.
    `ground_truth` is the dict of a COCO annotation file; `area` (default: the box's), `iscrowd` and `difficult`
    (default: 0) may be missing. Neither argument is changed. Crowds follow COCO's rule. A difficult object is treated
    as COCO treats one outside the asked range of sizes: it need not be found, and one detection that overlaps it enough
    (by plain IoU), and no object that counts, is neither right nor wrong. Scores are any finite numbers: only their
    order matters. Results may be empty (AP 0). UserError names a bad entry.

    faster-coco-eval computes them; with `reference` pycocotools, which takes several times as long. They differ by
    2e-16: pycocotools gives a right detection above all others a precision of 1 - 2e-16.
    """
    check_results(ground_truth, results)
    evaluator = _Reference if reference else _Evaluator
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        evaluated = evaluator(ground_truth, _objects(ground_truth), _boxes(results))
        evaluated.evaluate()
        evaluated.accumulate()
    precision = evaluated.eval["precision"]  # [IoU, recall, category, area, max detections]
    recall = evaluated.eval["recall"]  # [IoU, category, area, max detections]

    metrics = {"AP": _mean(precision[..., 0, -1])}
    for index, iou in enumerate(IOUS):
        metrics[f"AP{round(100 * iou)}"] = _mean(precision[index, ..., 0, -1])
    metrics |= {f"AP_{area}": _mean(precision[..., index, -1]) for index, area in enumerate(RANGES) if index}
    metrics |= {f"AR_{most}": _mean(recall[..., 0, index]) for index, most in enumerate(MAX_DETECTIONS)}
    metrics |= {f"AR_{area}": _mean(recall[..., index, -1]) for index, area in enumerate(RANGES) if index}
    names = {category["id"]: category["name"] for category in ground_truth["categories"]}
    for key, ious in (("AP", slice(None)), ("AP50", 0)):
        for index, category_id in enumerate(evaluated.params.catIds):
            metrics[f"{key}/{names[category_id]}"] = _mean(precision[ious, :, index, 0, -1])
    return metrics


class _Boxes:
    """What both evaluators take from here: boxes, and difficult objects ignored.

    Their own _prepare overwrites an annotation's `ignore` with `iscrowd`.
    """

    index: type[Any]  # the evaluator's view of a file's content

    def __init__(
        self, ground_truth: dict[str, Any], objects: list[dict[str, Any]], boxes: list[dict[str, Any]]
    ) -> None:
        views = []
        for annotations in (objects, boxes):
            view = self.index()
            view.dataset = {
                "images": [{"id": image["id"]} for image in ground_truth["images"]],
                "categories": ground_truth["categories"],
                "annotations": annotations,
            }
            view.createIndex()
            views.append(view)
        super().__init__(*views, iouType="bbox")
        self.params.maxDets, self.params.iouThrs = list(MAX_DETECTIONS), IOUS
        self.params.areaRng = [list(limits) for limits in RANGES.values()]

    def _prepare(self) -> None:
        super()._prepare()
        for annotation in self.cocoGt.anns.values():
            annotation["ignore"] = int(annotation["iscrowd"] or annotation["difficult"])


class _Evaluator(_Boxes, faster_coco_eval.COCOeval_faster):
    index = faster_coco_eval.COCO


class _Reference(_Boxes, COCOeval):
    index = COCO


def _objects(ground_truth: dict[str, Any]) -> list[dict[str, Any]]:
    """The annotations with the fields that the evaluators need."""
    objects = []
    for place, annotation in enumerate(ground_truth["annotations"]):
        fields = _fields(annotation, place)
        fields["area"] = float(annotation.get("area", fields["area"]))
        fields |= {key: int(bool(annotation.get(key, 0))) for key in ("iscrowd", "difficult")}
        objects.append(fields)
    return objects


def _boxes(results: Sequence[Result]) -> list[dict[str, Any]]:
    """The results with the fields that the evaluators need; pycocotools' own loadRes fails on none at all."""
    return [
        _fields(result, place) | {"score": float(result["score"]), "iscrowd": 0} for place, result in enumerate(results)
    ]


def _fields(entry: dict[str, Any], place: int) -> dict[str, Any]:
    """What both have. Ids from 1: a match with id 0 is taken for none."""
    bbox = [float(number) for number in entry["bbox"]]
    ids = {"id": place + 1, "image_id": entry["image_id"], "category_id": entry["category_id"]}
    return ids | {"bbox": bbox, "area": bbox[2] * bbox[3]}


def _mean(values: np.ndarray) -> float:
    """The mean of what is defined: the evaluators write -1 where a category has no object to find."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else math.nan
