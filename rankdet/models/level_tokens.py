"""Feature levels as the sequence of tokens that a transformer reads: one a cell, with its place."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rankdet.errors import UserError
from rankdet.models.norm import group_norm

TEMPERATURE = 10_000.0  # of the slowest wave to the fastest one


class Tokens(NamedTuple):
    """S tokens of L levels, finest first, within one row by row; of B images at the top left of an input."""

    features: Tensor  # float [B, S, channels]
    positions: Tensor  # float [B, S, channels]: where in its image, and of which level
    centres: Tensor  # float32 [B, S, 2]: x, y in the image, which spans [0, 1]
    shares: Tensor  # float32 [B, L, 2]: how much of a level's map shows the image, across and down, in (0, 1]
    level_sizes: tuple[tuple[int, int], ...]  # (height, width) in cells
    padding: Tensor | None  # bool [B, S]: cells that do not show the image; None: there are none

    def on_maps(self, points: Tensor) -> Tensor:
        """[B, Q, 2 or 4], x and y (width and height) in the image -> [B, Q, L, 2 or 4], on the map of each level."""
        shares = torch.cat([self.shares, self.shares], dim=2)[..., : points.shape[-1]]
        return points[:, :, None] * shares[:, None]


class LevelTokens(nn.Module):
    """A backbone's maps -> Tokens of `channels` (Deformable DETR, ICLR 2021, A.2): a 1x1 convolution and a group norm
    a map, then up to num_levels maps more by stride-2 3x3 convolutions and group norms, the first on the backbone's
    last map. UserError for fewer levels than maps, or channels that are not a multiple of four.
    """

    def __init__(
        self, in_channels: Mapping[str, int], in_strides: Mapping[str, int], channels: int = 256, num_levels: int = 4
    ) -> None:
        super().__init__()
        if num_levels < len(in_channels):
            raise UserError(
                f"model.levels.num_levels={num_levels}: the backbone gives {len(in_channels)} maps; take as many "
                "levels, or fewer maps by model.backbone.outputs"
            )
        if channels < 4 or channels % 4:
            raise UserError(f"model.levels.channels={channels}: must be a multiple of 4, for the waves of x and y")
        self.channels = channels
        inputs, strides = list(in_channels.values()), list(in_strides.values())
        self.projections = nn.ModuleList(_projection(count, channels, 1) for count in inputs)
        self.extra = nn.ModuleList()
        for _ in range(num_levels - len(inputs)):
            self.extra.append(_projection(channels if self.extra else inputs[-1], channels, 3))
            strides.append(2 * strides[-1])
        self.strides = tuple(strides)
        self.level_embedding = nn.Parameter(torch.randn(num_levels, channels))

    def forward(self, features: Mapping[str, Tensor], shown: Sequence[tuple[int, int]] | None) -> Tokens:
        """Maps of in_strides, by name. shown: (height, width) in pixels of each image's part of its input; None: all
        of it."""
        found = list(features.values())
        maps = [project(x) for project, x in zip(self.projections, found, strict=True)]
        last = found[-1]
        for project in self.extra:
            last = project(last)
            maps.append(last)
        sizes = tuple((x.shape[2], x.shape[3]) for x in maps)
        inside = [self._cells(shown, level, size, len(last), last.device) for level, size in enumerate(sizes)]
        centres = [_centres(size, cells) for size, cells in zip(sizes, inside, strict=True)]
        positions = [waves(at, self.channels) + row for at, row in zip(centres, self.level_embedding, strict=True)]
        wholes = torch.tensor([(width, height) for height, width in sizes], device=last.device)
        centres = torch.cat(centres, dim=1)
        return Tokens(
            features=torch.cat([x.flatten(2).transpose(1, 2) for x in maps], dim=1),
            positions=torch.cat(positions, dim=1),
            centres=centres,
            shares=torch.stack(inside, dim=1) / wholes,
            level_sizes=sizes,
            padding=None if shown is None else (centres > 1).any(dim=2),
        )

    def _cells(
        self,
        shown: Sequence[tuple[int, int]] | None,
        level: int,
        size: tuple[int, int],
        batch: int,
        device: torch.device,
    ) -> Tensor:
        """float32 [B, 2]: a level's cells that show the image, across and down."""
        stride, (height, width) = self.strides[level], size
        if shown is None:
            return torch.tensor([(width, height)], device=device, dtype=torch.float32).expand(batch, -1)
        cells = [(-(-w // stride), -(-h // stride)) for h, w in shown]
        return torch.tensor(cells, device=device, dtype=torch.float32)


def waves(centres: Tensor, channels: int) -> Tensor:
    """[B, S, 2], x and y in [0, 1] -> float32 [B, S, channels]: sines and cosines, by turns, of y and then of x.

    DETR (ECCV 2020), A.4: the encoding of Attention Is All You Need (NeurIPS 2017, Sec. 3.5) for each axis, the image
    being 2 pi long.
    """
    num = channels // 2
    rates = TEMPERATURE ** (-torch.arange(0, num, 2, device=centres.device) / num)  # [channels / 4]
    angles = 2 * math.pi * centres.flip(2)[..., None] * rates  # [B, S, 2, channels / 4]
    return torch.stack([angles.sin(), angles.cos()], dim=4).flatten(2)


def _projection(in_channels: int, channels: int, kernel: int) -> nn.Sequential:
    """Of a size kernel of 3 it halves the map."""
    conv = nn.Conv2d(in_channels, channels, kernel, stride=1 if kernel == 1 else 2, padding=kernel // 2)
    nn.init.xavier_uniform_(conv.weight)
    nn.init.zeros_(conv.bias)
    return nn.Sequential(conv, group_norm(channels))


def _centres(size: tuple[int, int], inside: Tensor) -> Tensor:
    """float32 [B, h * w, 2]: x and y of the cells' centres, in the image of inside [B, 2] cells; past 1 outside it."""
    height, width = size
    y, x = torch.meshgrid(
        torch.arange(height, device=inside.device) + 0.5, torch.arange(width, device=inside.device) + 0.5, indexing="ij"
    )
    return torch.stack([x, y], dim=2).reshape(1, -1, 2) / inside[:, None]
