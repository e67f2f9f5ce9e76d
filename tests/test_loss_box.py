"""Box losses: worked arithmetic, golden GIoU, and batches without positives."""

import numpy as np
import pytest
import torch
from reference import golden_files, loss_inputs

from rankdet.losses.box import GIoULoss, SmoothL1Loss
from rankdet.losses.inputs import LossInputs


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


def test_giou_golden():
    """Value and, where coordinates do not coincide, gradient of the mean over the boxes of all files."""
    visited = 0
    for file in golden_files("boxes"):
        z = np.load(file)
        target, usable = torch.from_numpy(z["gt"]).double(), z["grad_comparable"]
        for i, box in enumerate(z["pred"]):
            pred = torch.tensor(box[None], dtype=torch.float64, requires_grad=True)
            total, _ = GIoULoss()(box_inputs(torch.zeros(1, 4), torch.zeros(1, 4), pred, target[i : i + 1]))
            total.backward()
            assert total.item() == pytest.approx(z["giou_loss_eps1e-7"][i], abs=1e-6), (file.name, z["kind"][i])
            if usable[i]:
                np.testing.assert_allclose(pred.grad[0], z["grad_giou_loss_eps1e-7"][i], atol=1e-6, rtol=1e-6)
            visited += 1
    assert visited >= 50


@pytest.mark.parametrize("loss", [SmoothL1Loss(weight=2.0), GIoULoss(weight=2.0)], ids=["smooth_l1", "giou"])
def test_no_positives_is_zero_with_a_gradient_path_to_the_deltas(loss):
    """The head's deltas of all anchors get a gradient of zeros, not none."""
    deltas = torch.randn(2, 5, 4, requires_grad=True)
    none = torch.zeros(0, 4)
    total, parts = loss(box_inputs(deltas.reshape(-1, 4)[torch.zeros(0, dtype=torch.int64)], none, none, none))
    total.backward()
    assert total.item() == parts["box"].item() == 0.0
    assert torch.equal(deltas.grad, torch.zeros_like(deltas))


def test_gradient_flows_through_decoded_boxes():
    inputs = loss_inputs(torch.zeros(1, 3, 1), [[[1], [0], [1]]])
    GIoULoss()(inputs).total.backward()
    assert (inputs.pred_deltas.grad > 0).all()


def test_bad_beta():
    with pytest.raises(ValueError, match=r"^beta must not be negative"):
        SmoothL1Loss(beta=-1.0)
