"""Anchors: values and order by hand, the paper's count, and the kept answer."""

import math

import pytest
import torch

from rankdet.matching.anchors import AnchorGenerator

CPU = torch.device("cpu")


def test_one_cell_by_hand():
    """Stride 8, scale 4, centre (4, 4). Base side 32, octave 2 doubles it. Ratio (height / width) 1/4: 64 x 16."""
    anchors = AnchorGenerator([8], scale=4.0, octave_scales=[1.0, 2.0], ratios=[0.25, 1.0, 4.0])([(1, 1)], CPU)
    sizes = [(64, 16), (32, 32), (16, 64), (128, 32), (64, 64), (32, 128)]
    expected = [[4 - w / 2, 4 - h / 2, 4 + w / 2, 4 + h / 2] for w, h in sizes]
    torch.testing.assert_close(anchors, torch.tensor(expected))
    assert anchors.dtype == torch.float32


def test_order_is_level_row_column():
    """Centres at (i + 0.5) * stride: level of stride 8 with 2 x 3 cells, then stride 16 with 1 x 2."""
    generator = AnchorGenerator([8, 16], scale=1.0, octave_scales=[1.0], ratios=[1.0])
    anchors = generator([(2, 3), (1, 2)], CPU)
    centres = (anchors[:, :2] + anchors[:, 2:]) / 2
    expected = [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12], [8, 8], [24, 8]]
    torch.testing.assert_close(centres, torch.tensor(expected, dtype=torch.float32))
    torch.testing.assert_close(anchors[:, 2] - anchors[:, 0], torch.tensor([8.0] * 6 + [16.0] * 2))


def test_the_papers_anchors():
    """512 x 512, strides 8 .. 128: 6 * (64^2 + 32^2 + 16^2 + 8^2 + 4^2) = 32 736, areas (4 s)^2 and 2 (4 s)^2."""
    generator = AnchorGenerator([8, 16, 32, 64, 128])
    assert generator.num_per_cell == 6
    anchors = generator([(64, 64), (32, 32), (16, 16), (8, 8), (4, 4)], CPU)
    assert anchors.shape == (32_736, 4)
    width, height = (anchors[:, 2:] - anchors[:, :2]).unbind(1)
    areas = torch.tensor([(4.0 * 8) ** 2] * 3 + [2 * (4.0 * 8) ** 2] * 3)
    torch.testing.assert_close((width * height)[:6], areas)
    torch.testing.assert_close((width * height)[-6:], areas * 16**2)
    torch.testing.assert_close((height / width)[:6], torch.tensor([0.5, 1.0, 2.0] * 2))


def test_the_answer_is_kept_for_one_size():
    generator = AnchorGenerator([8, 16])
    first = generator([(4, 4), (2, 2)], CPU)
    assert generator([(4, 4), (2, 2)], CPU) is first
    other = generator([(4, 5), (2, 3)], CPU)
    assert len(other) == 6 * (20 + 6)
    torch.testing.assert_close(generator([(4, 4), (2, 2)], CPU), first)
    assert generator([(4, 4), (2, 2)], torch.device("meta")).device.type == "meta"


def test_anchors_made_in_inference_mode_can_be_trained_on():
    generator = AnchorGenerator([8])
    with torch.inference_mode():
        anchors = generator([(2, 2)], CPU)
    scale = torch.ones(1, requires_grad=True)
    (anchors * scale).sum().backward()
    assert scale.grad.item() == pytest.approx(anchors.sum().item())


def test_one_graph_for_the_compiler():
    generator = AnchorGenerator([8], octave_scales=[1.0, math.sqrt(2)])
    compiled = torch.compile(lambda x: x + generator([(2, 2)], x.device), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(torch.zeros(24, 4)), generator([(2, 2)], CPU))


def test_bad_arguments():
    with pytest.raises(ValueError, match="sizes has 1 levels, strides 2"):
        AnchorGenerator([8, 16])([(4, 4)], CPU)
    for bad in ({"strides": [0]}, {"scale": -1.0}, {"ratios": [0.0]}, {"octave_scales": [-1.0]}):
        with pytest.raises(ValueError, match="must be positive"):
            AnchorGenerator(**{"strides": [8], **bad})
