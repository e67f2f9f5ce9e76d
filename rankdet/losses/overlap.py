"""How well pairs of boxes overlap: IoU and generalised IoU, with torch alone."""

import torch
from torch import Tensor

from rankdet.losses.scores import full_precision

MIN_UNION = 1e-6  # square pixels; the union below it counts as it, so that two boxes without area have IoU 0
EPS = 1e-7  # square pixels, added to union and hull by paired_giou, as torchvision does


def paired_iou(pred: Tensor, target: Tensor) -> Tensor:
    """float [..., 4] and [..., 4], xyxy -> float [...]: the IoU of each pair; half types are computed in float32.

    The intersection over max(union, 1e-6 square pixels). Boxes apart have IoU 0 and no gradient. Raises ValueError for
    shapes that differ or do not end in 4.
    """
    intersection, union = _intersection_and_union(*_checked(pred, target))
    return intersection / union.clamp(min=MIN_UNION)


def paired_giou(pred: Tensor, target: Tensor) -> Tensor:
    """float [..., 4] and [..., 4], xyxy -> float [...] in [-1, 1]: the GIoU of each pair (CVPR 2019), as paired_iou.

    IoU less the share of the hull that neither box covers; 1e-7 square pixels are added to union and hull.
    """
    pred, target = _checked(pred, target)
    intersection, union = _intersection_and_union(pred, target)
    hull = _area(torch.maximum(pred[..., 2:], target[..., 2:]) - torch.minimum(pred[..., :2], target[..., :2]))
    return intersection / (union + EPS) - (hull - union) / (hull + EPS)


def _intersection_and_union(pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    overlap = torch.minimum(pred[..., 2:], target[..., 2:]) - torch.maximum(pred[..., :2], target[..., :2])
    intersection = _area(overlap.clamp(min=0))
    areas = _area(pred[..., 2:] - pred[..., :2]) + _area(target[..., 2:] - target[..., :2])
    return intersection, areas - intersection


def _area(size: Tensor) -> Tensor:
    """[..., 2] -> [...]; prod's backward pass would count the zeros and wait for the GPU to tell."""
    return size[..., 0] * size[..., 1]


def _checked(pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    if pred.shape != target.shape or pred.shape[-1:] != (4,):
        raise ValueError(f"pred and target must be [..., 4] alike, got {tuple(pred.shape)} and {tuple(target.shape)}")
    return full_precision(pred), full_precision(target)
