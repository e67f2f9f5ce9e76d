"""Box losses: worked arithmetic, golden IoU and GIoU, harmonic IoU's slope, and batches without positives."""

import numpy as np
import pytest
import torch
from reference import golden_files, loss_inputs

from rankdet.losses.box import (
    GIoULoss,
    HarmonicIoULoss,
    IoULoss,
    SmoothL1Loss,
    harmonic_iou,
    harmonic_iou_loss,
    iou_loss,
)
from rankdet.losses.inputs import LossInputs
from rankdet.losses.overlap import paired_iou


def box_inputs(pred_deltas, target_deltas, pred_boxes=None, target_boxes=None):
    """LossInputs of P positives with the given box tensors; scores and labels are not looked at."""
    nothing = torch.zeros(0)
    return LossInputs(nothing, nothing, nothing, pred_deltas, target_deltas, pred_boxes, target_boxes)


def test_smooth_l1_arithmetic():
    """Differences 0.5, -2, 0, 0 and 0, 0, 0, 3; beta 1: 0.125 + 1.5 + 2.5 = 4.125 over 8 numbers.

    Gradients: the difference inside beta, its sign outside, over 8. With beta 0: (0.5 + 2 + 3) / 8.
    """
    deltas = torch.tensor([[0.5, -2, 0, 0], [0, 0, 0, 3]], requires_grad=True)
    total, parts = SmoothL1Loss()(box_inputs(deltas, torch.zeros(2, 4)))
    total.backward()
    assert total.item() == parts["box"].item() == 4.125 / 8
    assert (deltas.grad * 8).tolist() == [[0.5, -1, 0, 0], [0, 0, 0, 1]]
    assert SmoothL1Loss(beta=0.0)(box_inputs(deltas, torch.zeros(2, 4))).total.item() == 5.5 / 8


def test_giou_arithmetic():
    """Two boxes of side 10, one 2 to the right: IoU 80/120, hull 120 is their union, GIoU 2/3. At 20 to the right:
    IoU 0, union 200, hull 300, GIoU -1/3. Mean loss (1/3 + 4/3) / 2 = 5/6; weighted twofold 5/3."""
    target = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10]])
    pred = torch.tensor([[2.0, 0, 12, 10], [20, 0, 30, 10]])
    total, parts = GIoULoss(weight=2.0)(box_inputs(torch.zeros(2, 4), torch.zeros(2, 4), pred, target))
    assert parts["box"].item() == pytest.approx(5 / 6)
    assert total.item() == pytest.approx(5 / 3)


# Which key of the golden data a loss equals, by its eps habit: union and hull + 1e-7, and max(union, 1e-6).
GOLDEN_KEYS = {GIoULoss: "giou_loss_eps1e-7", IoULoss: "iou_loss_linear"}


@pytest.mark.parametrize("loss_class", GOLDEN_KEYS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_golden(loss_class, dtype):
    """Values of all pairs and, where coordinates do not coincide, gradients."""
    values = gradients = 0
    key = GOLDEN_KEYS[loss_class]
    for file in golden_files("boxes"):
        z = np.load(file)
        target = torch.from_numpy(z["gt"]).to(dtype)
        for i, box in enumerate(z["pred"]):
            pred = torch.tensor(box[None], dtype=dtype, requires_grad=True)
            total, _ = loss_class()(box_inputs(torch.zeros(1, 4), torch.zeros(1, 4), pred, target[i : i + 1]))
            total.backward()
            assert total.item() == pytest.approx(z[key][i], abs=1e-6), (file.name, z["kind"][i])
            values += 1
            if z["grad_comparable"][i]:
                np.testing.assert_allclose(pred.grad[0], z[f"grad_{key}"][i], atol=1e-6, rtol=1e-6)
                gradients += 1
    assert values >= 50
    assert gradients >= 40


def test_paired_iou_golden():
    """The first of three eps habits, pair by pair and, on the 20 x 20 boxes of the first pairs, all with all."""
    visited = 0
    for file in golden_files("boxes"):
        z = np.load(file)
        pred, target = torch.from_numpy(z["pred"]).double(), torch.from_numpy(z["gt"]).double()
        np.testing.assert_allclose(paired_iou(pred, target), z["iou_maxeps"], atol=1e-12)
        size = len(z["pairwise_iou"])
        every = paired_iou(pred[:size, None].expand(-1, size, -1), target[None, :size].expand(size, -1, -1))
        np.testing.assert_allclose(every, z["pairwise_iou"], atol=1e-12)
        visited += len(pred)
    assert visited >= 50


def test_iou_arithmetic():
    """Boxes of side 10: 5 to the right, shared 50 of 150; the same; apart; both a point. IoU 1/3, 1, 0, 0.

    Losses 2/3, 0, 1, 1. Moving the first by dx to the right: d(-(100 - 10 s)/(100 + 10 s))/ds at shift s = 5 is
    2000 / 150^2 over 4 pairs, spread over x1 (outside the overlap's right end) and x2.
    """
    square, point = [0.0, 0, 10, 10], [3.0, 3, 3, 3]
    target = torch.tensor([square, square, square, point])
    pred = torch.tensor([[5.0, 0, 15, 10], square, [20, 0, 30, 10], point], requires_grad=True)
    loss = iou_loss(pred, target)
    loss.backward()
    assert loss.item() == pytest.approx((2 / 3 + 0 + 1 + 1) / 4)
    assert (pred.grad[0, 0] + pred.grad[0, 2]).item() == pytest.approx(2000 / 150**2 / 4)
    assert (pred.grad[2:] == 0).all()


def test_harmonic_iou_arithmetic():
    """IoU 1/3 and 0, gamma 1: (4/3 x 2/3 + 1) / 2 = 17/18. Gamma 0 is the IoU loss, (2/3 + 1) / 2."""
    target = torch.tensor([[0.0, 0, 10, 10]]).repeat(2, 1)
    pred = torch.tensor([[5.0, 0, 15, 10], [20, 0, 30, 10]])
    assert harmonic_iou_loss(pred, target, 1.0).item() == pytest.approx(17 / 18)
    assert harmonic_iou_loss(pred, target, 0.0).item() == iou_loss(pred, target).item() == pytest.approx(5 / 6)


def harmonic_slope(iou, gamma):
    iou = torch.as_tensor(iou, dtype=torch.float64).clone().requires_grad_()
    return torch.autograd.grad(harmonic_iou(iou, gamma).sum(), iou)[0]


@pytest.mark.parametrize("gamma", [-2.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 3.0])
def test_harmonic_iou_slope(gamma):
    """Supplement Eq. 12 and 13: (1 + u)^(gamma - 1) ((gamma - 1) - (gamma + 1) u), never positive on [0, 1] for
    gamma <= 1, and for gamma > 1 positive exactly below (gamma - 1)/(gamma + 1). gamma - 1 at 0, -2^gamma at 1."""
    iou = torch.linspace(0, 1, 101, dtype=torch.float64)
    slope = harmonic_slope(iou, gamma)
    torch.testing.assert_close(slope, (1 + iou) ** (gamma - 1) * ((gamma - 1) - (gamma + 1) * iou))
    assert slope[[0, -1]].tolist() == pytest.approx([gamma - 1, -(2**gamma)])
    if gamma <= 1:
        assert (slope <= 0).all()
    else:
        peak = (gamma - 1) / (gamma + 1)
        off_peak = (iou - peak).abs() > 1e-9
        assert ((slope > 0) == (iou < peak))[off_peak].all()
        assert harmonic_iou(torch.tensor(peak), gamma) > harmonic_iou(torch.tensor(0.0), gamma)


@pytest.mark.parametrize("gamma", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_harmonic_iou_is_concave(gamma):
    """The supplement's "upwards convex": the slope never rises with the IoU, for gamma in [0, 1]."""
    slope = harmonic_slope(torch.linspace(0, 1, 101, dtype=torch.float64), gamma)
    assert (slope.diff() <= 1e-15).all()


@pytest.mark.parametrize("gamma", [-1.0, 0.5, 1.0])
def test_harmonic_iou_gradient_of_boxes(gamma):
    """Finite differences, away from coinciding coordinates."""
    random = np.random.default_rng(0)
    target = torch.from_numpy(random.uniform(0, 10, (6, 2))).repeat(1, 2)
    target[:, 2:] += torch.from_numpy(random.uniform(4, 9, (6, 2)))
    pred = (target + torch.from_numpy(random.uniform(-1.5, 1.5, (6, 4)))).requires_grad_()
    assert torch.autograd.gradcheck(lambda boxes: harmonic_iou_loss(boxes, target, gamma), (pred,))


def test_harmonic_iou_module():
    inputs = loss_inputs(torch.zeros(1, 3, 1), [[[1], [0], [1]]])
    total, parts = HarmonicIoULoss(gamma=1.0, weight=3.0)(inputs)
    assert parts["box"].item() == harmonic_iou_loss(inputs.pred_boxes, inputs.target_boxes, 1.0).item() > 0
    assert total.item() == pytest.approx(3 * parts["box"].item())


@pytest.mark.parametrize("gamma", [1.001, float("inf"), float("nan"), -float("inf")])
def test_bad_gamma(gamma):
    boxes = torch.zeros(2, 4)
    with pytest.raises(ValueError, match=r"^gamma must be at most 1"):
        harmonic_iou_loss(boxes, boxes, gamma)
    with pytest.raises(ValueError, match=r"^gamma must be at most 1"):
        HarmonicIoULoss(gamma=gamma)


@pytest.mark.parametrize(("pred", "target"), [((2, 4), (3, 4)), ((2, 4), (4,)), ((2, 5), (2, 5)), ((), ())])
def test_boxes_must_be_alike(pred, target):
    with pytest.raises(ValueError, match=r"^pred and target must be \[\.\.\., 4\] alike"):
        iou_loss(torch.zeros(pred), torch.zeros(target))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_boxes_are_computed_in_float32(dtype):
    """Areas of 300 x 300 boxes do not fit into float16."""
    pred, target = torch.tensor([[0.0, 0, 300, 300]]).to(dtype), torch.tensor([[0.0, 0, 300, 150]]).to(dtype)
    assert iou_loss(pred, target).item() == 0.5
    assert iou_loss(pred, target).dtype == torch.float32


BOX_LOSSES = [SmoothL1Loss(weight=2.0), GIoULoss(weight=2.0), IoULoss(weight=2.0), HarmonicIoULoss(weight=2.0)]


@pytest.mark.parametrize("loss", BOX_LOSSES, ids=lambda loss: type(loss).__name__)
def test_no_positives_is_zero_with_a_gradient_path_to_the_deltas(loss):
    """The head's deltas of all anchors get a gradient of zeros, not none."""
    deltas = torch.randn(2, 5, 4, requires_grad=True)
    none = torch.zeros(0, 4)
    total, parts = loss(box_inputs(deltas.reshape(-1, 4)[torch.zeros(0, dtype=torch.int64)], none, none, none))
    total.backward()
    assert total.item() == parts["box"].item() == 0.0
    assert torch.equal(deltas.grad, torch.zeros_like(deltas))


@pytest.mark.parametrize("loss", BOX_LOSSES[1:], ids=lambda loss: type(loss).__name__)
def test_gradient_flows_through_decoded_boxes(loss):
    inputs = loss_inputs(torch.zeros(1, 3, 1), [[[1], [0], [1]]])
    loss(inputs).total.backward()
    assert (inputs.pred_deltas.grad > 0).all()


def test_bad_beta():
    with pytest.raises(ValueError, match=r"^beta must not be negative"):
        SmoothL1Loss(beta=-1.0)
