"""Predictions as a list of COCO results: one dict a detection with image_id, category_id, bbox (xywh) and score."""

import json
import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rankdet.errors import UserError
from rankdet.evaluation.ground_truth import box_problem, check_ground_truth, is_finite, read_json
from rankdet.evaluation.postprocess import Detections
from rankdet.files import write_text

Result = dict[str, Any]
HEADLINE = ("AP", "AP50", "AP75")  # what logs show of all metrics
FIELDS = ("image_id", "category_id", "bbox", "score")


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
    results = read_json(path)
    if not isinstance(results, list):
        raise UserError(f"{path}: holds a JSON {type(results).__name__}, not a list of COCO results")
    return results


def headline(metrics: Mapping[str, float | None]) -> dict[str, float]:
    """Those of HEADLINE, fractions, without any that is undefined."""
    return {key: value for key in HEADLINE if (value := metrics[key]) is not None}


def by_category(entries: Iterable[dict[str, Any]]) -> defaultdict[int, list[dict[str, Any]]]:
    """Annotations or results of each category, in the order given; none of one that does not occur."""
    groups = defaultdict(list)
    for entry in entries:
        groups[entry["category_id"]].append(entry)
    return groups


def mean_of_defined(values: Iterable[float]) -> float:
    """The mean without NaN; NaN where nothing is left."""
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan


def check_results(ground_truth: dict[str, Any], results: Sequence[Result], where: str = "results") -> None:
    """Refuses what no metric may see: UserError names the first bad entry of results by its place, from 0.

    Bad are missing fields, image or category ids that the COCO-style ground truth lacks, numbers that are not finite
    (a NaN box would count as a match in pycocotools) and boxes of negative size. No results are legal, and so is any
    finite score. The ground truth is checked, too: see check_ground_truth.
    """
    check_ground_truth(ground_truth)
    image_ids = {image["id"] for image in ground_truth["images"]}
    category_ids = {category["id"] for category in ground_truth["categories"]}
    for place, result in enumerate(results):
        problem = _problem(result, image_ids, category_ids)
        if problem:
            raise UserError(f"{where} entry {place}: {problem}")


def _problem(result: Result, image_ids: set[int], category_ids: set[int]) -> str | None:
    """What is wrong with one entry."""
    missing = [key for key in FIELDS if key not in result] if isinstance(result, dict) else FIELDS
    if missing:
        return f"{result!r:.100} is not a COCO result, which has {', '.join(FIELDS)}"
    image_id, category_id = result["image_id"], result["category_id"]
    if not isinstance(image_id, Hashable) or image_id not in image_ids:
        return f"image_id {image_id!r:.100} is not in the ground truth; were these predicted on another split?"
    if not isinstance(category_id, Hashable) or category_id not in category_ids:
        return f"category_id {category_id!r:.100} (image_id {image_id}) is not in the ground truth"
    if not is_finite(result["score"]):
        return f"score {result['score']!r:.100} (image_id {image_id}) is not a finite number"
    problem = box_problem(result["bbox"])
    return problem and f"{problem} (image_id {image_id})"
