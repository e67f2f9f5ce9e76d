"""SSD's zoom out: the image somewhere on a larger, uniform canvas."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from rankdet.data.transforms import A
from rankdet.errors import UserError


class Expand(A.DualTransform):
    """Puts the image at a random place of a canvas 1 to max_ratio times as high and wide.

    SSD's zoom out (Liu et al. 2016, Sec. 3.6). The aspect ratio stays, up to rounding; fill is the canvas's colour,
    usually the data's mean.
    """

    def __init__(self, max_ratio: float, fill: Sequence[int], p: float = 0.5) -> None:
        """max_ratio >= 1; fill: RGB, 0-255. Raises UserError for other values."""
        super().__init__(p=p)
        if max_ratio < 1:
            raise UserError(f"augment: Expand.max_ratio must be at least 1, not {max_ratio}")
        if len(fill) != 3 or not all(0 <= value <= 255 for value in fill):
            raise UserError(f"augment: Expand.fill must be three values in 0 ... 255, not {list(fill)}")
        self.max_ratio = max_ratio
        self.fill = tuple(fill)

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draws the canvas's (height, width) and the image's (top, left) on it."""
        sides = np.array(params["shape"][:2])
        canvas = (sides * self.random_generator.uniform(1.0, self.max_ratio)).astype(np.int64)
        return {"canvas": canvas, "corner": self.random_generator.integers(0, canvas - sides, endpoint=True)}

    def apply(self, img: np.ndarray, canvas: np.ndarray, corner: np.ndarray, **params: object) -> np.ndarray:
        """[H, W, 3] -> [canvas height, canvas width, 3]."""
        top, left = (int(side) for side in corner)
        bottom, right = (int(side) for side in canvas - corner - img.shape[:2])
        return cv2.copyMakeBorder(img, top, bottom, left, right, cv2.BORDER_CONSTANT, value=self.fill)

    def apply_to_bboxes(
        self, bboxes: np.ndarray, canvas: np.ndarray, corner: np.ndarray, shape: tuple[int, ...], **params: object
    ) -> np.ndarray:
        """float [G, 4+] fractions of the image -> fractions of the canvas."""
        moved = bboxes.copy()
        moved[:, :4] *= np.tile(shape[1::-1], 2)
        moved[:, :4] = (moved[:, :4] + np.tile(corner[::-1], 2)) / np.tile(canvas[::-1], 2)
        return moved
