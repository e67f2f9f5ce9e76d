"""Anchors: the same set of boxes around the centre of every cell of every pyramid level."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


class AnchorGenerator:
    """Boxes of side scale * stride * octave_scale, height / width = ratio at equal area, centred at (i + 0.5) * stride.

    strides: pixels per cell, one per level. Within a cell octave scales vary slowest, ratios fastest. AP-loss: scale 4,
    octave scales 1 and sqrt(2), ratios 0.5, 1, 2, that is 6 per cell and 32 736 for 512 x 512 at strides 8 to 128
    (its program adds a pixel to the sides; here a side is x2 - x1).
    """

    def __init__(
        self,
        strides: Sequence[int],
        scale: float = 4.0,
        octave_scales: Sequence[float] = (1.0, math.sqrt(2)),
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
    ) -> None:
        if min(scale, *strides, *octave_scales, *ratios) <= 0:
            raise ValueError("strides, scale, octave_scales and ratios must be positive")
        self.strides = tuple(strides)
        self.shapes = tuple(  # (half width, half height) in strides
            (0.5 * scale * octave / math.sqrt(ratio), 0.5 * scale * octave * math.sqrt(ratio))
            for octave in octave_scales
            for ratio in ratios
        )
        self.num_per_cell = len(self.shapes)
        self._latest: tuple[object, Tensor] | None = None

    def __call__(self, sizes: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
        """(height, width) in cells of each level -> float32 [A, 4], xyxy, in DetectorOutput's order.

        Boxes may leave the image. The latest answer is kept, as training asks for one size only: do not write into it.
        """
        if len(sizes) != len(self.strides):
            raise ValueError(f"sizes has {len(sizes)} levels, strides {len(self.strides)}")
        if torch.compiler.is_compiling():  # the compiler folds these constants itself
            return self._generate(sizes, device)
        key = (tuple(sizes), device)
        if self._latest is None or self._latest[0] != key:
            with torch.inference_mode(False):  # else anchors made in evaluation could not serve training after it
                self._latest = (key, self._generate(sizes, device))
        return self._latest[1]

    def _generate(self, sizes: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
        shapes = torch.tensor(self.shapes, device=device)
        corners = torch.cat([-shapes, shapes], dim=1)  # [num_per_cell, 4]
        levels = []
        for (height, width), stride in zip(sizes, self.strides, strict=True):
            y = torch.arange(height, device=device, dtype=torch.float32) + 0.5
            x = torch.arange(width, device=device, dtype=torch.float32) + 0.5
            y, x = torch.meshgrid(y, x, indexing="ij")
            centres = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4)
            levels.append(((centres + corners) * stride).reshape(-1, 4))
        return torch.cat(levels)
