"""Ground truth that others wrote, as the dict of a COCO annotation file: read, and refused where it is damaged."""

import json
import math
from collections.abc import Iterable
from numbers import Integral
from pathlib import Path
from typing import Any

from rankdet.errors import UserError

LISTS = ("images", "categories", "annotations")


def read_ground_truth(path: Path) -> dict[str, Any]:
    """A COCO annotation file, checked; no image is looked for. UserError names the file and what is wrong with it."""
    ground_truth = read_json(path)
    check_ground_truth(ground_truth, str(path))
    return ground_truth


def check_ground_truth(ground_truth: Any, where: str = "ground truth") -> None:  # noqa: ANN401
    """UserError, which begins with `where`, for the first thing that makes the dict no COCO ground truth.

    Needed are the lists images (id), categories (id, name) and annotations (image_id, category_id, bbox; id, area,
    iscrowd and difficult where they are given); ids are whole numbers, and ids and names occur once. Boxes of no area
    are legal, negative sizes are not.
    """
    if not isinstance(ground_truth, dict):
        raise UserError(f"{where}: holds a JSON {type(ground_truth).__name__}, not COCO's object of {', '.join(LISTS)}")
    for name in LISTS:
        items = ground_truth.get(name)
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise UserError(f"{where}: has no list {name!r} of objects, so it is not in COCO's instances format")
        for key in ("id", "name") if name == "categories" else ("id",):
            _require_once(items, key, f"{where}: {name}", optional=name == "annotations")
    image_ids, category_ids = ({item["id"] for item in ground_truth[name]} for name in ("images", "categories"))
    for place, annotation in enumerate(ground_truth["annotations"]):
        problem = _problem(annotation, image_ids, category_ids)
        if problem:
            raise UserError(f"{where}: annotations[{place}] (id {annotation.get('id', '?')}): {problem}")


def box_problem(bbox: Any) -> str | None:  # noqa: ANN401
    """What is wrong with an xywh box; None where it is one whose area can be computed."""
    if not isinstance(bbox, list | tuple) or len(bbox) != 4 or not all(map(is_finite, bbox)):
        return f"bbox {bbox!r:.100} is not four finite numbers"
    width, height = bbox[2:]
    if width < 0 or height < 0:
        return f"bbox {bbox} has a negative size; it must be x, y, width, height"
    area = width * height
    if not math.isfinite(area) or (area == 0 and min(width, height) > 0):
        return f"bbox {bbox} has no area that a computer can hold"
    return None


def is_finite(value: Any) -> bool:  # noqa: ANN401
    """Whether value is a number, and not NaN or infinite."""
    try:
        return math.isfinite(value)
    except (TypeError, OverflowError):
        return False


def read_json(path: Path) -> Any:  # noqa: ANN401
    """A JSON file's content; UserError names the file where it cannot be read or is cut short."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a JSON file ({error}); is it complete?") from None


def _require_once(items: Iterable[dict[str, Any]], key: str, where: str, optional: bool) -> None:
    """UserError where a key is missing, of the wrong kind, or has one value twice."""
    kind, words = (str, "text") if key == "name" else (Integral, "a whole number")
    seen = set()
    for place, item in enumerate(items):
        if optional and key not in item:
            continue
        value = item.get(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise UserError(f"{where}[{place}]: {key} is {value!r:.100}, not {words}")
        if value in seen:
            raise UserError(f"{where}: {key} {value!r} occurs twice; remove or renumber one of the two")
        seen.add(value)


def _problem(annotation: dict[str, Any], image_ids: set[int], category_ids: set[int]) -> str | None:
    for key, known, name in (("image_id", image_ids, "images"), ("category_id", category_ids, "categories")):
        value = annotation.get(key)
        if not isinstance(value, Integral) or value not in known:
            return f"{key} {value!r:.100} is not among the {name}"
    for key in ("iscrowd", "difficult"):
        if annotation.get(key, 0) not in (0, 1):
            return f"{key} is {annotation[key]!r:.100}, not 0 or 1"
    if not is_finite(annotation.get("area", 0.0)):
        return f"area is {annotation['area']!r:.100}, not a finite number"
    return box_problem(annotation.get("bbox"))
