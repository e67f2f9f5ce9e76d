"""RoIAlign over a pyramid: which level, torchvision's numbers, no regions, half types, and the end of padded maps."""

import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign, roi_align

from rankdet.models.roi_align import PyramidRoIAlign, edges_repeated

STRIDES = (4, 8, 16, 32)


def pyramid(images=2, channels=3, height=128, width=160):
    torch.manual_seed(0)
    return [torch.randn(images, channels, height // stride, width // stride) for stride in STRIDES]


def regions(count=40):
    """Boxes of sides from 4 to 150 in a 128 x 160 image, and which of two images they are of."""
    torch.manual_seed(1)
    sides = torch.logspace(2, 7.2, count, base=2)[:, None] * torch.tensor([1.2, 0.8])
    corners = torch.rand(count, 2) * (torch.tensor([160.0, 128.0]) - sides).clamp(min=0)
    boxes = torch.cat([corners, torch.minimum(corners + sides, torch.tensor([160.0, 128.0]))], dim=1)
    return boxes, torch.randint(0, 2, (count,))


def test_levels():
    """FPN, Eq. 1: 224 pixels a side belong to the level of stride 16, 112 to 8, 448 to 32; ends take what is beyond."""
    sides = torch.tensor([1.0, 56, 111.9, 112, 223.9, 224, 447.9, 448, 2000])
    boxes = torch.stack([torch.zeros(9), torch.zeros(9), sides, sides], dim=1)
    assert PyramidRoIAlign(STRIDES).levels(boxes).tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3]
    assert PyramidRoIAlign((8, 16), canonical_side=56).levels(boxes).tolist() == [0, 1, 1, 1, 1, 1, 1, 1, 1]
    assert PyramidRoIAlign(STRIDES).levels(torch.zeros(1, 4)).tolist() == [0]
    wide = torch.tensor([[0.0, 0, 448, 112]])  # by area: as 224 x 224
    assert PyramidRoIAlign(STRIDES).levels(wide).tolist() == [2]


def test_torchvisions_without_alignment():
    """MultiScaleRoIAlign on the same pyramid; a canonical side of 56 spreads the boxes over all four levels."""
    features, (boxes, images) = pyramid(), regions()
    ours = PyramidRoIAlign(STRIDES, 5, sampling_ratio=2, aligned=False, canonical_side=56)
    assert sorted(set(ours.levels(boxes).tolist())) == [0, 1, 2, 3]
    theirs = MultiScaleRoIAlign(["0", "1", "2", "3"], 5, 2, canonical_scale=56)
    order = images.argsort(stable=True)
    per_image = [boxes[images == image] for image in range(2)]
    expected = theirs({str(i): x for i, x in enumerate(features)}, per_image, [(128, 160)] * 2)
    torch.testing.assert_close(ours(features, boxes, images)[order], expected, rtol=0, atol=0)


def test_aligned_cells_are_where_the_region_is():
    """A map whose cells hold their centres' x, in pixels: the mean over a region is its own centre's x."""
    centres = (torch.arange(20.0) + 0.5) * 8
    features = [centres.expand(1, 1, 16, 20)]
    boxes = torch.tensor([[20.0, 20, 60, 60], [33.0, 40, 49, 72]])
    align = PyramidRoIAlign((8,), output_size=1)
    assert align(features, boxes, torch.zeros(2, dtype=torch.int64)).flatten().tolist() == pytest.approx([40, 41])
    plain = PyramidRoIAlign((8,), output_size=1, aligned=False)
    assert plain(features, boxes, torch.zeros(2, dtype=torch.int64)).flatten().tolist() == pytest.approx([44, 45])


def test_none():
    """No regions: an empty answer with a gradient path to every level."""
    features = [x.requires_grad_() for x in pyramid()]
    found = PyramidRoIAlign(STRIDES)(features, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    assert found.shape == (0, 3, 7, 7)
    assert all(not g.any() for g in torch.autograd.grad(found.sum(), features))


def test_gradients_reach_each_level():
    features, (boxes, images) = [x.requires_grad_() for x in pyramid()], regions()
    found = PyramidRoIAlign(STRIDES, canonical_side=56)(features, boxes, images)
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(found.sum(), features))


def test_half_types_are_pooled_in_float32():
    features, (boxes, images) = [x.bfloat16() for x in pyramid()], regions()
    align = PyramidRoIAlign(STRIDES)
    with torch.autocast("cpu", torch.bfloat16):
        found = align(features, boxes, images)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, align([x.float() for x in features], boxes, images), rtol=0, atol=0)
    assert align([x.double() for x in features], boxes, images).dtype == torch.float64


def test_repeated_edges_are_those_of_the_image_alone():
    """Regions up to the end of a 5 x 7 part of a 8 x 10 map, and of a whole one: as if the map ended there."""
    features = torch.randn(2, 3, 8, 10)
    repeated = edges_repeated(features, [(5, 7), (8, 10)])
    assert torch.equal(repeated[1], features[1])
    assert torch.equal(repeated[0, :, :5, :7], features[0, :, :5, :7])
    assert torch.equal(repeated[0, :, 7, 9], features[0, :, 4, 6])
    assert torch.equal(repeated[0, :, 2, 9], features[0, :, 2, 6])
    box = torch.tensor([[0.0, 30, 12, 56, 40]])
    for aligned in (True, False):
        alone = roi_align(features[:1, :, :5, :7], box, 4, 1 / 8, 2, aligned)
        torch.testing.assert_close(roi_align(repeated, box, 4, 1 / 8, 2, aligned)[0], alone[0])
        assert (roi_align(features, box, 4, 1 / 8, 2, aligned)[0] - alone[0]).abs().max() > 0.1
