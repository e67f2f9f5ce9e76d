"""SSD's default boxes: for each map a size, a step and some shapes, around the centre of every cell."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from rankdet.matching.anchors import AnchorGenerator


class PriorGenerator:
    """Boxes around (i + 0.5) * stride, as in SSD (ECCV 2016), Sec. 2.2: level l has those of area sizes[l]^2 with width
    / height 1, a and 1 / a for each a of ratios[l], and a square of side sqrt(sizes[l] * sizes[l + 1]).

    strides: pixels per cell, one a level. sizes: pixels, one more than levels. Within a cell: the square, the larger
    square, then a and 1 / a by turns, as in SSD's program. Boxes may leave the image, again as there.
    """

    def __init__(self, strides: Sequence[int], sizes: Sequence[float], ratios: Sequence[Sequence[float]]) -> None:
        if not len(strides) == len(ratios) == len(sizes) - 1:
            raise ValueError(
                f"{len(strides)} strides need as many sets of ratios and one size more, not {len(ratios)} and "
                f"{len(sizes)}"
            )
        if min(*sizes, *(ratio for level in ratios for ratio in level)) <= 0:
            raise ValueError("sizes and ratios must be positive")
        self._cells = AnchorGenerator(strides, scale=1.0, octave_scales=[1.0], ratios=[1.0])
        self.shapes = tuple(map(_shapes, sizes[:-1], sizes[1:], ratios))
        self.num_per_cell = tuple(len(shapes) for shapes in self.shapes)
        self._latest: tuple[Tensor, Tensor] | None = None

    def __call__(self, sizes: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
        """(height, width) in cells of each level -> float32 [A, 4], xyxy, in DetectorOutput's order.

        The latest answer is kept, as training asks for one size only: do not write into it.
        """
        cells = self._cells(sizes, device)
        if torch.compiler.is_compiling():  # the compiler folds these constants itself
            return self._around(cells, sizes)
        if self._latest is None or self._latest[0] is not cells:  # which are kept, too
            with torch.inference_mode(False):  # else priors made in evaluation could not serve training after it
                self._latest = (cells, self._around(cells, sizes))
        return self._latest[1]

    def _around(self, cells: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
        levels = []
        for squares, shapes in zip(cells.split([h * w for h, w in sizes]), self.shapes, strict=True):
            centres = (squares[:, None, :2] + squares[:, None, 2:]) / 2  # [cells, 1, 2]
            halves = torch.tensor(shapes, device=cells.device) / 2  # [num_per_cell, 2]
            levels.append(torch.cat([centres - halves, centres + halves], dim=2).reshape(-1, 4))
        return torch.cat(levels)


def _shapes(size: float, larger: float, ratios: Sequence[float]) -> list[tuple[float, float]]:
    """(width, height) in pixels of a cell's boxes."""
    side = math.sqrt(size * larger)
    roots = (math.sqrt(aspect) for ratio in ratios for aspect in (ratio, 1 / ratio))
    return [(size, size), (side, side), *((size * root, size / root) for root in roots)]
