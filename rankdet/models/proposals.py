"""From the first stage's output to its proposals: the boxes of each image that the second stage looks at."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from rankdet.errors import UserError
from rankdet.matching.boxes import Coder
from rankdet.models.output import DetectorOutput
from rankdet.models.padding import in_padding


@dataclass(frozen=True)
class Proposals:
    """The best-scored anchors' boxes, level by level, without near duplicates (Faster R-CNN, NeurIPS 2015, Sec. 3.3).

    In each level the pre_nms_top best are decoded and clipped to the image; those with a side below min_side go, and
    of two of one level that overlap more than nms_iou the lower-scored one. The post_nms_top best of all levels remain.
    The defaults are Detectron2's for a pyramid. UserError for settings out of range.
    """

    train_pre_nms_top: int = 2000
    train_post_nms_top: int = 1000
    test_pre_nms_top: int = 1000
    test_post_nms_top: int = 1000
    nms_iou: float = 0.7  # in (0, 1]
    min_side: float = 1e-3  # pixels of the network's input, above 0

    def __post_init__(self) -> None:
        """Refuses settings out of range."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("top") and value < 1:
                raise UserError(f"model.proposals.{field.name}={value}: must be 1 or more")
        if not 0 < self.nms_iou <= 1:
            raise UserError(f"model.proposals.nms_iou={self.nms_iou}: must lie in (0, 1]")
        if not self.min_side > 0:
            raise UserError(f"model.proposals.min_side={self.min_side}: must be above 0")

    def most(self, training: bool, at_least: int = 0) -> int:
        """How many proposals an image can have: in training never fewer than at_least."""
        return max(self.train_post_nms_top, at_least) if training else self.test_post_nms_top

    @torch.no_grad()
    def __call__(
        self,
        output: DetectorOutput,
        coder: Coder,
        input_size: tuple[int, int],
        shown: Sequence[tuple[int, int]],
        training: bool,
        at_least: int = 0,
    ) -> list[Tensor]:
        """float32 [N, 4] xyxy for each image, by falling score, N from 0 to most(training, at_least); no gradient.

        output: the first stage's, logits [B, A, 1]; higher is more likely an object. shown: (height, width) of each
        image's part of the input (H, W), in which all proposals lie; anchors of cells outside it make none. at_least
        raises both limits of training. Boxes that are not finite are left out.
        """
        scores = output.logits[..., 0].float()
        if any(size != input_size for size in shown):
            padding = torch.stack([in_padding(output.anchors, output.level_sizes, size) for size in shown])
            scores = scores.masked_fill(padding, -torch.inf)
        scores, anchor, level = self._best(scores, output.level_sizes, training, at_least)
        deltas = output.deltas.float().gather(1, anchor[..., None].expand(-1, -1, 4))
        boxes = coder.decode(output.anchors[anchor], deltas)
        limits = boxes.new_tensor([(w, h, w, h) for h, w in shown])[:, None]
        boxes = torch.minimum(boxes.clamp(min=0), limits)
        sides = boxes[..., 2:] - boxes[..., :2]
        usable = (sides >= self.min_side).all(dim=2) & (scores > -torch.inf)
        most = self.most(training, at_least)
        found = []
        for image, rows in enumerate(usable):
            of_image = boxes[image, rows]
            kept = batched_nms(of_image, scores[image, rows], level[rows], self.nms_iou)[:most]
            found.append(of_image[kept])
        return found

    def _best(
        self, scores: Tensor, level_sizes: Sequence[int], training: bool, at_least: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Scores and anchors, [B, N] both, of the best of each level, and which level that is, [N]."""
        limit = max(self.train_pre_nms_top, at_least) if training else self.test_pre_nms_top
        values, anchors, levels, first = [], [], [], 0
        for index, level in enumerate(scores.split(list(level_sizes), dim=1)):
            top = level.topk(min(limit, level.shape[1]))
            values.append(top.values)
            anchors.append(top.indices + first)
            levels.append(torch.full_like(top.indices[0], index))
            first += level.shape[1]
        return torch.cat(values, dim=1), torch.cat(anchors, dim=1), torch.cat(levels)


def padded(boxes: Sequence[Tensor], rows: int) -> tuple[Tensor, Tensor]:
    """[N_b, 4] for each of B images, N_b <= rows -> [B, rows, 4], filled up with empty boxes, and bool [B, rows]: which
    are none of these."""
    whole = torch.stack([torch.cat([each, each.new_zeros(rows - len(each), 4)]) for each in boxes])
    counts = torch.tensor([len(each) for each in boxes], device=whole.device)
    return whole, torch.arange(rows, device=whole.device) < counts[:, None]
