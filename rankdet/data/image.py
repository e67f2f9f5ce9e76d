"""Reading an image file as 8-bit RGB, or saying which file is at fault."""

from pathlib import Path

import numpy as np
from PIL import Image

from rankdet.errors import UserError


def read_image(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Decodes an image file to uint8 [H, W, 3], RGB.

    Grey images are repeated over the channels, an alpha channel is dropped (not blended), 16-bit samples keep their
    upper byte. An EXIF orientation is ignored: annotation tools of VOC and COCO give pixels as stored, not as shown.
    size: (height, width) as annotated, checked where given. Raises UserError for a missing, truncated or undecodable
    file and for another size.
    """
    try:
        with Image.open(path) as file:
            image = _to_rgb(file)
    except FileNotFoundError:
        raise UserError(f"{path}: no such image; mend the annotation or put the file there") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be decoded ({error}); replace the file or drop it from its split") from error
    if size is not None and image.shape[:2] != tuple(size):
        found, annotated = (f"{width} x {height}" for height, width in (image.shape[:2], size))
        raise UserError(
            f"{path}: the image is {found} pixels but its annotation says {annotated} (EXIF orientation is ignored); "
            "mend the annotation or replace the file"
        )
    return image


def _to_rgb(file: Image.Image) -> np.ndarray:
    """An opened PIL image -> uint8 [H, W, 3]. PIL itself would clip 16-bit grey ("I", "I;16", ...) at 255."""
    if file.mode.startswith("I"):
        grey = (np.asarray(file).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    file.load()  # else numpy would be the one to meet a damaged file
    return np.asarray(file if file.mode == "RGB" else file.convert("RGB"))
