"""The shared heads: initial values, and the order of anchors in the output."""

import pytest
import torch
from torch import nn

from rankdet.errors import UserError
from rankdet.models.heads import RetinaHeads


def heads(**options) -> RetinaHeads:
    settings = {
        "in_channels": 8,
        "anchors_per_cell": 6,
        "num_channels": 3,
        "prior_bias": torch.tensor([-1.0, -2.0, -3.0]),
        "num_convs": 2,
        "channels": 16,
    }
    return RetinaHeads(**{**settings, **options})


def test_initial_scores_are_the_prior_for_every_anchor():
    """Without features (zeros) a logit is its bias: -1, -2, -3 for the three channels of each anchor; deltas are 0."""
    logits, deltas = heads()([torch.zeros(2, 8, 3, 4), torch.zeros(2, 8, 2, 2)])
    assert logits.shape == (2, (12 + 4) * 6, 3)
    assert deltas.shape == (2, (12 + 4) * 6, 4)
    torch.testing.assert_close(logits, torch.tensor([-1.0, -2.0, -3.0]).expand_as(logits))
    assert not deltas.any()


def test_initial_weights():
    """Standard deviations: 0.01 in towers and scores, 0.001 in the box output (thousands of weights: within 10 %)."""
    torch.manual_seed(0)
    module = heads(channels=64, in_channels=64, num_convs=4)
    convs = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 2 * 4 + 2
    for conv in convs:
        expected = 0.001 if conv is module.box_output else 0.01
        assert conv.weight.std().item() == pytest.approx(expected, rel=0.1)
        assert conv is module.class_output or not conv.bias.any()


def test_order_is_level_row_column_anchor():
    """No tower, output convs of one tap: channel 0 of cell (y, x) is 10 y + x (+ 100 on level 1), anchor k adds 1000 k.

    Level 0 is 2 x 3, level 1 1 x 2; two anchors. Channel c of an anchor scales the value by c + 1.
    """
    module = heads(in_channels=2, anchors_per_cell=2, num_channels=2, prior_bias=torch.zeros(2), num_convs=0)
    with torch.no_grad():
        for output, size in ((module.class_output, 2), (module.box_output, 4)):
            output.weight.zero_()
            for anchor in range(2):
                for channel in range(size):
                    output.weight[anchor * size + channel, 0, 1, 1] = channel + 1
                    output.weight[anchor * size + channel, 1, 1, 1] = 1000 * anchor * (channel + 1)

    def level(height: int, width: int, offset: int) -> torch.Tensor:
        cells = offset + 10 * torch.arange(height)[:, None] + torch.arange(width)
        return torch.stack([cells.float(), torch.ones(height, width)])[None]

    features = [level(2, 3, 0), level(1, 2, 100)]
    cells = [0, 1, 2, 10, 11, 12, 100, 101]
    expected = torch.tensor([cell + 1000.0 * anchor for cell in cells for anchor in range(2)])
    for memory_format in (torch.contiguous_format, torch.channels_last):
        logits, deltas = module([x.to(memory_format=memory_format) for x in features])
        torch.testing.assert_close(logits, expected[None, :, None] * torch.arange(1.0, 3.0))
        torch.testing.assert_close(deltas, expected[None, :, None] * torch.arange(1.0, 5.0))


def test_group_norm_in_the_towers_on_request():
    assert not any(isinstance(m, nn.GroupNorm) for m in heads().modules())
    module = heads(norm="gn")
    assert sum(isinstance(m, nn.GroupNorm) for m in module.modules()) == 4
    logits, _ = module([torch.randn(1, 8, 1, 1)])
    assert torch.isfinite(logits).all()


def test_bad_arguments():
    with pytest.raises(UserError, match=r"model\.heads\.norm='bn' is unknown; choose null or gn"):
        heads(norm="bn")
    with pytest.raises(ValueError, match=r"prior_bias must have shape \[3\], not \[4\]"):
        heads(prior_bias=torch.zeros(4))
