"""Levels as tokens: their places by hand, in padded inputs too, and what is refused."""

import math

import pytest
import torch

from rankdet.errors import UserError
from rankdet.models.level_tokens import LevelTokens, waves


def module(channels=8, num_levels=3) -> LevelTokens:
    """On maps of strides 8 and 16."""
    torch.manual_seed(0)
    return LevelTokens({"c4": 5, "c5": 6}, {"c4": 8, "c5": 16}, channels, num_levels)


def maps(batch=2):
    """Of an input of 40 x 64."""
    return {"c4": torch.randn(batch, 5, 5, 8), "c5": torch.randn(batch, 6, 3, 4)}


def test_waves_by_hand():
    """Eight channels: of y the sine and cosine of 2 pi y, then of 2 pi y / 100 (10 000 ** 0.5); of x likewise."""
    x, y = 0.25, 0.75
    found = waves(torch.tensor([[[x, y]]]), 8)[0, 0]
    angles = [2 * math.pi * y, 2 * math.pi * y / 100, 2 * math.pi * x, 2 * math.pi * x / 100]
    torch.testing.assert_close(found, torch.tensor([f(a) for a in angles for f in (math.sin, math.cos)]))


def test_sizes_and_order():
    """Cells of strides 8, 16 and 32: 5 x 8, 3 x 4, 2 x 2, and the third level is made of the backbone's last map."""
    levels, given = module(), maps()
    tokens = levels(given, None)
    assert levels.strides == (8, 16, 32)
    assert tokens.level_sizes == ((5, 8), (3, 4), (2, 2))
    assert tokens.features.shape == tokens.positions.shape == (2, 56, 8)
    assert tokens.padding is None
    torch.testing.assert_close(tokens.features[1, 40 + 4 + 2], levels.projections[1](given["c5"])[1, :, 1, 2])
    torch.testing.assert_close(tokens.features[1, 55], levels.extra[0](given["c5"])[1, :, 1, 1])
    torch.testing.assert_close(tokens.centres[0, 40 + 4 + 2], torch.tensor([2.5 / 4, 1.5 / 3]))
    expected = waves(tokens.centres[:, 40:52], 8) + levels.level_embedding[1]
    torch.testing.assert_close(tokens.positions[:, 40:52], expected)
    assert (tokens.shares == 1).all()


def test_further_levels_are_made_of_the_one_before():
    levels, given = module(num_levels=4), maps()
    tokens = levels(given, None)
    assert levels.strides == (8, 16, 32, 64)
    assert tokens.level_sizes[2:] == ((2, 2), (1, 1))
    torch.testing.assert_close(tokens.features[:, 56], levels.extra[1](levels.extra[0](given["c5"]))[:, :, 0, 0])
    assert module(num_levels=2)(given, None).features.shape[1] == 52


def test_padding_by_hand():
    """Of 40 x 64 an image of 17 x 40 shows 3 x 5 cells of the first level, 2 x 3 of the second, 1 x 2 of the third."""
    tokens = module()(maps(), [(17, 40), (40, 64)])
    shown = ~tokens.padding
    assert shown[0].split([40, 12, 4])[0].view(5, 8).sum(1).tolist() == [5, 5, 5, 0, 0]
    assert shown[0].split([40, 12, 4])[1].view(3, 4).sum(1).tolist() == [3, 3, 0]
    assert shown[0].split([40, 12, 4])[2].view(2, 2).tolist() == [[True, True], [False, False]]
    assert shown[1].all()
    shares = torch.tensor([[5 / 8, 3 / 5], [3 / 4, 2 / 3], [1, 1 / 2]])
    torch.testing.assert_close(tokens.shares, torch.stack([shares, torch.ones(3, 2)]))
    torch.testing.assert_close(tokens.centres[0, 8 + 4], torch.tensor([4.5 / 5, 1.5 / 3]))
    boxes = torch.tensor([[[0.5, 1.0, 0.2, 0.4]], [[0.5, 1.0, 0.2, 0.4]]])
    on_maps = tokens.on_maps(boxes)
    torch.testing.assert_close(on_maps[0, 0], boxes[0] * torch.cat([shares, shares], dim=1))
    torch.testing.assert_close(on_maps[1, 0], boxes[1].expand(3, 4))
    torch.testing.assert_close(tokens.on_maps(boxes[..., :2]), on_maps[..., :2])


def test_what_is_refused():
    with pytest.raises(UserError, match=r"^model\.levels\.num_levels=1: the backbone gives 2 maps"):
        module(num_levels=1)
    with pytest.raises(UserError, match=r"^model\.levels\.channels=6: must be a multiple of 4"):
        module(channels=6)
