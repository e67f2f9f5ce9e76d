"""DETR's box loss: by hand, its parts, its weights, and batches without positives."""

import pytest
import torch

from rankdet.losses.inputs import LossInputs
from rankdet.losses.l1_giou import L1GIoULoss


def inputs(pred_deltas, target_deltas, pred_boxes, target_boxes) -> LossInputs:
    """Scores and labels are not looked at."""
    nothing = torch.zeros(0)
    return LossInputs(nothing, nothing, nothing, pred_deltas, target_deltas, pred_boxes, target_boxes)


def test_by_hand():
    """Distances 0.1 + 0.2 + 0 + 0.3 = 0.6 and 0, mean 0.3; GIoU 2/3 (IoU 80/120, its hull the union) and 1, mean loss
    1/6. 5 * 0.3 + 2 / 6; the gradient of a delta is 5 / 2 times its sign."""
    deltas = torch.tensor([[0.6, 0.3, 0.5, 0.8], [0.5, 0.5, 0.1, 0.1]], requires_grad=True)
    wanted = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.5, 0.5, 0.1, 0.1]])
    target = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10]])
    boxes = torch.tensor([[2.0, 0, 12, 10], [0, 0, 10, 10]])
    total, parts = L1GIoULoss()(inputs(deltas, wanted, boxes, target))
    assert {name: value.item() for name, value in parts.items()} == pytest.approx({"l1": 0.3, "giou": 1 / 6}, abs=1e-6)
    assert total.item() == pytest.approx(1.5 + 1 / 3)
    total.backward()
    torch.testing.assert_close(deltas.grad[0], torch.tensor([2.5, -2.5, 0, 2.5]))
    other, same = L1GIoULoss(1.0, 4.0, weight=3.0)(inputs(deltas, wanted, boxes, target))
    assert other.item() == pytest.approx(3 * (0.3 + 4 / 6))
    assert same == parts


def test_without_positives():
    """0, with a gradient path to the deltas."""
    deltas, none = torch.zeros(0, 4, requires_grad=True), torch.zeros(0, 4)
    total, parts = L1GIoULoss()(inputs(deltas, none, none, none))
    total.backward()
    assert total.item() == parts["l1"] == parts["giou"] == 0
    assert deltas.grad.shape == (0, 4)
