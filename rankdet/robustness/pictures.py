"""Pictures of the test conditions, for looking: each a strip of images under a caption, and all strips on a sheet."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rankdet.errors import UserError
from rankdet.files import replacing

HEIGHT = 200  # of each image on a strip, pixels
LEAST_WIDTH = 400  # where there are few images, or none at all, the caption needs room
MARGIN = 6
FONT_SIZE = 14


def strip(images: Sequence[np.ndarray], caption: str) -> np.ndarray:
    """Images [h, w, 3] (0..255, rounded and clipped for looking) side by side under a caption, uint8 [H, W, 3]."""
    shown = [_scaled(np.clip(np.round(image), 0, 255).astype(np.uint8)) for image in images]
    width = max(LEAST_WIDTH, sum(image.shape[1] + MARGIN for image in shown) + MARGIN)
    font = ImageFont.load_default(FONT_SIZE)
    letters = int((width - 2 * MARGIN) / font.getlength("n"))
    lines = textwrap.wrap(caption, letters)
    top = MARGIN + len(lines) * (FONT_SIZE + 4) + MARGIN
    canvas = Image.new("RGB", (width, top + HEIGHT + MARGIN), "white")
    ImageDraw.Draw(canvas).multiline_text((MARGIN, MARGIN), "\n".join(lines), fill="black", font=font, spacing=4)
    left = MARGIN
    for image in shown:
        canvas.paste(Image.fromarray(image), (left, top))
        left += image.shape[1] + MARGIN
    return np.asarray(canvas)


def sheet(strips: Sequence[np.ndarray]) -> np.ndarray:
    """One or more strips below each other, uint8 [H, W, 3]."""
    width = max(each.shape[1] for each in strips)
    padded = [np.pad(each, ((0, 0), (0, width - each.shape[1]), (0, 0)), constant_values=255) for each in strips]
    return np.concatenate(padded)


def save_picture(picture: np.ndarray, path: Path) -> None:
    """Writes uint8 [H, W, 3] as PNG, whole or not at all."""
    with replacing(path) as partial:
        Image.fromarray(picture).save(partial)


def read_picture(path: Path) -> np.ndarray:
    """A PNG as uint8 [H, W, 3]; UserError where it cannot be read."""
    try:
        with Image.open(path) as file:
            return np.asarray(file.convert("RGB"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}); remove it and test again") from error


def _scaled(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    way = cv2.INTER_AREA if height > HEIGHT else cv2.INTER_CUBIC
    return cv2.resize(image, (max(1, round(width * HEIGHT / height)), HEIGHT), interpolation=way)
