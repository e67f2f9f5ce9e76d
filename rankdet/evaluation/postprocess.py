"""Detector output to detections in the pixels of the image file: threshold, top k, decoding, class-wise NMS."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from rankdet.data.records import Target
from rankdet.errors import UserError
from rankdet.matching.boxes import Coder
from rankdet.models.output import DetectorOutput
from rankdet.models.padding import in_padding


class Detections(NamedTuple):
    """D detections of one image, by falling score."""

    boxes: Tensor  # float32 [D, 4]: xyxy, pixels of the image file, inside the image, positive area
    scores: Tensor  # float32 [D], in [0, 1]
    labels: Tensor  # int64 [D], 0..K-1


class Candidates(NamedTuple):
    """N candidates of one image, from one view or several: what NMS chooses from."""

    boxes: Tensor  # float32 [N, 4]: xyxy, pixels of the image file, inside the image, positive area
    scores: Tensor  # float32 [N], in [0, 1]
    labels: Tensor  # int64 [N], 0..K-1
    ranks: Tensor  # int64 [N]: how many of the same view and pyramid level scored higher


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
    def candidates(
        self,
        output: DetectorOutput,
        scores: Tensor,
        coder: Coder,
        input_size: tuple[int, int],
        targets: Sequence[Target],
    ) -> list[Candidates]:
        """What passes the score threshold and the top k, for B images in one view each, on the device of the scores.

        `scores` float [B, A, K] in [0, 1] are the loss's probabilities of the logits, without a background column;
        `input_size` is the network input's (H, W). Of the targets only image_id, size, shown and mirrored are looked
        at: where in the input the image lies. Anchors of cells in the padding take no part. Boxes are mapped
        back by the image's own scale and clipped to the image; those left without area go. FloatingPointError names the
        images whose scores or candidates' boxes are not finite.
        """
        names = [target.image_id for target in targets]
        scores = scores.float()
        _require_finite(scores.isfinite().flatten(1).all(1), "scores", names)
        if output.taking_part is not None:
            scores = scores.masked_fill(~output.taking_part[:, :, None], -1.0)
        shown = [target.shown or input_size for target in targets]
        if output.anchors.dim() == 2 and any(size != input_size for size in shown):  # proposals lie in no cells
            padding = torch.stack([in_padding(output.anchors, output.level_sizes, size) for size in shown])
            scores = scores.masked_fill(padding[:, :, None], -1.0)
        found, rank, anchor, label = self._best(scores, output.level_sizes)

        image, place = (found > self.score_threshold).nonzero(as_tuple=True)
        found, rank, anchor, label = (values[image, place] for values in (found, rank, anchor, label))
        anchors = output.anchors[anchor] if output.anchors.dim() == 2 else output.anchors[image, anchor]
        deltas = output.deltas[image, anchor] if output.deltas.dim() == 3 else output.deltas[image, anchor, label]
        boxes = coder.decode(anchors, deltas.float())
        finite = torch.ones(len(names), dtype=torch.bool, device=boxes.device)
        finite[image[~boxes.isfinite().all(1)]] = False
        _require_finite(finite, "boxes", names)

        boxes = _in_file(boxes, image, input_size, targets)
        solid = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        counts = torch.bincount(image[solid], minlength=len(names)).tolist()
        per_image = zip(*(values[solid].split(counts) for values in (boxes, found, label, rank)), strict=True)
        return [Candidates(*values) for values in per_image]

    @torch.no_grad()
    def select(self, candidates: Candidates) -> Detections:
        """Detections among one image's candidates, which may have been found by a laxer threshold and top k."""
        boxes, scores, labels, ranks = candidates
        kept = (scores > self.score_threshold) & (ranks < self.pre_nms_top)
        return self._suppress(boxes[kept], scores[kept], labels[kept])

    def _best(self, scores: Tensor, level_sizes: Sequence[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The best (anchor, class) pairs of each level: scores, ranks in their level, anchors and classes, [B, N]."""
        num_classes = scores.shape[2]
        values, ranks, pairs, first = [], [], [], 0
        for level in scores.split(list(level_sizes), dim=1):
            pair_scores = level.flatten(1)
            top = pair_scores.topk(min(self.pre_nms_top, pair_scores.shape[1]), sorted=False)
            values.append(top.values)
            ranks.append(top.values.argsort(descending=True, stable=True).argsort())
            pairs.append(top.indices + first)
            first += pair_scores.shape[1]
        pair = torch.cat(pairs, dim=1)
        return torch.cat(values, dim=1), torch.cat(ranks, dim=1), pair // num_classes, pair % num_classes

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


def laxest(rules: Sequence[PostProcess]) -> PostProcess:
    """A rule whose candidates hold those of each of the rules (one or more)."""
    threshold = min(rule.score_threshold for rule in rules)
    return replace(rules[0], score_threshold=threshold, pre_nms_top=max(rule.pre_nms_top for rule in rules))


def pool(views: Sequence[Candidates]) -> Candidates:
    """The candidates of one or more views of an image as one set.

    Its NMS then merges the views class by class: of the boxes found at several scales, and in the mirror image, the
    best-scored stays. (AP-loss does not say how its multi-scale tests merge; no box is averaged here.)
    """
    return views[0] if len(views) == 1 else Candidates(*(torch.cat(values) for values in zip(*views, strict=True)))


def _in_file(boxes: Tensor, image: Tensor, input_size: tuple[int, int], targets: Sequence[Target]) -> Tensor:
    """[N, 4] boxes in pixels of the input, of the targets that `image` [N] gives, in their files' and clipped there."""
    shown = boxes.new_tensor([(w, h, w, h) for h, w in (target.shown or input_size for target in targets)])[image]
    sizes = boxes.new_tensor([(w, h, w, h) for h, w in (target.size for target in targets)])[image]
    mirrored = torch.tensor([target.mirrored for target in targets], device=boxes.device)[image]
    turned = torch.stack([shown[:, 0] - boxes[:, 2], boxes[:, 1], shown[:, 0] - boxes[:, 0], boxes[:, 3]], dim=1)
    boxes = torch.where(mirrored[:, None], turned, boxes) * sizes / shown
    return torch.minimum(boxes.clamp(min=0), sizes)


def _require_finite(finite: Tensor, what: str, names: Sequence[int]) -> None:
    """FloatingPointError naming the images where `finite` (bool [B]) is false."""
    bad = [str(name) for name, good in zip(names, finite.tolist(), strict=True) if not good]
    if bad:
        raise FloatingPointError(f"predicted {what} are not finite (NaN or infinite) in image {', '.join(bad)}")
