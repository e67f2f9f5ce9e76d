"""Overlap of paired boxes: worked arithmetic, golden values and gradients, and torchvision's functions."""

import numpy as np
import pytest
import torch
from reference import golden_files
from torchvision.ops import box_iou, generalized_box_iou, generalized_box_iou_loss

from rankdet.losses.overlap import paired_giou, paired_iou

SQUARE = [0.0, 0, 10, 10]


def test_arithmetic():
    """A square of side 10 and: itself; one 2 to the right, 80 of 120 shared; one 20 to the right, nothing of a hull of
    300 whose 200 they cover; half of it, 50 of 100; a corner's touch, nothing of a hull of 400, 200 covered."""
    pred = torch.tensor([SQUARE, [2.0, 0, 12, 10], [20, 0, 30, 10], [0, 0, 5, 10], [10, 10, 20, 20]])
    target = torch.tensor([SQUARE] * 5)
    torch.testing.assert_close(paired_iou(pred, target), torch.tensor([1, 2 / 3, 0, 1 / 2, 0]))
    torch.testing.assert_close(paired_giou(pred, target), torch.tensor([1, 2 / 3, -1 / 3, 1 / 2, -1 / 2]))


def test_gradient_arithmetic():
    """Squares of side 10, one s = 5 to the right. IoU (10 - s) / (10 + s), whose slope is -20 / 15^2; GIoU is the same.

    At s = 20 the IoU is 0 with slope 0, and GIoU 20 / (10 + s) - 1 with slope -20 / 30^2.
    """
    target = torch.tensor([SQUARE] * 2, dtype=torch.float64)
    for overlap, slopes in ((paired_iou, [-20 / 225, 0]), (paired_giou, [-20 / 225, -20 / 900])):
        shift = torch.tensor([5.0, 20.0], dtype=torch.float64, requires_grad=True)
        pred = target + shift[:, None] * torch.tensor([1.0, 0, 1, 0])
        (slope,) = torch.autograd.grad(overlap(pred, target).sum(), shift)
        np.testing.assert_allclose(slope, slopes, atol=1e-8)


def test_boxes_without_area():
    """Two points at one place or apart, a point in a square, a square and its own edge: all numbers are finite.

    One point twice: no intersection over 1e-6, and nothing over a hull of 1e-7. A point 5 away in x and y: a hull of 25
    that nobody covers. In a square: nothing is shared, the hull is the square.
    """
    point = [3.0, 3, 3, 3]
    pred = torch.tensor([point, [8.0, 8, 8, 8], point, [0.0, 0, 0, 10]], requires_grad=True)
    target = torch.tensor([point, point, SQUARE, SQUARE])
    assert paired_iou(pred, target).tolist() == [0, 0, 0, 0]
    giou = paired_giou(pred, target)
    np.testing.assert_allclose(giou.detach(), [0, -1, 0, 0], atol=1e-6)
    giou.sum().backward()
    assert pred.grad.isfinite().all()


# golden README: 1e-6 in float32
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-6}


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_golden(dtype):
    """Two of the three eps habits: max(union, 1e-6) for IoU; union and hull both + 1e-7 for GIoU.

    Gradients where no coordinates of a pair coincide; all pairs of 20 x 20 boxes besides.
    """
    atol = TOLERANCES[dtype]
    values = gradients = 0
    for file in golden_files("boxes"):
        z = dict(np.load(file))
        for overlap, expected, gradient in (
            (paired_iou, z["iou_maxeps"], -z["grad_iou_loss_linear"]),
            (paired_giou, 1 - z["giou_loss_eps1e-7"], -z["grad_giou_loss_eps1e-7"]),
        ):
            pred = torch.from_numpy(z["pred"]).to(dtype).requires_grad_()
            computed = overlap(pred, torch.from_numpy(z["gt"]).to(dtype))
            computed.sum().backward()
            np.testing.assert_allclose(computed.detach(), expected, atol=atol)
            comparable = z["grad_comparable"]
            np.testing.assert_allclose(pred.grad[comparable], gradient[comparable], atol=atol, rtol=atol)
            values += len(pred)
            gradients += comparable.sum()
        size = len(z["pairwise_iou"])
        pred, target = (torch.from_numpy(z[name][:size]).to(dtype) for name in ("pred", "gt"))
        every = paired_iou(pred[:, None].expand(-1, size, -1), target[None].expand(size, -1, -1))
        np.testing.assert_allclose(every, z["pairwise_iou"], atol=atol)
    assert values >= gradients >= 20


def test_equal_torchvision():
    """On 200 random pairs of boxes of 1 to 100 pixels, values and gradients; torchvision's IoU has no eps."""
    random = np.random.default_rng(4)
    corner, size = random.uniform(0, 100, (2, 200, 2)), random.uniform(1, 100, (2, 200, 2))
    boxes = torch.from_numpy(np.concatenate((corner, corner + size), -1))
    gradients = []
    for giou in (paired_giou, lambda p, t: 1 - generalized_box_iou_loss(p, t)):
        pred = boxes[0].clone().requires_grad_()
        overlap = giou(pred, boxes[1])
        overlap.sum().backward()
        gradients.append(pred.grad)
        torch.testing.assert_close(overlap.detach(), generalized_box_iou(*boxes).diag(), atol=1e-7, rtol=0)
    torch.testing.assert_close(*gradients, atol=1e-14, rtol=1e-12)
    torch.testing.assert_close(paired_iou(*boxes), box_iou(*boxes).diag(), atol=1e-14, rtol=0)
    assert (paired_iou(*boxes) == 0).sum() > 20


@pytest.mark.parametrize("overlap", [paired_iou, paired_giou])
def test_no_number_is_read_back(overlap):
    """Nothing in either direction asks for a tensor's value on the host, for which a GPU would have to finish."""
    pred = torch.rand(9, 4).cumsum(1).requires_grad_()
    with torch.autograd.profiler.profile() as profile:
        overlap(pred, torch.rand(9, 4).cumsum(1)).sum().backward()
    names = {event.name for event in profile.function_events}
    assert {"aten::mul", "MulBackward0"} <= names
    assert "aten::item" not in names


@pytest.mark.parametrize("overlap", [paired_iou, paired_giou])
def test_shapes_and_types(overlap):
    """Half types in float32, where areas of 300 x 300 boxes fit; any leading shape, no pairs included."""
    pred, target = torch.tensor([0.0, 0, 300, 300]), torch.tensor([0.0, 0, 300, 150])
    for dtype in (torch.float16, torch.bfloat16):
        half = overlap(pred.to(dtype), target.to(dtype))
        assert (half.dtype, half.item()) == (torch.float32, pytest.approx(0.5))
    assert overlap(pred.expand(2, 3, 4), target.expand(2, 3, 4)).shape == (2, 3)
    assert overlap(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0,)
    for shapes in (((2, 4), (3, 4)), ((2, 4), (4,)), ((2, 5), (2, 5)), ((), ())):
        with pytest.raises(ValueError, match=r"^pred and target must be \[\.\.\., 4\] alike"):
            overlap(*map(torch.zeros, shapes))
