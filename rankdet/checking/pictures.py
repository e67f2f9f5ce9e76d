"""Images with their annotated boxes, many on one sheet."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rankdet.data.image import read_image
from rankdet.data.records import DetectionSet, Record
from rankdet.errors import UserError
from rankdet.evaluation.draw import draw_annotations, grid
from rankdet.files import replacing

COLUMNS = 4
ROWS = 4
SHORT_SIDE = 300  # pixels of an image on a sheet, about
LONG_SIDE = 480  # at most
CAPTION = 20  # pixels


def sample(splits: Sequence[DetectionSet]) -> list[tuple[DetectionSet, Record]]:
    """COLUMNS * ROWS images of different files, of each split about as many and evenly spread."""
    left, seen, chosen = COLUMNS * ROWS, set(), []
    for number, split in enumerate(splits):
        fresh = [record for record in split.records if record.path not in seen]
        share = min(len(fresh), left // (len(splits) - number))
        for place in np.linspace(0, len(fresh) - 1, share).round().astype(int) if share else []:
            chosen.append((split, fresh[place]))
            seen.add(fresh[place].path)
        left -= share
    return chosen


def save_sheet(images: Sequence[tuple[DetectionSet, Record]], path: Path) -> bool:
    """Writes the images, in reading order and with their names, as a PNG; False where none can be decoded."""
    cells = []
    for split, record in images:
        try:
            cells.append(_cell(split, record))
        except UserError:
            continue  # the report has it
    if cells:
        with replacing(path) as partial:
            Image.fromarray(grid(cells, COLUMNS)).save(partial)
    return bool(cells)


def _cell(split: DetectionSet, record: Record) -> np.ndarray:
    """uint8 [h, w, 3]: a caption, the image with its boxes, and their legend."""
    image = read_image(record.path, (record.height, record.width))
    factor = min(1.0, LONG_SIDE / max(record.width, record.height))
    size = max(1, round(record.width * factor)), max(1, round(record.height * factor))
    small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    uncounted = record.difficult | record.crowd
    drawn = draw_annotations(small, record.boxes * factor, record.labels, split.classes, uncounted, SHORT_SIDE)
    strip = Image.new("RGB", (drawn.shape[1], CAPTION), "white")
    ImageDraw.Draw(strip).text((4, 2), f"{split.split}: {record.path.name}", "black", ImageFont.load_default(13))
    return np.vstack([np.asarray(strip), drawn])
