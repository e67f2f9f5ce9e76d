"""What a split is made of, in numbers."""

from typing import Any

import numpy as np

from rankdet.data.records import DetectionSet

SIZES = {"small": 0.0, "medium": 32.0**2, "large": 96.0**2}  # COCO's sizes of boxes: square pixels from which on


def split_statistics(split: DetectionSet) -> dict[str, Any]:
    """Counts and quantiles of what the reader let through, as plain numbers for JSON.

    Keys: images, labelled, empty (images without a box), boxes, difficult, crowd; image_width, image_height,
    boxes_per_image, box_width, box_height (each least, median and largest, in pixels; null without any); box_sizes
    (COCO's small, medium, large); boxes_of_class, images_of_class.
    """
    records, classes = split.records, split.classes
    counts = [len(record.boxes) for record in records]
    boxes = all_boxes(split)
    labels = np.concatenate([record.labels for record in records]) if records else np.zeros(0, np.int64)
    present = [np.unique(record.labels) for record in records]
    sides = boxes[:, 2:] - boxes[:, :2]
    place = np.searchsorted(list(SIZES.values()), sides.prod(axis=1), side="right") - 1
    of_size = np.bincount(place, minlength=len(SIZES)).tolist()
    of_class = np.bincount(labels, minlength=len(classes)).tolist()
    images_of_class = np.bincount(np.concatenate(present) if present else labels, minlength=len(classes)).tolist()
    return {
        "images": len(records),
        "labelled": split.labelled,
        "empty": counts.count(0),
        "boxes": len(boxes),
        "difficult": sum(int(record.difficult.sum()) for record in records),
        "crowd": sum(int(record.crowd.sum()) for record in records),
        "image_width": spread([record.width for record in records]),
        "image_height": spread([record.height for record in records]),
        "boxes_per_image": spread(counts),
        "box_width": spread(sides[:, 0]),
        "box_height": spread(sides[:, 1]),
        "box_sizes": dict(zip(SIZES, of_size, strict=True)),
        "boxes_of_class": dict(zip(classes, of_class, strict=True)),
        "images_of_class": dict(zip(classes, images_of_class, strict=True)),
    }


def all_boxes(split: DetectionSet) -> np.ndarray:
    """float64 [G, 4], xyxy, of all images."""
    found = [record.boxes for record in split.records]
    return np.concatenate(found).astype(np.float64) if found else np.zeros((0, 4))


def spread(values: "np.ndarray | list[int]") -> list[float] | None:
    """Least, median and largest; None for none."""
    return np.quantile(values, (0, 0.5, 1)).tolist() if len(values) else None
