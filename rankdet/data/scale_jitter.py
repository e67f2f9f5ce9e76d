"""Training images of many sizes: the shorter side drawn, the aspect ratio kept."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rankdet.data.augment import (
    Augmented,
    Padding,
    checked_interpolation,
    checked_transforms,
    in_pixels,
    keep_aspect,
    resize_image,
    transformed,
)
from rankdet.errors import UserError

if TYPE_CHECKING:
    from albumentations import BaseCompose, BasicTransform


class ShortSideJitter:
    """Runs transforms as Augment does, then sets the shorter side to a drawn length, the longer side capped.

    Detectron2's training input (480 to 800 in steps of 32, at most 1333), which AP-loss (TPAMI 2020, Table 14) trains
    Faster R-CNN with. Each result has its own size, so that batches are padded. All lengths are equally likely, and
    drawn from the sample's seed.
    """

    def __init__(
        self,
        shorter: Sequence[int],
        longest: int,
        stride: int,
        fill: Sequence[float],
        transforms: "Sequence[BasicTransform | BaseCompose]" = (),
        interpolation: Sequence[str] = ("area",),
        min_side: float = 1.0,
    ) -> None:
        """shorter: lengths to draw from, pixels. longest: of the longer side, pixels, no less than any of these: it
        bounds a batch's memory. stride: an input's sides are multiples of it. fill: RGB in 0..255 of the padding.
        transforms, interpolation, min_side: as for Augment. UserError for values out of range."""
        lengths = list(shorter)
        if not lengths or not all(type(length) is int and length >= 1 for length in lengths):
            raise UserError(f"augment.shorter={lengths}: must list lengths in whole pixels, at least one")
        if type(longest) is not int or longest < max(lengths):
            raise UserError(f"augment.longest={longest}: must be a whole number, {max(lengths)} (of shorter) or more")
        if type(stride) is not int or stride < 1:
            raise UserError(f"augment.stride={stride}: must be a whole number from 1 on")
        if len(fill) != 3 or not 0 <= min(fill) <= max(fill) <= 255:
            raise UserError(f"augment.fill={list(fill)}: must be red, green and blue in 0..255")
        self.shorter, self.longest = tuple(lengths), longest
        red, green, blue = map(round, fill)
        self.padding = Padding(stride, (red, green, blue))
        self.transforms = checked_transforms(transforms)
        self.interpolation = checked_interpolation(interpolation)
        self.min_side = min_side

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """The image itself: nothing is the same each time, and data.cache=ram keeps images as large as their files."""
        return image

    def __call__(self, image: np.ndarray, boxes: np.ndarray, size: tuple[int, int], seed: int) -> Augmented:
        """image: uint8 [h, w, 3] RGB, left untouched; boxes: float [G, 4] xyxy, pixels of it; size: (h, w). The result
        is a function of these and the seed (>= 0) alone."""
        image, rows, draw = transformed(self.transforms, image, boxes, size, seed)
        height, width = keep_aspect(image.shape[0], image.shape[1], draw.choice(self.shorter), self.longest)
        image = resize_image(image, height, width, draw.choice(self.interpolation))
        return in_pixels(image, rows, height, width, self.min_side)
