"""Patches at the objects' centres (AP-loss, Sec. 4.2.2): functions (image, boxes, generator) -> altered image.

image: [H, W, 3], uint8 or float, left untouched; the result is a new array of its type. boxes: float [G, 4], xyxy in
its pixels, positive area; none is legal. generator: drawn from in the order of the boxes, so that the result is a
function of these three alone. What a patch shows is taken from the unaltered image; where patches overlap, the later
object's is on top.
"""

from collections.abc import Callable
from zlib import crc32

import numpy as np

Alteration = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def black_patch(image: np.ndarray, boxes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """All pixels of the patch are zero."""
    altered = image.copy()
    for left, top, right, bottom in patch_windows(boxes, image.shape[:2]):
        altered[top:bottom, left:right] = 0
    return altered


def flip_patch(image: np.ndarray, boxes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The patch's own content, flipped left/right, top/bottom or both, each with probability 1/3."""
    altered = image.copy()
    windows = patch_windows(boxes, image.shape[:2])
    axes = ((1,), (0,), (0, 1))
    for (left, top, right, bottom), choice in zip(windows, generator.integers(3, size=len(windows)), strict=True):
        altered[top:bottom, left:right] = np.flip(image[top:bottom, left:right], axes[choice])
    return altered


def random_patch(image: np.ndarray, boxes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Content of the patch's size from a random place outside the object's box (other objects may be there).

    Where the patch fits nowhere outside, the places are those that share the fewest pixels with the box.
    """
    altered = image.copy()
    height, width = image.shape[:2]
    for (left, top, right, bottom), box in zip(patch_windows(boxes, (height, width)), boxes, strict=True):
        # A window shares an area with the box that is a product of what it shares along each axis.
        across = _shared(width, right - left, box[0], box[2])
        down = _shared(height, bottom - top, box[1], box[3])
        shared = down[:, None] * across
        y, x = np.unravel_index(generator.choice(np.flatnonzero(shared == shared.min())), shared.shape)
        altered[top:bottom, left:right] = image[y : y + bottom - top, x : x + right - left]
    return altered


def patch_windows(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """int64 [G, 4]: the patches' pixel windows (left, top, right, bottom; the last two excluded), never empty.

    Half of the box's width and half of its height, centred: of "half width or half height" (Sec. 4.2.2) the reading
    that keeps the patch inside the object. size: (height, width) of the image.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    centres, quarters = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 4
    limits = np.array([size[1], size[0]])
    first = np.clip(np.floor(centres - quarters + 0.5), 0, limits - 1)
    last = np.clip(np.floor(centres + quarters + 0.5), first + 1, limits)
    return np.concatenate([first, last], axis=1).astype(np.int64)


def image_generator(seed: int, name: str) -> np.random.Generator:
    """The random choices in one image: a function of a seed (>= 0) and the image file's name, and so not of the order
    of the images, the batches or the processes."""
    return np.random.default_rng((seed, crc32(name.encode())))


def _shared(length: int, side: int, first: float, last: float) -> np.ndarray:
    """Whole pixels that the windows [i, i + side), i = 0 ... length - side, share with the box's extent, float [N]."""
    starts = np.arange(length - side + 1)
    shared = np.minimum(starts + side, np.ceil(last)) - np.maximum(starts, np.floor(first))
    return shared.clip(min=0)
