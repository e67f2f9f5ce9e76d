"""Which proposals the second stage is trained on."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import box_iou

from rankdet.data.records import Target
from rankdet.errors import UserError
from rankdet.matching.assign import covered


class RoISampler:
    """num_samples regions of interest (RoIs) an image, drawn from its proposals and the objects themselves.

    A region is positive if its IoU with an object is at least positive_iou, which should be the matcher's. Positives
    are drawn first, at most positive_fraction of num_samples (0.25: Detectron2's); negatives fill up. positive_fraction
    None is no ratio at all (AP-loss TPAMI 2020, A4.3): all positives are taken, as far as they fit, so that the more
    samples, the fewer of them are positive. num_samples None is no sampling (aLRP loss, NeurIPS 2020, Sec. 5.4): the
    proposals as they are, without the objects.
    Regions mostly covered by an ignored one are no negatives. UserError for settings out of range.
    """

    def __init__(
        self, num_samples: int | None = 512, positive_fraction: float | None = None, positive_iou: float = 0.5
    ) -> None:
        if num_samples is not None and num_samples < 1:
            raise UserError(f"model.roi_sampler.num_samples={num_samples}: must be 1 or more, or null for all")
        if positive_fraction is not None and not 0 < positive_fraction <= 1:
            raise UserError(
                f"model.roi_sampler.positive_fraction={positive_fraction}: must be above 0 and at most 1, or null for "
                "no limit"
            )
        self.num_samples, self.positive_iou = num_samples, positive_iou
        self.positive_fraction = 1.0 if positive_fraction is None else positive_fraction

    @torch.no_grad()
    def __call__(self, proposals: Sequence[Tensor], targets: Sequence[Target], most: int) -> list[Tensor]:
        """[N, 4] proposals of each image, by falling score -> float32 [R, 4] of each, xyxy.

        R is at most num_samples (None: most), and less where an image has no more. Random numbers come from the
        proposals' device's generator, image by image.
        """
        return [self._of_image(boxes, target, most) for boxes, target in zip(proposals, targets, strict=True)]

    def _of_image(self, proposals: Tensor, target: Target, most: int) -> Tensor:
        boxes, ignore = target.boxes.to(proposals), target.ignore.to(proposals.device)
        if self.num_samples is None:
            return proposals[:most]
        objects = boxes[~ignore]
        regions = torch.cat([objects, proposals])
        positive = (box_iou(regions, objects) >= self.positive_iou).any(dim=1)
        negative = ~positive & ~covered(regions, boxes[ignore])
        positives = _drawn(positive, int(self.num_samples * self.positive_fraction))
        return regions[torch.cat([positives, _drawn(negative, self.num_samples - len(positives))])]


def _drawn(among: Tensor, count: int) -> Tensor:
    """int64: `count` indices, or as many as there are, of true elements of a bool [N], at random."""
    indices = among.nonzero().squeeze(1)
    return indices[torch.randperm(len(indices), device=indices.device)[:count]]
