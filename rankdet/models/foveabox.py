"""FoveaBox: RetinaNet's network with one score vector and one box per cell."""

from typing import Any

from rankdet.errors import UserError
from rankdet.models.retinanet import RetinaNet


class FoveaBox(RetinaNet):
    """FoveaBox (TIP 2020), without its feature alignment. Arguments, attributes and output as RetinaNet's.

    What sets it apart is what its outputs mean, which FoveaMatcher and FoveaCoder say: there are no anchors to refine.
    DetectorOutput.anchors hold for each cell a square around its centre, whose side is the level's basic scale.
    """

    def __init__(self, **arguments: Any) -> None:  # noqa: ANN401
        super().__init__(**arguments)
        if self.anchors.num_per_cell != 1:
            raise UserError(
                f"model.anchors: FoveaBox has one box per cell, not {self.anchors.num_per_cell}; "
                "set octave_scales=[1.0] and ratios=[1.0]"
            )
