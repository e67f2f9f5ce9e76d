"""Binary cross entropy against its arithmetic, the focal loss that it is a case of, and edges."""

import math

import numpy as np
import pytest
import torch
from reference import loss_inputs, value_and_gradient

from rankdet.losses.binary_cross_entropy import BinaryCrossEntropyLoss, binary_cross_entropy_loss
from rankdet.losses.focal import focal_loss


def test_arithmetic():
    """A positive at log 3 (p = 3/4), negatives at 0 (1/2) and log 3, one left out: -log(3/4 x 1/2 x 1/4) / 3."""
    logits = np.array([math.log(3), 0, math.log(3), 9])
    value, gradient = value_and_gradient(binary_cross_entropy_loss, logits, torch.tensor([1, 0, 0, -1]))
    assert value == pytest.approx(-math.log(3 / 4 * 1 / 2 * 1 / 4) / 3)
    np.testing.assert_allclose(gradient, [-1 / 12, 1 / 6, 1 / 4, 0])


def test_focal_loss_without_focus_is_the_same_sum():
    """Focal loss with gamma 0 and no alpha divides by the positives, this one by all that take part."""
    logits = torch.randn(2, 30, 3, dtype=torch.float64)
    labels = torch.randint(-1, 2, (2, 30, 3), dtype=torch.int8)
    ours = binary_cross_entropy_loss(logits, labels) * (labels >= 0).sum()
    torch.testing.assert_close(ours, focal_loss(logits, labels, alpha=-1.0, gamma=0.0) * (labels == 1).sum())


def test_edges():
    """No positives: the negatives' mean. None that takes part, or none at all: 0 with a gradient path."""
    assert value_and_gradient(binary_cross_entropy_loss, np.zeros(3), torch.tensor([0, 0, -1]))[0] == math.log(2)
    value, gradient = value_and_gradient(binary_cross_entropy_loss, np.array([1e4, -1e4]), torch.tensor([-1, -1]))
    assert value == 0
    assert gradient.tolist() == [0, 0]
    empty = binary_cross_entropy_loss(torch.zeros(0, 1, requires_grad=True), torch.zeros(0, 1, dtype=torch.int8))
    assert empty.item() == 0
    assert empty.requires_grad


def test_large_logits_and_half_types():
    """A positive at -100 costs 100; 70 000 negatives of log 2 each overflow no float16."""
    assert binary_cross_entropy_loss(torch.tensor([-100.0]), torch.tensor([1])).item() == 100
    loss = binary_cross_entropy_loss(torch.zeros(70_000, dtype=torch.float16), torch.zeros(70_000, dtype=torch.int8))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(2), rel=1e-5)


def test_module():
    logits, labels = torch.randn(2, 6, 1, requires_grad=True), torch.randint(-1, 2, (2, 6, 1), dtype=torch.int8)
    total, parts = BinaryCrossEntropyLoss(weight=3.0)(loss_inputs(logits, labels))
    torch.testing.assert_close(parts, {"bce": binary_cross_entropy_loss(logits, labels).detach()})
    torch.testing.assert_close(total.detach(), 3 * parts["bce"])
    assert total.requires_grad
    assert BinaryCrossEntropyLoss().num_channels(1) == 1


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"^labels must have the shape of logits"):
        binary_cross_entropy_loss(torch.zeros(2, 6, 2), torch.zeros(2, 6, 1, dtype=torch.int8))
