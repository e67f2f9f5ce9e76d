"""Multi-scale deformable attention: each query looks at a few points of every feature level, and says where."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rankdet.errors import UserError
from rankdet.models.precision import full_precision, without_autocast


class DeformableAttention(nn.Module):
    """Deformable DETR (ICLR 2021), Eq. 3, in `channels`, which num_heads (M) must divide: UserError otherwise.

    Two linear layers of the query say for each head, level and point (num_points, K) how far from its reference point
    the head looks and how much that counts, the latter by a softmax over a head's num_levels (L) x K points. At first
    all count the same, and the k-th point of head m lies k cells from the reference, on a square, in the direction
    2 pi m / M: for 8 heads the paper's (-k, -k), (-k, 0), ..., (k, k). The other layers start as Xavier's, without
    bias.
    """

    def __init__(self, channels: int, num_heads: int, num_levels: int, num_points: int) -> None:
        super().__init__()
        if channels % num_heads:
            raise UserError(f"model.layers.num_heads={num_heads} must divide the {channels} channels")
        self.num_heads, self.num_levels, self.num_points = num_heads, num_levels, num_points
        num = num_heads * num_levels * num_points
        self.sampling_offsets = nn.Linear(channels, 2 * num)
        self.attention_weights = nn.Linear(channels, num)
        self.value_proj = nn.Linear(channels, channels)
        self.output_proj = nn.Linear(channels, channels)
        for layer in (self.sampling_offsets, self.attention_weights):
            nn.init.zeros_(layer.weight)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
        for layer in (self.attention_weights, self.value_proj, self.output_proj):
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(first_offsets(num_heads, num_levels, num_points).flatten())

    def forward(
        self,
        queries: Tensor,
        references: Tensor,
        tokens: Tensor,
        level_sizes: Sequence[tuple[int, int]],
        padding: Tensor | None = None,
    ) -> Tensor:
        """Queries float [B, Q, channels] -> [B, Q, channels].

        references: float [B, Q, L, 2], x and y of each query's point on each level's map, which spans [0, 1]; an offset
        is then counted in the level's cells. Or [B, Q, L, 4], with a width and a height: an offset of K reaches to half
        of these (the paper's A.4). tokens: float [B, S, channels], the cells of all levels, of (height, width) each in
        level_sizes, finest first, row by row. padding: bool [B, S], tokens that read as zeros, as everything outside a
        map does.
        """
        values = self.value_proj(tokens)
        if padding is not None:
            values = values.masked_fill(padding[..., None], 0.0)
        values = values.unflatten(2, (self.num_heads, -1))
        shape = (self.num_heads, self.num_levels, self.num_points)
        weights = (
            self.attention_weights(queries).unflatten(2, (self.num_heads, -1)).softmax(dim=3).unflatten(3, shape[1:])
        )
        offsets = full_precision(self.sampling_offsets(queries)).unflatten(2, (*shape, 2))
        centres = references[:, :, None, :, None]  # [B, Q, 1, L, 1, 2 or 4]
        if references.shape[-1] == 2:
            cells = offsets.new_tensor([(width, height) for height, width in level_sizes])
            points = centres + offsets / cells[:, None]
        else:
            points = centres[..., :2] + offsets / self.num_points * centres[..., 2:] / 2
        return self.output_proj(attend(values, level_sizes, points, weights).to(values.dtype))


def attend(values: Tensor, level_sizes: Sequence[tuple[int, int]], points: Tensor, weights: Tensor) -> Tensor:
    """The weighted sum over all levels and points of the values there, head by head: Eq. 3 without its two projections.

    values: float [B, S, M, D], at the centres of the cells of all levels, of (height, width) each in level_sizes,
    finest first, row by row; between them bilinear, beyond a map's edge zero. points: float [B, Q, M, L, K, 2], x and y
    on each level's map, which spans [0, 1]. weights: float [B, Q, M, L, K]. -> [B, Q, M * D], in float32 at least, as
    positions want the digits.
    """
    batch, _, heads, width = values.shape
    num_queries = points.shape[1]
    with without_autocast(values.device.type):
        values = full_precision(values)
        points, weights = points.to(values.dtype), weights.to(values.dtype)
        grid = (2 * points - 1).transpose(1, 2).flatten(0, 1)  # [B * M, Q, L, K, 2], in grid_sample's units
        weights = weights.transpose(1, 2).flatten(0, 1)
        total = values.new_zeros(batch * heads, width, num_queries)
        for level, cells in enumerate(values.split([h * w for h, w in level_sizes], dim=1)):
            maps = cells.permute(0, 2, 3, 1).reshape(batch * heads, width, *level_sizes[level])
            found = F.grid_sample(maps, grid[:, :, level], "bilinear", "zeros", align_corners=False)  # [B * M, D, Q, K]
            total = total + (found * weights[:, None, :, level]).sum(dim=3)
    return total.unflatten(0, (batch, heads)).flatten(1, 2).transpose(1, 2)


def first_offsets(num_heads: int, num_levels: int, num_points: int) -> Tensor:
    """float [M, L, K, 2]: (x, y) in cells; see DeformableAttention."""
    angles = torch.arange(num_heads) * (2 * math.pi / num_heads)
    directions = torch.stack([angles.cos(), angles.sin()], dim=1)
    directions = directions / directions.abs().amax(dim=1, keepdim=True)
    steps = torch.arange(1, num_points + 1)
    return (directions[:, None, None] * steps[:, None]).expand(-1, num_levels, -1, -1)
