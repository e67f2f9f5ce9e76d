"""Small data sets with known pixels for the tests of data loading."""

from pathlib import Path

import numpy as np
from PIL import Image

from rankdet.data.records import DetectionSet, Record

COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], dtype=np.uint8)  # of the classes red, green, blue
GREY = 90


def paint(height: int, width: int, boxes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """uint8 [height, width, 3]: grey, with each whole-pixel box filled in its class's colour."""
    image = np.full((height, width, 3), GREY, dtype=np.uint8)
    for (left, top, right, bottom), label in zip(boxes.astype(int), labels, strict=True):
        image[top:bottom, left:right] = COLOURS[label]
    return image


def record(path: Path, image_id: int, height: int, width: int, boxes: list, labels: list, **flags: list) -> Record:
    """A record over whole-pixel boxes; its image is painted to path."""
    array = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    classes = np.array(labels, dtype=np.int64)
    Image.fromarray(paint(height, width, array, classes)).save(path)
    none = [False] * len(labels)
    difficult, crowd = (np.array(flags.get(name, none), dtype=bool) for name in ("difficult", "crowd"))
    return Record(image_id, path, height, width, array, classes, difficult, crowd)


def drawn_set(folder: Path, num_images: int) -> DetectionSet:
    """num_images pictures of 40 x 60 pixels (every fourth 50 x 30) with 0, 1, 2 or 3 objects in turn, all different."""
    records = []
    for i in range(num_images):
        height, width = (50, 30) if i % 4 == 3 else (40, 60)
        boxes = [[2 + i % 5, 3, 12 + i % 7, 20], [15, 5 + i % 6, 28, 25], [1, 28, 20 + i % 8, 38]][: i % 4]
        records.append(record(folder / f"{i}.png", 100 + i, height, width, boxes, [0, 1, 2][: i % 4]))
    return DetectionSet("drawn", "train", ("red", "green", "blue"), (1, 2, 3), tuple(records))
