"""Softmax cross entropy against its arithmetic, PyTorch's and edges."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference import loss_inputs, value_and_gradient

from rankdet.losses.ce_ohem import ce_ohem_loss
from rankdet.losses.cross_entropy import CrossEntropyLoss, cross_entropy_loss


def test_arithmetic():
    """Channels (object, background); anchors: 1 positive, 2 negatives, 1 that takes no part.

    Object logits log 3, 0, log 3 and 9, background 0: p(object) of the positive is 3/4, p(background) of the negatives
    1/2 and 1/4: loss -log(3/4 x 1/2 x 1/4) / 3. A logit's gradient is (p - 1 or 0) / 3.
    """
    logits = torch.tensor([[[math.log(3), 0], [0, 0], [math.log(3), 0], [9, 0]]])
    labels = torch.tensor([[[1], [0], [0], [-1]]])
    value, gradient = value_and_gradient(cross_entropy_loss, logits, labels, dtype=torch.float32)
    assert value == pytest.approx(-math.log(3 / 4 * 1 / 2 * 1 / 4) / 3, rel=1e-6)
    expected = [[-1 / 12, 1 / 12], [1 / 6, -1 / 6], [1 / 4, -1 / 4], [0, 0]]
    np.testing.assert_allclose(gradient.reshape(4, 2), expected, atol=1e-6)


def test_of_several_classes():
    """Anchors of class 2, of background (3), of class 0, and one left out: PyTorch's mean of the first three."""
    logits = torch.randn(2, 2, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[[0, 0, 1], [0, 0, 0]], [[1, 0, 0], [-1, -1, -1]]])
    loss = cross_entropy_loss(logits, labels)
    expected = F.cross_entropy(logits.reshape(4, 4)[:3], torch.tensor([2, 3, 0]))
    torch.testing.assert_close(loss, expected)
    ours, theirs = (torch.autograd.grad(value, logits)[0] for value in (loss, expected))
    torch.testing.assert_close(ours, theirs)
    assert (ours[1, 1] == 0).all()


def test_without_a_choice_ohem_is_the_same_sum():
    """Hard negatives at 1000 for each positive are all: the same sum, over the positives instead of all anchors."""
    logits = torch.randn(2, 20, 4, dtype=torch.float64)
    labels = torch.zeros(2, 20, 3, dtype=torch.int8)
    labels[:, 3, 1] = labels[:, 9, 0] = 1
    labels[1, 5] = -1
    torch.testing.assert_close(cross_entropy_loss(logits, labels) * 39, ce_ohem_loss(logits, labels, 1000.0) * 4)


def test_edges():
    """No positives: the negatives' mean, log 2 for equal logits of two channels. None that takes part, or none at all:
    0 with a gradient path."""
    value, gradient = value_and_gradient(cross_entropy_loss, np.zeros((1, 3, 2)), torch.tensor([[[0], [0], [-1]]]))
    assert value == pytest.approx(math.log(2))
    assert (gradient.reshape(3, 2)[:2, 0] > 0).all()
    value, gradient = value_and_gradient(cross_entropy_loss, np.ones((1, 2, 3)), torch.full((1, 2, 2), -1))
    assert value == 0
    assert not gradient.any()
    empty = cross_entropy_loss(torch.zeros(2, 0, 3, requires_grad=True), torch.zeros(2, 0, 2, dtype=torch.int8))
    assert empty.item() == 0
    assert empty.requires_grad


def test_half_types_are_computed_in_float32():
    """70 000 anchors at log 2 each: the sum overflows a float16."""
    loss = cross_entropy_loss(torch.zeros(1, 70_000, 2, dtype=torch.float16), torch.zeros(1, 70_000, 1).char())
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(2), rel=1e-5)


def test_module():
    logits, labels = torch.randn(2, 6, 4, requires_grad=True), torch.randint(-1, 1, (2, 6, 3), dtype=torch.int8)
    labels[0, 0] = torch.tensor([0, 1, 0])
    total, parts = CrossEntropyLoss(weight=3.0)(loss_inputs(logits, labels))
    torch.testing.assert_close(parts, {"ce": cross_entropy_loss(logits, labels).detach()})
    torch.testing.assert_close(total.detach(), 3 * parts["ce"])
    assert total.requires_grad
    loss = CrossEntropyLoss()
    assert loss.num_channels(20) == 21
    torch.testing.assert_close(loss.probabilities(loss.prior_bias(20, 0.01)), torch.full((20,), 0.01))


@pytest.mark.parametrize("shape", [(2, 6, 3), (2, 5, 4), (1, 6, 4), (12, 4)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"^logits must be"):
        cross_entropy_loss(torch.zeros(shape), torch.zeros(2, 6, 3, dtype=torch.int8))
