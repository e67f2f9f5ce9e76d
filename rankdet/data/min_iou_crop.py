"""SSD's random crop: a part of the image that overlaps some object by at least a drawn IoU."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rankdet.data.transforms import A
from rankdet.errors import UserError


class MinIoUCrop(A.DualTransform):
    """Crops as in SSD (Liu et al. 2016, Sec. 2.2, data augmentation).

    One entry of min_ious is drawn: None keeps the whole image; a number asks for a crop with that IoU or more with at
    least one object whose centre lies in it (0: any IoU will do). Up to num_trials crops are drawn for it, each side
    min_scale to max_scale of the image's, width : height in pixels between 1 : max_aspect and max_aspect : 1; the first
    that fits is taken, and without one another entry is drawn. Corners are whole pixels. Objects are kept where their
    centre lies in the crop, and clipped to it; so an image with objects keeps at least one. In an image without objects
    any crop of allowed shape fits. Ignored regions count as objects here.
    """

    def __init__(
        self,
        min_ious: Sequence[float | None],
        min_scale: float,
        max_scale: float,
        max_aspect: float,
        num_trials: int,
        p: float = 1.0,
    ) -> None:
        """0 < min_scale <= max_scale <= 1 <= max_aspect. Raises UserError otherwise, and where min_ious lacks None,
        without which an image that no crop fits would be tried for ever."""
        super().__init__(p=p)
        if None not in min_ious:
            raise UserError(f"augment: MinIoUCrop.min_ious needs null (keep the whole image) in it, not {min_ious}")
        if not (0 < min_scale <= max_scale <= 1 <= max_aspect and num_trials >= 1):
            raise UserError("augment: MinIoUCrop needs 0 < min_scale <= max_scale <= 1 <= max_aspect, num_trials >= 1")
        self.min_ious = tuple(min_ious)
        self.min_scale = min_scale
        self.max_scale = max_scale
        self.max_aspect = max_aspect
        self.num_trials = num_trials

    @property
    def targets_as_params(self) -> list[str]:
        """The crop depends on the boxes."""
        return ["bboxes"]

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draws the crop: int [4], xyxy."""
        height, width = params["shape"][:2]
        return {"crop": self._draw(data["bboxes"][:, :4] * (width, height, width, height), height, width)}

    def apply(self, img: np.ndarray, crop: np.ndarray, **params: object) -> np.ndarray:
        """[H, W, C] -> the crop's pixels."""
        left, top, right, bottom = crop
        return img[top:bottom, left:right]

    def apply_to_bboxes(
        self, bboxes: np.ndarray, crop: np.ndarray, shape: tuple[int, ...], **params: object
    ) -> np.ndarray:
        """float [G, 4+] fractions of the image -> [K, 4+] fractions of the crop."""
        height, width = shape[:2]
        boxes = bboxes[:, :4] * (width, height, width, height)
        inside = _centres_inside(crop[None], boxes)[0]
        origin, extent = np.tile(crop[:2], 2), np.tile(crop[2:] - crop[:2], 2)
        kept = bboxes[inside].copy()
        kept[:, :4] = ((boxes[inside] - origin) / extent).clip(0, 1)
        return kept

    def _draw(self, boxes: np.ndarray, height: int, width: int) -> np.ndarray:
        while True:
            min_iou = self.min_ious[self.random_generator.integers(len(self.min_ious))]
            if min_iou is None:
                return np.array([0, 0, width, height])
            crops = self._candidates(height, width)
            if len(boxes) and len(crops):
                iou = np.where(_centres_inside(crops, boxes), _iou(crops, boxes), -1.0)
                crops = crops[iou.max(axis=1) >= min_iou]
            if len(crops):
                return crops[0]

    def _candidates(self, height: int, width: int) -> np.ndarray:
        """int [T, 4] crops, T <= num_trials: those of allowed aspect among num_trials draws."""
        image_sides = np.array([width, height])
        scales = self.random_generator.uniform(self.min_scale, self.max_scale, (self.num_trials, 2))
        sides = np.maximum(1, np.rint(scales * image_sides)).astype(np.int64)
        corners = self.random_generator.integers(0, image_sides - sides, endpoint=True)
        fits = sides.max(axis=1) <= self.max_aspect * sides.min(axis=1)
        return np.concatenate([corners, corners + sides], axis=1)[fits]


def _iou(crops: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """[T, 4] crops, [G, 4] boxes -> float64 [T, G].

    torchvision.ops.box_iou to the bit; for so few boxes its calls cost several times what they compute.
    """
    crop_sides, box_sides = crops[:, 2:] - crops[:, :2], boxes[:, 2:] - boxes[:, :2]
    lower = np.maximum(crops[:, None, :2], boxes[:, :2])
    shared = (np.minimum(crops[:, None, 2:], boxes[:, 2:]) - lower).clip(min=0)
    inter = shared[..., 0] * shared[..., 1]
    areas = (crop_sides[:, 0] * crop_sides[:, 1])[:, None] + box_sides[:, 0] * box_sides[:, 1]
    return inter / (areas - inter)


def _centres_inside(crops: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """[T, 4] crops, [G, 4] boxes -> bool [T, G]: whether a box's centre lies in a crop (left and top sides count)."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    return ((centres >= crops[:, None, :2]) & (centres < crops[:, None, 2:])).all(axis=2)
