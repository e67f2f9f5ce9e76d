"""Pictures of detections: predicted boxes solid with class and score, true boxes dashed, a legend below."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

# Bright colours that stay apart on photographs, also in the common forms of colour blindness when next to each other.
PALETTE = ("#ff5a36", "#00b7ff", "#ffd000", "#3ddc84", "#e070ff", "#ff9ecb", "#9be7ff", "#c49a6c", "#b8ff4d", "#8f9bff")
FONT_SIZE = 13
LINE = 2  # pixels of the picture
DASH = 7
MAX_SIDE = 1920
MARGIN = 4


def draw_detections(
    image: np.ndarray,
    boxes: ArrayLike,
    labels: ArrayLike,
    scores: ArrayLike,
    classes: Sequence[str],
    truth: tuple[ArrayLike, ArrayLike] | None = None,
    short_side: int = 480,
) -> np.ndarray:
    """The image with its boxes and a legend, uint8 [H', W', 3].

    `image` is uint8 [H, W, 3] RGB; `boxes` [D, 4] xyxy in its pixels, `labels` [D] positions in `classes`, `scores`
    [D]; `truth` the true boxes [G, 4] and labels [G]. All boxes given are drawn: the caller thresholds the scores. So
    that text is legible, a small image is enlarged by the whole factor that brings its shorter side nearest to
    `short_side` pixels, and none gets a side longer than 1920.
    """
    picture, factor = _enlarged(image, short_side)
    canvas, size = ImageDraw.Draw(picture), picture.size
    boxes = factor * np.asarray(boxes, float).reshape(-1, 4)
    labels, scores = np.asarray(labels, int), np.asarray(scores, float)
    present = set(labels.tolist())

    order = np.argsort(scores, kind="stable")  # the best on top
    for box, label in zip(boxes[order], labels[order], strict=True):
        _solid(canvas, _outline(box, size), _colour(label))
    if truth is not None:
        true_labels = np.asarray(truth[1], int)
        present |= set(true_labels.tolist())
        for box, label in zip(factor * np.asarray(truth[0], float).reshape(-1, 4), true_labels, strict=True):
            _dashed(canvas, _outline(box, size), _colour(label))

    texts = [f"{classes[label]} {score:.2f}" for label, score in zip(labels, scores, strict=True)]
    _write(canvas, boxes[order], [texts[index] for index in order], [_colour(labels[index]) for index in order], size)
    styles = "solid: predicted, with score" + ("; dashed: true" if truth is not None else "")
    return np.vstack([np.asarray(picture), _legend(styles, sorted(present), classes, size[0])])


def draw_annotations(
    image: np.ndarray,
    boxes: ArrayLike,
    labels: ArrayLike,
    classes: Sequence[str],
    uncounted: ArrayLike,
    short_side: int = 480,
) -> np.ndarray:
    """The image with its annotated boxes [G, 4], each with its class; arguments and result as of draw_detections.

    `uncounted` is bool [G]: boxes that are difficult or crowds, which are dashed. Large boxes lie under small ones.
    """
    picture, factor = _enlarged(image, short_side)
    canvas, size = ImageDraw.Draw(picture), picture.size
    boxes = factor * np.asarray(boxes, float).reshape(-1, 4)
    labels, uncounted = np.asarray(labels, int), np.asarray(uncounted, bool)
    order = np.argsort(-(boxes[:, 2:] - boxes[:, :2]).prod(axis=1), kind="stable")
    for index in order:
        draw = _dashed if uncounted[index] else _solid
        draw(canvas, _outline(boxes[index], size), _colour(labels[index]))
    names, colours = [classes[label] for label in labels[order]], [_colour(label) for label in labels[order]]
    _write(canvas, boxes[order], names, colours, size)
    styles = "annotated" + ("; dashed: difficult or crowd" if uncounted.any() else "")
    return np.vstack([np.asarray(picture), _legend(styles, sorted(set(labels.tolist())), classes, size[0])])


def grid(images: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """One or more pictures uint8 [h, w, 3] of any sizes, row by row on white, each in the top left of its cell."""
    columns = min(columns, len(images))
    height, width = (MARGIN + max(image.shape[axis] for image in images) for axis in (0, 1))
    sheet = np.full((math.ceil(len(images) / columns) * height, columns * width, 3), 255, np.uint8)
    for place, image in enumerate(images):
        top, left = place // columns * height, place % columns * width
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    return sheet


def _enlarged(image: np.ndarray, short_side: int) -> tuple[Image.Image, float]:
    """The image as draw_detections shows it, and how much larger it is than the image given."""
    height, width = image.shape[:2]
    factor = min(max(1, round(short_side / min(height, width))), MAX_SIDE / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return Image.fromarray(image).convert("RGB").resize(size, Image.Resampling.BICUBIC), factor


def _solid(canvas: ImageDraw.ImageDraw, outline: tuple[int, int, int, int], colour: str) -> None:
    """A box with a black rim, or its lines would drown in a busy texture."""
    left, top, right, bottom = outline
    canvas.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline="black", width=LINE + 2)
    canvas.rectangle(outline, outline=colour, width=LINE)


def _colour(label: int) -> str:
    return PALETTE[label % len(PALETTE)]


def _outline(box: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The pixels that a continuous box's line runs through, inside the picture."""
    x1, y1, x2, y2 = box.round().astype(int).tolist()
    left, top = min(max(x1, 0), size[0] - 1), min(max(y1, 0), size[1] - 1)
    return left, top, max(left, min(x2, size[0]) - 1), max(top, min(y2, size[1]) - 1)


def _dashed(canvas: ImageDraw.ImageDraw, outline: tuple[int, int, int, int], colour: str) -> None:
    """A box in dashes of white and of its class's colour."""
    x1, y1, x2, y2 = outline
    for place in range(0, max(x2 - x1, y2 - y1) + 1, DASH):
        fill = "white" if place // DASH % 2 else colour
        end = place + DASH - 1
        if x1 + place <= x2:
            for y in (y1, y2 - LINE + 1):
                canvas.rectangle((x1 + place, y, min(x1 + end, x2), y + LINE - 1), fill=fill)
        if y1 + place <= y2:
            for x in (x1, x2 - LINE + 1):
                canvas.rectangle((x, y1 + place, x + LINE - 1, min(y1 + end, y2)), fill=fill)


def _write(
    canvas: ImageDraw.ImageDraw, boxes: np.ndarray, texts: list[str], colours: list[str], size: tuple[int, int]
) -> None:
    """Texts beside their boxes, the last one placed first and drawn on top."""
    font = ImageFont.load_default(FONT_SIZE)
    spots: list[tuple[float, float, float, float]] = []
    for box, text in zip(boxes[::-1], reversed(texts), strict=True):
        spots.append(_spot(box, font.getlength(text) + MARGIN, size, spots))
    for spot, text, colour in zip(reversed(spots), texts, colours, strict=True):
        canvas.rectangle(spot, fill=colour)
        canvas.text((spot[0] + MARGIN // 2, spot[1]), text, fill="black", font=font)


def _spot(
    box: np.ndarray, width: float, size: tuple[int, int], taken: list[tuple[float, float, float, float]]
) -> tuple[float, float, float, float]:
    """Where a box's text goes: the first place around its edges that covers no other text, else the first of all."""
    height = FONT_SIZE + MARGIN
    x1, y1, x2, y2 = box.tolist()
    spots = []
    for top in (y1 - height, y1, y2 - height, y2):
        for left in (x1, x2 - width):
            left_inside = min(max(left, 0), max(size[0] - width, 0))
            top_inside = min(max(top, 0), max(size[1] - height, 0))
            spots.append((left_inside, top_inside, left_inside + width, top_inside + height))
    free = (spot for spot in spots if not any(_touch(spot, other) for other in taken))
    return next(free, spots[0])


def _touch(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _legend(styles: str, labels: Sequence[int], classes: Sequence[str], width: int) -> np.ndarray:
    """A white strip that names the line styles and the colours of the classes present, uint8 [h, width, 3]."""
    font = ImageFont.load_default(FONT_SIZE)
    entries = [(styles, None)]
    entries += [(classes[label], _colour(label)) for label in labels]
    row, x, y, places = FONT_SIZE + 2 * MARGIN, MARGIN, 0, []
    for text, colour in entries:
        needed = font.getlength(text) + (FONT_SIZE + MARGIN if colour else 0)
        if x + needed > width and x > MARGIN:
            x, y = MARGIN, y + row
        places.append((x, y))
        x += needed + 3 * MARGIN
    strip = Image.new("RGB", (width, y + row), "white")
    canvas = ImageDraw.Draw(strip)
    for (text, colour), (x, y) in zip(entries, places, strict=True):
        if colour:
            canvas.rectangle((x, y + MARGIN, x + FONT_SIZE, y + MARGIN + FONT_SIZE), fill=colour, outline="black")
            x += FONT_SIZE + MARGIN
        canvas.text((x, y + MARGIN - 1), text, fill="black", font=font)
    return np.asarray(strip)
