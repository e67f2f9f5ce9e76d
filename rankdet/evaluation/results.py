"""Predictions as a list of COCO results: one dict a detection with image_id, category_id, bbox (xywh) and score."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rankdet.errors import UserError
from rankdet.evaluation.postprocess import Detections
from rankdet.files import write_text

Result = dict[str, Any]


def to_results(detections: Iterable[Detections], image_ids: Iterable[int], category_ids: Sequence[int]) -> list[Result]:
    """COCO results of some images, in the order of the images and within one by falling score.

    `category_ids[k]` is the category id of label k. Numbers are the float32 predictions, unrounded.
    """
    results = []
    for found, image_id in zip(detections, image_ids, strict=True):
        rows = zip(found.boxes.double().tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
        for (x1, y1, x2, y2), score, label in rows:
            bbox = [x1, y1, x2 - x1, y2 - y1]
            results.append({"image_id": image_id, "category_id": category_ids[label], "bbox": bbox, "score": score})
    return results


def save_results(results: Sequence[Result], path: Path) -> None:
    """Writes results as JSON, one a line and by image id, all or nothing.

    Detections of one image keep their order, so the file does not depend on how images were shared among processes.
    ValueError where a number is not finite.
    """
    lines = [json.dumps(result, allow_nan=False) for result in sorted(results, key=lambda result: result["image_id"])]
    write_text(path, "[\n" + ",\n".join(lines) + "\n]\n")


def load_results(path: Path) -> list[Result]:
    """Reads a COCO results file, ours or anyone's; UserError where it is not a JSON list. Entries are not checked."""
    try:
        results = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such results file") from None
    except ValueError as error:
        raise UserError(f"{path}: not a JSON file ({error}); save the predictions again") from None
    if not isinstance(results, list):
        raise UserError(f"{path}: holds a JSON {type(results).__name__}, not a list of COCO results")
    return results


def headline(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """AP, AP50 and AP75, fractions, without those that are undefined: what logs show of all metrics."""
    return {key: value for key in ("AP", "AP50", "AP75") if (value := metrics[key]) is not None}


def check_results(ground_truth: dict[str, Any], results: Sequence[Result]) -> None:
    """Refuses results that no metric may see: UserError names the first bad entry by its place in the list, from 0.

    Bad are missing fields, image or category ids that the COCO-style ground truth lacks, numbers that are not finite
    (a NaN box would count as a match in pycocotools) and boxes of negative width or height. No results are legal.
    """
    image_ids = {image["id"] for image in ground_truth["images"]}
    category_ids = {category["id"] for category in ground_truth["categories"]}
    for place, result in enumerate(results):
        try:
            problem = _problem(result, image_ids, category_ids)
        except KeyError as error:
            problem = f"{error} is missing; image_id, category_id, bbox and score are needed"
        except TypeError:
            problem = f"{result!r:.100} is not a COCO result (image_id, category_id, bbox of four numbers, score)"
        if problem:
            raise UserError(f"results entry {place}: {problem}")


def _problem(result: Result, image_ids: set[int], category_ids: set[int]) -> str | None:
    """What is wrong with one entry; KeyError or TypeError where it has not the form of a result."""
    image_id, category_id, bbox, score = (result[key] for key in ("image_id", "category_id", "bbox", "score"))
    if image_id not in image_ids:
        return f"image_id {image_id} is not in the ground truth; were these predicted on another split?"
    if category_id not in category_ids:
        return f"category_id {category_id} (image_id {image_id}) is not in the ground truth"
    if len(bbox) != 4 or not all(map(math.isfinite, (*bbox, score))):
        return f"bbox {bbox} and score {score} (image_id {image_id}) are not five finite numbers"
    if bbox[2] < 0 or bbox[3] < 0:
        return f"bbox {bbox} (image_id {image_id}) has a negative size; it must be x, y, width, height"
    return None
