"""Detector output to detections in the pixels of the image file: threshold, top k, decoding, class-wise NMS."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from rankdet.errors import UserError
from rankdet.models.output import DetectorOutput


class Detections(NamedTuple):
    """D detections of one image, by falling score."""

    boxes: Tensor  # float32 [D, 4]: xyxy, pixels of the image file, inside the image, positive area
    scores: Tensor  # float32 [D], in [0, 1]
    labels: Tensor  # int64 [D], 0..K-1


class Coder(Protocol):
    """What is asked of the box coder."""

    def decode(self, anchors: Tensor, deltas: Tensor) -> Tensor:
        """[N, 4] anchors (xyxy) and [N, 4] deltas to [N, 4] boxes (xyxy)."""


@dataclass(frozen=True)
class PostProcess:
    """What is kept of a detector's output at test time; the defaults are AP-loss TPAMI's, Sec. 4.1.

    The authors' program exempts its coarsest level from the score threshold; here every level has it.
    """

    score_threshold: float = 0.01  # in [0, 1); a detection scores more than this
    pre_nms_top: int = 1000  # (anchor, class) pairs kept per pyramid level and image
    nms_iou: float = 0.5  # in (0, 1]; of two boxes of one class that overlap more, the lower score goes
    detections: int = 100  # at most this many per image

    def __post_init__(self) -> None:
        """Refuses settings out of range."""
        if not 0 <= self.score_threshold < 1:
            raise UserError(f"evaluation.score_threshold={self.score_threshold}: must lie in [0, 1)")
        if not 0 < self.nms_iou <= 1:
            raise UserError(f"evaluation.nms_iou={self.nms_iou}: must lie in (0, 1]")
        for key in ("pre_nms_top", "detections"):
            if getattr(self, key) < 1:
                raise UserError(f"evaluation.{key}={getattr(self, key)}: must be 1 or more")

    @torch.no_grad()
    def __call__(
        self,
        output: DetectorOutput,
        scores: Tensor,
        coder: Coder,
        input_size: tuple[int, int],
        image_sizes: Sequence[tuple[int, int]],
        image_ids: Sequence[int] | None = None,
    ) -> list[Detections]:
        """Detections of B images, on the device of the scores.

        `scores` float [B, A, K] in [0, 1] are the loss's probabilities of the logits, without a background column;
        `input_size` is the network input's (H, W) and `image_sizes` the B image files' (h, w): the input is taken to be
        the whole image stretched to H x W. Boxes are clipped to the image; those left without area go.
        FloatingPointError names the images (by `image_ids`, else by their place in the batch) whose scores or
        candidates' boxes are not finite.
        """
        names = list(range(len(image_sizes))) if image_ids is None else list(image_ids)
        scores = scores.float()
        _require_finite(scores.isfinite().flatten(1).all(1), "scores", names)
        candidates, anchor, label = self._candidates(scores, output.level_sizes)

        image, place = (candidates > self.score_threshold).nonzero(as_tuple=True)
        candidates, anchor, label = candidates[image, place], anchor[image, place], label[image, place]
        boxes = coder.decode(output.anchors[anchor], output.deltas[image, anchor].float())
        finite = torch.ones(len(names), dtype=torch.bool, device=boxes.device)
        finite[image[~boxes.isfinite().all(1)]] = False
        _require_finite(finite, "boxes", names)

        sizes = boxes.new_tensor([(w, h, w, h) for h, w in image_sizes])[image]
        height, width = input_size
        boxes = boxes * sizes / boxes.new_tensor([width, height, width, height])
        boxes = torch.minimum(boxes.clamp(min=0), sizes)
        solid = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        counts = torch.bincount(image[solid], minlength=len(names)).tolist()
        per_image = zip(*(values[solid].split(counts) for values in (boxes, candidates, label)), strict=True)
        return [self._suppress(*values) for values in per_image]

    def _candidates(self, scores: Tensor, level_sizes: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """The best (anchor, class) pairs of each level: scores, anchors and classes, each [B, N]."""
        num_classes = scores.shape[2]
        values, pairs, first = [], [], 0
        for level in scores.split(list(level_sizes), dim=1):
            pair_scores = level.flatten(1)
            top = pair_scores.topk(min(self.pre_nms_top, pair_scores.shape[1]), sorted=False)
            values.append(top.values)
            pairs.append(top.indices + first)
            first += pair_scores.shape[1]
        pair = torch.cat(pairs, dim=1)
        return torch.cat(values, dim=1), pair // num_classes, pair % num_classes

    def _suppress(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Detections:
        """Greedy class-wise NMS of one image's candidates.

        What survives among the n best scores does not depend on the rest, so only as many are looked at as it takes to
        fill the quota: the same detections, several times sooner where many anchors pass the threshold.
        """
        scores, order = scores.sort(descending=True, stable=True)
        boxes, labels = boxes[order], labels[order]
        looked_at = 4 * self.detections
        while True:
            head = slice(0, looked_at)
            keep = batched_nms(boxes[head], scores[head], labels[head], self.nms_iou)[: self.detections]
            if len(keep) == self.detections or looked_at >= len(scores):
                return Detections(boxes[keep], scores[keep], labels[keep])
            looked_at *= 4


def _require_finite(finite: Tensor, what: str, names: Sequence[int]) -> None:
    """FloatingPointError naming the images where `finite` (bool [B]) is false."""
    bad = [str(name) for name, good in zip(names, finite.tolist(), strict=True) if not good]
    if bad:
        raise FloatingPointError(f"predicted {what} are not finite (NaN or infinite) in image {', '.join(bad)}")
