"""One image and its boxes on their way to the network: random transforms, drawn per sample, and the resize."""

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import cv2
import numpy as np

from rankdet.errors import UserError

if TYPE_CHECKING:  # importing albumentations takes seconds, and resizing needs none of it
    from albumentations import BaseCompose, BasicTransform

INTERPOLATIONS = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
}


class Augmented(NamedTuple):
    """What the network gets to see of one image: K of its G boxes are left."""

    image: np.ndarray  # uint8 [H, W, 3], RGB; may share memory with the input
    boxes: np.ndarray  # float32 [K, 4]: xyxy, pixels of this image
    kept: np.ndarray  # int64 [K]: ascending positions of these boxes among the G given


class Padding(NamedTuple):
    """How images of different sizes become one batch: each at the top left of an input as large as the largest."""

    stride: int  # the input's sides are whole multiples of it
    fill: tuple[int, int, int]  # RGB right of and below an image


class Augmentation(Protocol):
    """What configs/augment/*.yaml stand for; see Augment for what its methods promise."""

    padding: Padding | None  # None: all results have one size

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """The part that is the same each time and may be cached."""

    def __call__(self, image: np.ndarray, boxes: np.ndarray, size: tuple[int, int], seed: int) -> Augmented:
        """The rest, a function of its arguments alone."""


class Augment:
    """Runs albumentations' transforms on an image and its boxes, and resizes to the network's input.

    Without arguments but the size it only resizes, as for evaluation. The transforms are called one by one with state
    of their own making: all of them draw from one pair of generators seeded per sample. (Compose would seed every
    transform alike, so that those with equal p are applied together or not at all, and would send boxes through
    float32 fractions and a visibility test.) Boxes are fractions of the image in float64 on the way; their positions
    travel with them, so labels and flags never turn into floats. After each transform boxes are clipped to the image
    and those without area dropped; at the end also those with a side under min_side pixels. No box left is legal.
    """

    padding = None

    def __init__(
        self,
        image_size: Sequence[int],
        transforms: "Sequence[BasicTransform | BaseCompose]" = (),
        resize: str = "first",
        interpolation: Sequence[str] = ("area",),
        min_side: float = 1.0,
    ) -> None:
        """image_size: (height, width) of the result. resize: "first" (cheap, and cacheable) or "last".

        interpolation: names, one of them drawn per sample (only with "last"); "area" averages where the image shrinks
        on both axes and is "linear" otherwise. min_side: pixels of the result. Raises UserError for any other value.
        """
        self.height, self.width = checked_size(image_size)
        if resize not in ("first", "last"):
            raise UserError(f"augment.resize must be first or last, not {resize!r}")
        self.interpolation = checked_interpolation(interpolation)
        self.transforms = checked_transforms(transforms)
        if resize == "first" and len(interpolation) > 1:
            raise UserError("augment.interpolation may list several only with augment.resize=last")
        self.resize = resize
        self.min_side = min_side

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """The part that is the same each time and may be cached: the resize if it comes first, otherwise nothing."""
        if self.resize == "last":
            return image
        return resize_image(image, self.height, self.width, self.interpolation[0])

    def __call__(self, image: np.ndarray, boxes: np.ndarray, size: tuple[int, int], seed: int) -> Augmented:
        """image: uint8 [h, w, 3] RGB as prepare() returned it, left untouched; boxes: float [G, 4] xyxy, pixels of the
        unprepared image of size (height, width). The result is a function of these and the seed (>= 0) alone."""
        image, rows, draw = transformed(self.transforms, image, boxes, size, seed)
        if self.resize == "last":
            image = resize_image(image, self.height, self.width, draw.choice(self.interpolation))
        return in_pixels(image, rows, self.height, self.width, self.min_side)


def transformed(
    transforms: "Sequence[BasicTransform | BaseCompose]",
    image: np.ndarray,
    boxes: np.ndarray,
    size: tuple[int, int],
    seed: int,
) -> tuple[np.ndarray, np.ndarray, random.Random]:
    """The image and its boxes (as for Augment) after all transforms, and the generator to go on drawing from.

    The boxes come as float64 [K, 5]: xyxy as fractions of the image, and their positions among those given.
    """
    height, width = size
    rows = np.empty((len(boxes), 5))
    rows[:, :4] = boxes / np.array([width, height, width, height], dtype=np.float64)
    rows[:, 4] = np.arange(len(boxes))
    draw = random.Random(seed)
    generator = np.random.default_rng(seed) if transforms else None
    for transform in transforms:
        transform.set_random_state(generator, draw)
        result = transform(image=image, bboxes=rows)
        image, rows = result["image"], _inside(result["bboxes"])
    return image, rows, draw


def in_pixels(image: np.ndarray, rows: np.ndarray, height: int, width: int, min_side: float) -> Augmented:
    """transformed()'s boxes in pixels of an image of that size, without those with a side under min_side pixels."""
    scaled = rows[:, :4] * (width, height, width, height)
    large = np.minimum(scaled[:, 2] - scaled[:, 0], scaled[:, 3] - scaled[:, 1]) >= min_side - 1e-6
    kept = rows[large, 4].astype(np.int64)
    order = np.argsort(kept)
    return Augmented(image, scaled[large][order].astype(np.float32), kept[order])


def checked_size(image_size: Sequence[int]) -> tuple[int, int]:
    """data.image_size as (height, width); UserError unless both are positive."""
    if len(image_size) != 2 or min(image_size) < 1:
        raise UserError(f"image_size must be [height, width], both positive, not {list(image_size)}")
    return int(image_size[0]), int(image_size[1])


def checked_interpolation(names: Sequence[str]) -> tuple[str, ...]:
    """UserError unless there is a name, and each is one of INTERPOLATIONS."""
    unknown = [name for name in names if name not in INTERPOLATIONS]
    if unknown or not names:
        raise UserError(f"augment.interpolation must list some of {', '.join(INTERPOLATIONS)}, not {unknown}")
    return tuple(names)


def checked_transforms(
    transforms: "Sequence[BasicTransform | BaseCompose]",
) -> "list[BasicTransform | BaseCompose]":
    """UserError for an argument that a transform does not know."""
    for transform in transforms:
        _refuse_ignored_arguments(transform)
    return list(transforms)


def sample_seed(seed: int, epoch: int, index: int) -> int:
    """A 64-bit seed for one sample, the same in every process and on every machine; all three numbers >= 0."""
    return int(np.random.SeedSequence((seed, epoch, index)).generate_state(1, np.uint64)[0])


def keep_aspect(height: int, width: int, shorter: float, longest: float) -> tuple[int, int]:
    """The size of an image of height x width with its shorter side at `shorter`, or its longer one at `longest` where
    that is less; pixels, at least 1."""
    factor = min(shorter / min(height, width), longest / max(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))


def resize_image(image: np.ndarray, height: int, width: int, interpolation: str) -> np.ndarray:
    """uint8 [h, w, 3] -> uint8 [height, width, 3]; the input itself where nothing changes. Names: INTERPOLATIONS."""
    if image.shape[:2] == (height, width):
        return image
    if interpolation == "area" and (height > image.shape[0] or width > image.shape[1]):
        interpolation = "linear"
    return cv2.resize(image, (width, height), interpolation=INTERPOLATIONS[interpolation])


def _refuse_ignored_arguments(transform: object) -> None:
    """albumentations only warns of an unknown argument, but remembers it; transforms may nest (OneOf, Sequential)."""
    if ignored := getattr(transform, "invalid_args", None):
        raise UserError(f"augment: {type(transform).__name__} has no argument {', '.join(ignored)}")
    for nested in getattr(transform, "transforms", ()):
        _refuse_ignored_arguments(nested)


def _inside(rows: np.ndarray) -> np.ndarray:
    """[G, 5] boxes as fractions and their positions -> the parts inside the image, without empty ones."""
    rows = rows.reshape(-1, 5).copy()
    rows[:, :4] = rows[:, :4].clip(0.0, 1.0)
    return rows[(rows[:, 2] > rows[:, 0]) & (rows[:, 3] > rows[:, 1])]
