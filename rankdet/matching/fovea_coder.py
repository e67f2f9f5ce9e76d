"""FoveaBox's box deltas: how far the four sides of a box are from the centre of a cell."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from rankdet.matching.boxes import MAX_LOG_SIZE

MAX_LOG_DISTANCE = math.log(16.0)  # of what is learnt; the released program's


class FoveaCoder:
    """Logs of (x - x1, y - y1, x2 - x, y2 - y) / z over `stds`, (x, y) being an anchor's centre: FoveaBox (TIP 2020).

    z is half the anchor's side, so that zero deltas are the anchor itself; for the paper's squares of sides 32 to 512
    that makes the released program's 16 to 256. (The paper divides by the whole side. Both have stds of 1.)
    """

    def __init__(self, stds: Sequence[float] = (1.0, 1.0, 1.0, 1.0)) -> None:
        if len(stds) != 4 or min(stds) <= 0:
            raise ValueError(f"stds must be four positive numbers, not {list(stds)}")
        self.stds = tuple(stds)

    def encode(self, anchors: Tensor, boxes: Tensor) -> Tensor:
        """Anchors [..., 4] of positive area and boxes [..., 4] -> deltas [..., 4].

        decode(deltas) = boxes where all distances are from z / 16 to 16 z; others are cut to that, also negative ones,
        of a centre outside its box.
        """
        centres, scales = _centres_and_scales(anchors)
        distances = torch.cat([centres - boxes[..., :2], boxes[..., 2:] - centres], dim=-1) / scales
        logs = distances.clamp(math.exp(-MAX_LOG_DISTANCE), math.exp(MAX_LOG_DISTANCE)).log()
        return logs / logs.new_tensor(self.stds)

    def decode(self, anchors: Tensor, deltas: Tensor) -> Tensor:
        """Anchors [..., 4] and deltas [..., 4] -> boxes [..., 4], not clipped to the image; half types give float32.

        Logs are cut at log(1000 / 16), beyond which they take no gradient: an untrained network's exp would overflow.
        Boxes always have x2 >= x1 and y2 >= y1.
        """
        deltas = deltas.to(torch.promote_types(deltas.dtype, anchors.dtype))
        centres, scales = _centres_and_scales(anchors)
        distances = (deltas * deltas.new_tensor(self.stds)).clamp(max=MAX_LOG_SIZE).exp() * scales
        return torch.cat([centres - distances[..., :2], centres + distances[..., 2:]], dim=-1)


def _centres_and_scales(anchors: Tensor) -> tuple[Tensor, Tensor]:
    """[..., 2] and [..., 4]: half the width, half the height, and both again."""
    halves = 0.5 * (anchors[..., 2:] - anchors[..., :2])
    return anchors[..., :2] + halves, torch.cat([halves, halves], dim=-1)
