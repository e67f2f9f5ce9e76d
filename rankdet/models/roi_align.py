"""Features of regions of interest, each from the pyramid level for its size, all at one resolution."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import box_area, roi_align

CANONICAL_STRIDE = 16  # of the level that the canonical side belongs to
EPS = 1e-6  # of a level; a side that is a level's lower bound but for rounding belongs to it


class PyramidRoIAlign(nn.Module):
    """RoIAlign (Mask R-CNN, ICCV 2017, Sec. 3) on the level of Feature Pyramid Networks (CVPR 2017), Eq. 1.

    strides: of the levels, finest first, each twice the one before. A region of side sqrt(area) >= canonical_side (224
    pixels, ImageNet's) belongs to the level of stride 16, one of half of it to that of half the stride, and so on; the
    finest and the coarsest take what is beyond. output_size: cells a side. sampling_ratio: points a cell and axis, 0
    for as many as there are feature cells. aligned: half a feature cell's shift to the left and above, so that cells'
    values lie at their centres, as Detectron2 has it; torchvision's own Faster R-CNN has not.
    """

    def __init__(
        self,
        strides: Sequence[int],
        output_size: int = 7,
        sampling_ratio: int = 0,
        aligned: bool = True,
        canonical_side: float = 224.0,
    ) -> None:
        super().__init__()
        self.strides, self.output_size, self.sampling_ratio = tuple(strides), output_size, sampling_ratio
        self.aligned, self.canonical_side = aligned, canonical_side

    def levels(self, boxes: Tensor) -> Tensor:
        """[N, 4] xyxy, pixels -> int64 [N]: each box's level, 0 the finest."""
        octaves = torch.log2(box_area(boxes).sqrt() / self.canonical_side)
        canonical = math.log2(CANONICAL_STRIDE / self.strides[0])
        return torch.floor(canonical + octaves + EPS).clamp(0, len(self.strides) - 1).long()

    def forward(self, features: Sequence[Tensor], boxes: Tensor, images: Tensor) -> Tensor:
        """Maps [B, C, H_l, W_l] of the strides, boxes [N, 4] (xyxy, pixels) and their images, int64 [N]: ->
        [N, C, output_size, output_size], for maps of half types float32. N may be 0."""
        with torch.autocast(boxes.device.type, enabled=False):  # in bf16 the CPU has no RoIAlign
            dtype = torch.promote_types(features[0].dtype, torch.float32)
            rois = torch.cat([images[:, None].to(boxes), boxes], dim=1).to(dtype)
            levels = self.levels(boxes)
            rows = [(levels == level).nonzero().squeeze(1) for level in range(len(self.strides))]
            found = [
                roi_align(x.to(dtype), rois[own], self.output_size, 1 / stride, self.sampling_ratio, self.aligned)
                for x, own, stride in zip(features, rows, self.strides, strict=True)
            ]
            return torch.cat(found)[torch.cat(rows).argsort()]


def edges_repeated(x: Tensor, cells: Sequence[tuple[int, int]]) -> Tensor:
    """[B, C, H, W] with what lies right of or below each image's first (height, width) `cells` replaced by its nearest
    such cell: what RoIAlign makes of a map's end, had the image come without padding."""
    bottom, right = x.new_tensor(cells, dtype=torch.int64).sub(1).T[..., None]  # [B, 1] both
    rows = torch.arange(x.shape[2], device=x.device).minimum(bottom)
    columns = torch.arange(x.shape[3], device=x.device).minimum(right)
    image = torch.arange(len(x), device=x.device)[:, None, None]
    return x.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
