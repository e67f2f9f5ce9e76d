"""Focal loss against its closed form, with ignored scores and without positives."""

import math

import numpy as np
import pytest
import torch
from reference import loss_inputs, value_and_gradient

from rankdet.losses.focal import FocalLoss, focal_loss


def test_arithmetic():
    """All logits 0, so p = 1/2 everywhere: a positive costs 1/4 (1/2)^2 log 2, a negative 3/4 (1/2)^2 log 2.

    One positive, three negatives, one ignored: (1/4 + 9/4) / 4 log 2 = 0.625 log 2, over one positive.
    """
    value, gradient = value_and_gradient(focal_loss, np.zeros(5), torch.tensor([1, 0, 0, 0, -1]))
    assert value == pytest.approx(0.625 * math.log(2))
    assert gradient[4] == 0


def closed_form(logits, labels, alpha, gamma):
    total = 0.0
    for x, y in zip(logits.reshape(-1).tolist(), labels.reshape(-1).tolist(), strict=True):
        p = 1 / (1 + math.exp(-x))
        if y == 1:
            total -= alpha * (1 - p) ** gamma * math.log(p)
        elif y == 0:
            total -= (1 - alpha) * p**gamma * math.log(1 - p)
    return total / max(1, int((labels == 1).sum()))


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.25, 1.0), (0.5, 0.0)])
def test_closed_form_and_derivative(alpha, gamma):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 7, 3, generator=generator, dtype=torch.float64).requires_grad_()
    labels = torch.randint(-1, 2, (2, 7, 3), generator=generator, dtype=torch.int8)
    assert focal_loss(logits, labels, alpha, gamma).item() == pytest.approx(closed_form(logits, labels, alpha, gamma))
    assert torch.autograd.gradcheck(lambda x: focal_loss(x, labels, alpha, gamma), logits)


def test_without_positives_the_negatives_sum_stays_undivided():
    labels = torch.tensor([0, 0, -1])
    value, gradient = value_and_gradient(focal_loss, np.zeros(3), labels)
    assert value == pytest.approx(2 * 0.75 * 0.25 * math.log(2))
    assert (gradient[:2] > 0).all()


def test_all_ignored_is_zero_with_a_gradient_path():
    value, gradient = value_and_gradient(focal_loss, np.array([1e4, -1e4]), torch.tensor([-1, -1]))
    assert value == 0
    assert gradient.tolist() == [0, 0]


def test_half_types_are_summed_in_float32():
    """70 000 negatives at 0 cost 0.75 / 4 log 2 each: 9 097, of which a float16 sum would keep three digits."""
    loss = focal_loss(torch.zeros(70_000, dtype=torch.float16), torch.zeros(70_000, dtype=torch.int8))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(70_000 * 0.75 / 4 * math.log(2), rel=1e-5)


def test_module_passes_its_arguments_on():
    logits, labels = torch.randn(2, 6, 3, requires_grad=True), torch.randint(-1, 2, (2, 6, 3), dtype=torch.int8)
    total, parts = FocalLoss(alpha=0.5, gamma=1.0, weight=3.0)(loss_inputs(logits, labels))
    torch.testing.assert_close(parts, {"focal": focal_loss(logits, labels, 0.5, 1.0).detach()})
    torch.testing.assert_close(total.detach(), 3 * parts["focal"])
    assert total.requires_grad
    for bad in ({"gamma": -1.0}, {"alpha": 1.5}):
        with pytest.raises(ValueError, match=f"^{next(iter(bad))} must"):
            FocalLoss(**bad)
