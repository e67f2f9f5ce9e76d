"""How the network gets to see an image at test time: its views, each a resize, perhaps a mirror image, and padding."""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from rankdet.data.augment import checked_size, keep_aspect, resize_image
from rankdet.errors import UserError


class View(NamedTuple):
    """One way to show one image: resized to height x width, then padded on the right and below to the input's size."""

    height: int  # pixels
    width: int
    input_height: int  # >= height
    input_width: int
    mirrored: bool  # left to right, before padding


class Views(Protocol):
    """What configs/test_input/*.yaml stand for."""

    fill: tuple[int, int, int]  # RGB of the padding

    def __call__(self, height: int, width: int) -> tuple[View, ...]:
        """The views of an image file of that size, one or more: a function of the size alone."""


class Stretch:
    """One view: the image stretched to the size that the network was trained with, whatever its shape."""

    fill = (0, 0, 0)  # there is no padding

    def __init__(self, image_size: Sequence[int]) -> None:
        """image_size: (height, width) of the input; UserError unless both are positive."""
        self.height, self.width = checked_size(image_size)

    def __call__(self, height: int, width: int) -> tuple[View, ...]:
        """The one view, the same for every size."""
        return (View(self.height, self.width, self.height, self.width, False),)


class KeepAspect:
    """One view a scale, or two with the mirror image: the shorter side set, the longer capped, the aspect ratio kept.

    The input is padded to whole multiples of `stride`, so that images of nearly one shape share a batch. Detections do
    not show it: the network does not see the padding (models/padding.py).
    """

    def __init__(
        self,
        shorter: int,
        cap: float,
        scales: Sequence[float],
        flip: bool,
        stride: int,
        fill: Sequence[float],
    ) -> None:
        """shorter: pixels. cap: the longer side is at most cap times that. scales: factors on both. flip: whether each
        scale is also shown mirrored. stride: 1 for no padding. fill: RGB in 0..255. UserError for values out of
        range."""
        for key, value, least in (("shorter", shorter, 1), ("cap", cap, 1), ("stride", stride, 1)):
            if value < least:
                raise UserError(f"test_input.{key}={value}: must be {least} or more")
        if not scales or min(scales) <= 0 or len(set(scales)) < len(scales):
            raise UserError(f"test_input.scales={list(scales)}: must be different positive factors, at least one")
        if len(fill) != 3 or not 0 <= min(fill) <= max(fill) <= 255:
            raise UserError(f"test_input.fill={list(fill)}: must be red, green and blue in 0..255")
        self.shorter, self.cap, self.stride = shorter, cap, stride
        self.shown = tuple(product(scales, (False, True) if flip else (False,)))
        self.fill = tuple(round(channel) for channel in fill)

    def __call__(self, height: int, width: int) -> tuple[View, ...]:
        """The views by scale, each before its mirror image."""
        return tuple(self._view(height, width, scale, mirrored) for scale, mirrored in self.shown)

    def _view(self, height: int, width: int, scale: float, mirrored: bool) -> View:
        shorter = self.shorter * scale
        sides = keep_aspect(height, width, shorter, self.cap * shorter)
        return View(*sides, *(-(-side // self.stride) * self.stride for side in sides), mirrored)


def show(image: np.ndarray, view: View, fill: Sequence[int]) -> np.ndarray:
    """uint8 [h, w, 3] -> uint8 [input_height, input_width, 3]; averaged where it shrinks, else linear."""
    shown = resize_image(image, view.height, view.width, "area")
    if view.mirrored:
        shown = shown[:, ::-1]
    below, right = view.input_height - view.height, view.input_width - view.width
    if below or right:
        shown = cv2.copyMakeBorder(np.ascontiguousarray(shown), 0, below, 0, right, cv2.BORDER_CONSTANT, value=fill)
    return shown


def show_boxes(boxes: np.ndarray, height: int, width: int, view: View) -> np.ndarray:
    """float32 [G, 4] xyxy in pixels of an image file of that size -> the same boxes in pixels of the input."""
    scaled = boxes * np.array([view.width / width, view.height / height] * 2, dtype=np.float32)
    if view.mirrored:
        scaled[:, [0, 2]] = view.width - scaled[:, [2, 0]]
    return scaled
