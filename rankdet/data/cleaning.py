"""The one rule for dirt that can be mended in annotated boxes, the same for every format; see clean_boxes."""

from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from rankdet.data.records import DetectionSet
from rankdet.errors import UserError

# Kind of dirt, as it stands in DetectionSet.dirt -> its words in the report for one and for several.
DIRT = {
    "non-finite box dropped": ("dropped {} non-finite box", "dropped {} non-finite boxes"),
    "zero-area box dropped": ("dropped {} zero-area box", "dropped {} zero-area boxes"),
    "inverted box dropped": ("dropped {} inverted box", "dropped {} inverted boxes"),
    "box outside its image dropped": ("dropped {} box outside its image", "dropped {} boxes outside their image"),
    "box clipped": ("clipped {} box to its image", "clipped {} boxes to their image"),
    "image size missing": ("took {} missing image size from the file", "took {} missing image sizes from the files"),
}
ROUNDING = 0.01  # pixels; COCO's two decimals make x + w overshoot by about that much


def clean_boxes(
    corners: np.ndarray, height: int, width: int, dirt: Counter[str], first_pixel: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes that training and evaluation can rely on, from corners as written in a file; counts what it mends in dirt.

    corners: float [G, 4], x1 y1 x2 y2. first_pixel: 0 where they are 0-based and continuous (COCO), 1 where they are
    the first and last pixel counted from 1 (VOC), whose continuous box is (x1 - 1, y1 - 1, x2, y2).
    In this order, each box at most once: a NaN or infinite corner, x2 < x1 or y2 < y1 (inverted), x2 = x1 or y2 = y1
    (zero-area: as written, so a VOC box of a single pixel is one too, being a stray click rather than an object) and
    no overlap with the image are dropped; what sticks out is clipped, uncounted where it is by less than ROUNDING.
    Returns boxes float32 [M, 4], 0-based, continuous, inside the image, of positive area, and kept bool [G], M ones.
    """
    with np.errstate(over="ignore"):  # beyond float32 is infinite, hence dropped
        boxes = np.asarray(corners, np.float64).reshape(-1, 4).astype(np.float32)
    finite = np.isfinite(boxes).all(axis=1)
    sides = np.where(finite[:, None], boxes, 0)
    sides = sides[:, 2:] - sides[:, :2]
    inverted = finite & (sides < 0).any(axis=1)
    flat = finite & ~inverted & (sides == 0).any(axis=1)
    boxes[:, :2] -= first_pixel
    limits = np.array([width, height, width, height], np.float32)
    inside = np.clip(boxes, 0, limits)
    sound = finite & ~inverted & ~flat
    outside = sound & (inside[:, 2:] <= inside[:, :2]).any(axis=1)
    kept = sound & ~outside
    clipped = kept & (np.abs(inside - boxes) > ROUNDING).any(axis=1)
    counts = {
        "non-finite box dropped": ~finite,
        "zero-area box dropped": flat,
        "inverted box dropped": inverted,
        "box outside its image dropped": outside,
        "box clipped": clipped,
    }
    dirt.update({kind: int(mask.sum()) for kind, mask in counts.items() if mask.any()})
    return inside[kept], kept


def image_size(path: Path, height: float, width: float, dirt: Counter[str]) -> tuple[int, int]:
    """(height, width) as annotated, or where either is not positive, as the image file's header has it (counted)."""
    if 0 < height < np.inf and 0 < width < np.inf:
        return int(height), int(width)
    dirt["image size missing"] += 1
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (UnidentifiedImageError, OSError) as error:
        raise UserError(f"{path} is no readable image and its annotation has no image size: mend either") from error


def describe_dirt(data: DetectionSet) -> str:
    """One line, "bccd/train: dropped 2 zero-area boxes, clipped 5 boxes to their image"; empty where all was clean."""
    found = [DIRT[kind][number > 1].format(number) for kind, number in data.dirt.items() if number]
    return f"{data.name}/{data.split}: {', '.join(found)}" if found else ""
