"""FoveaBox's assignment: cells near an object's centre, on the levels that are for objects of its size."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import box_area

from rankdet.matching.max_iou import NEGATIVE


class FoveaMatcher:
    """FoveaBox (TIP 2020), Sec. III; nothing is ignored.

    Each cell's one anchor is a square around the cell's centre, whose side is the level's basic scale S. A level is for
    objects with S / eta <= sqrt(area) <= S * eta, the finest one also for all smaller objects and the coarsest one for
    all larger (as in the released program; in the paper they would have no cell). There an object claims the cells
    whose centre lies in its box shrunk by sigma about its own centre, edges included. Of several claims the smallest
    object wins, then the earlier one. An object goes without a cell if no cell's centre lies in its shrunk box.
    """

    def __init__(self, sigma: float = 0.4, eta: float = 2.0) -> None:
        if not 0 < sigma <= 1:
            raise ValueError(f"sigma must be above 0 and at most 1, not {sigma}")
        if eta < 1:
            raise ValueError(f"eta must be at least 1, not {eta}")
        self.sigma = sigma
        self.eta = eta

    def __call__(self, anchors: Tensor, boxes: Tensor, level_sizes: Sequence[int]) -> Tensor:
        """Anchors [A, 4], objects [G, 4] (A and G may be 0), xyxy -> int64 [A]: object's index, -1 negative.

        level_sizes: anchors per level, finest first, summing to A; a level may have none.
        """
        if len(boxes) == 0:
            return anchors.new_full((len(anchors),), NEGATIVE, dtype=torch.int64)
        basic_areas = box_area(anchors)
        smallest, largest = basic_areas / self.eta**2, basic_areas * self.eta**2
        smallest[: level_sizes[0]] = 0
        largest[len(anchors) - level_sizes[-1] :] = math.inf
        areas = box_area(boxes)[:, None]
        of_level = (smallest <= areas) & (areas <= largest)  # [G, A]
        x, y = ((anchors[:, :2] + anchors[:, 2:]) / 2).unbind(1)
        x1, y1, x2, y2 = boxes.unsqueeze(2).unbind(1)  # each [G, 1]
        share = self.sigma / 2
        in_fovea = ((x - (x1 + x2) / 2).abs() <= share * (x2 - x1)) & ((y - (y1 + y2) / 2).abs() <= share * (y2 - y1))
        claim, matched = torch.where(of_level & in_fovea, areas, math.inf).min(dim=0)
        return torch.where(claim < math.inf, matched, NEGATIVE)
