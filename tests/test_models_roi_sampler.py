"""Which regions the second stage is trained on: counts, the draw, and images that lack one kind or all."""

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from rankdet.data.records import Target
from rankdet.errors import UserError
from rankdet.models.roi_sampler import RoISampler

OBJECTS = [[10.0, 10, 30, 30], [50.0, 10, 70, 40]]


def target(objects: list[list[float]], regions: list[list[float]] = ()) -> Target:
    """Objects, and regions to be ignored."""
    boxes = torch.tensor([*objects, *regions]).view(-1, 4)
    ignore = torch.arange(len(boxes)) >= len(objects)
    return Target(boxes, torch.zeros(len(boxes), dtype=torch.int64), ignore, 1, (80, 100))


def near(count: int) -> Tensor:
    """Boxes of IoU above 0.5 with the first object, all different."""
    return torch.tensor(OBJECTS[0]) + torch.linspace(0, 3, count)[:, None]


def far(count: int) -> Tensor:
    """Boxes that no object touches, all different."""
    return torch.tensor([0.0, 60, 20, 80]) + torch.linspace(0, 30, count)[:, None] * torch.tensor([1.0, 0, 1, 0])


def is_positive(regions: Tensor, objects: list[list[float]] = OBJECTS) -> Tensor:
    return (box_iou(regions, torch.tensor(objects).view(-1, 4)) >= 0.5).any(1)


@pytest.mark.parametrize(
    ("num_samples", "fraction", "positives", "negatives"),
    [
        (16, None, 12, 4),  # all there are: ten proposals and the two objects
        (64, None, 12, 40),  # fewer than wanted where there are no more
        (8, None, 8, 0),
        (16, 0.25, 4, 12),
        (16, 1.0, 12, 4),
        (60, 0.25, 12, 40),
        (3, 0.25, 0, 3),  # a quarter of three, rounded down
    ],
)
def test_numbers(num_samples, fraction, positives, negatives):
    """An image of 10 proposals on an object and 40 on none; each is drawn once, whole."""
    proposals = torch.cat([near(10), far(40)])
    (regions,) = RoISampler(num_samples, fraction)([proposals], [target(OBJECTS)], 1000)
    found = is_positive(regions)
    assert [int(found.sum()), int((~found).sum())] == [positives, negatives]
    known = {tuple(box) for box in [*OBJECTS, *proposals.tolist()]}
    drawn = {tuple(box) for box in regions.tolist()}
    assert drawn <= known
    # the first proposal is the first object again
    assert len(drawn) >= len(regions) - 1


def test_without_sampling():
    """The proposals as they come, up to as many as there can be, and no object beside them."""
    proposals = torch.cat([far(5), near(2)])
    sampler = RoISampler(None)
    (regions,) = sampler([proposals], [target(OBJECTS)], 1000)
    assert torch.equal(regions, proposals)
    (regions,) = sampler([proposals], [target(OBJECTS)], 4)
    assert torch.equal(regions, proposals[:4])


@pytest.mark.parametrize("num_samples", [4, None])
@pytest.mark.parametrize("fraction", [None, 0.25])
def test_images_that_lack_something(num_samples, fraction):
    """No proposals: the objects. No objects: negatives alone. Neither: none. All proposals positive: no negatives.

    Without sampling: the proposals in any case."""
    none = torch.zeros(0, 4)
    sampler = RoISampler(num_samples, fraction)
    targets = [target(OBJECTS), target([]), target([]), target(OBJECTS)]
    regions = sampler([none, far(9), none, near(9)], targets, 20)
    few = num_samples is not None and fraction is not None  # one positive of four samples
    positives = 1 if few else 2
    assert [len(each) for each in regions] == ([positives, 4, 0, 1 if few else 4] if num_samples else [0, 9, 0, 9])
    assert is_positive(regions[0]).all()
    assert not is_positive(regions[1], []).any()
    assert is_positive(regions[3]).all()


def test_ignored_regions():
    """They are no objects, and what they mostly cover is no negative: 6 of 9 proposals are left."""
    proposals = torch.cat([far(6), torch.tensor([[50.0, 50, 60, 60], [52, 50, 62, 60], [50, 48, 60, 58]])])
    crowd = [[45.0, 45, 100, 58.0]]
    (regions,) = RoISampler(50)([proposals], [target([], crowd)], 1000)
    assert sorted(regions.tolist()) == sorted(far(6).tolist())
    (regions,) = RoISampler(50)([proposals], [target([[50.0, 50, 60, 60]], crowd)], 1000)
    assert len(regions) == 6 + 1 + 3  # the object, and three proposals on it


def test_threshold():
    """A proposal that shares 12 of 20 pixels with an object of 20 has IoU 0.6: positive up to that."""
    proposals = torch.tensor([[10.0, 10, 30, 22]])
    for threshold, count in ((0.6, 2), (0.61, 1)):
        sampler = RoISampler(1000, 0.002, threshold)  # two positives at most: the object and, perhaps, the proposal
        (regions,) = sampler([torch.cat([proposals, far(3)])], [target(OBJECTS[:1])], 1000)
        assert int((box_iou(regions, torch.tensor(OBJECTS[:1])) >= threshold).sum()) == count
        assert len(regions) == 5


def test_uniform_and_by_the_generator():
    """2 of 12 positives and 6 of 20 negatives, 400 times: shares of 1/6 and 3/10, within 4 standard deviations."""
    proposals = torch.cat([near(11)[1:], far(20)])
    sampler = RoISampler(8, 0.25)

    def draw() -> Tensor:
        (regions,) = sampler([proposals], [target(OBJECTS)], 1000)
        whole = torch.cat([torch.tensor(OBJECTS), proposals])
        return (whole[:, None] == regions).all(2).any(1)

    torch.manual_seed(3)
    drawn = torch.stack([draw() for _ in range(400)])
    torch.manual_seed(3)
    assert all(torch.equal(draw(), first) for first in drawn[:5])
    share = drawn.double().mean(0)
    assert (share[:12] - 1 / 6).abs().max() < 4 * (5 / 36 / 400) ** 0.5
    assert (share[12:] - 0.3).abs().max() < 4 * (0.21 / 400) ** 0.5


def test_image_by_image():
    """The draw of a batch is that of its images one after the other, so that micro-batches draw the same."""
    proposals, targets = [torch.cat([near(9), far(20)])] * 3, [target(OBJECTS)] * 3
    torch.manual_seed(1)
    together = RoISampler(8)(proposals, targets, 1000)
    torch.manual_seed(1)
    apart = [RoISampler(8)(proposals[:1], targets[:1], 1000)[0] for _ in range(3)]
    assert all(map(torch.equal, together, apart))
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize(("key", "value"), [("num_samples", 0), ("positive_fraction", 0.0), ("positive_fraction", 2.0)])
def test_bad_settings(key, value):
    with pytest.raises(UserError, match=rf"^model\.roi_sampler\.{key}={value}: must"):
        RoISampler(**{key: value})
