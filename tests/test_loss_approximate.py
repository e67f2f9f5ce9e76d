"""Smoothed AP-loss against autograd of its dense form, worked arithmetic and Appendix 2's numbers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import loss_inputs, value_and_gradient

from rankdet.losses.approximate import SmoothedAPLoss, smoothed_ap_loss


def dense_loss(logits, labels, k=1.0, log_eps=None):
    """The value over the full matrix of pairs; autograd gives its gradient."""
    pos, neg = logits[labels == 1], logits[labels == 0]
    among = ((pos - pos[:, None]) / k).sigmoid()
    rank_pos = 1 + among.sum(1) - among.diagonal()
    ap = (rank_pos / (rank_pos + ((neg - pos[:, None]) / k).sigmoid().sum(1))).mean()
    return 1 - ap if log_eps is None else -(ap + log_eps).log()


def test_arithmetic():
    """Positive and negative at 0: AP = 1 / (3/2); f'(0) = 1/4, so dAP/dn = -(1 / (9/4)) / 4 = -1/9 and dAP/dp = 1/9.

    The log objective divides both by AP + eps = 2/3 + 1/3 = 1.
    """
    labels = torch.tensor([1, 0])
    value, gradient = value_and_gradient(smoothed_ap_loss, [0.0, 0.0], labels)
    assert value == pytest.approx(1 / 3, abs=1e-15)
    np.testing.assert_allclose(gradient, [-1 / 9, 1 / 9], atol=1e-15)
    value, gradient = value_and_gradient(smoothed_ap_loss, [0.0, 0.0], labels, log_eps=1 / 3)
    assert value == pytest.approx(0, abs=1e-15)
    np.testing.assert_allclose(gradient, [-1 / 9, 1 / 9], atol=1e-15)


def test_appendix_2():
    """Negative 0, positives theta1 and theta2 - 3 theta1: at theta = (2, 1) the slopes are -0.03968 and -0.00073."""
    theta = torch.tensor([2.0, 1.0], dtype=torch.float64, requires_grad=True)
    features = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-3.0, 1.0]], dtype=torch.float64)
    smoothed_ap_loss(features @ theta, torch.tensor([0, 1, 1])).backward()
    np.testing.assert_allclose(theta.grad, [-0.03968, -0.00073], atol=5e-6)


LEVELS = st.one_of(st.integers(-12, 12).map(lambda i: i / 4), st.floats(-3, 3, width=32), st.sampled_from([-1e4, 1e4]))


@settings(max_examples=120, deadline=None)
@given(
    cases=st.lists(st.tuples(LEVELS, st.sampled_from([1, 0, 0, -1])), max_size=24),
    k=st.sampled_from([0.25, 1.0, 2.0]),
    log_eps=st.sampled_from([None, 1e-3, 0.5]),
)
def test_equals_its_twin(cases, k, log_eps):
    scores, labels = [s for s, _ in cases], torch.tensor([y for _, y in cases], dtype=torch.int8)
    if (labels == 1).any():
        expected, expected_gradient = value_and_gradient(dense_loss, scores, labels, k, log_eps)
    else:
        expected, expected_gradient = 0.0, np.zeros(len(scores))
    for dtype, atol in ((torch.float64, 1e-10), (torch.float32, 1e-6)):
        value, gradient = value_and_gradient(smoothed_ap_loss, scores, labels, k, log_eps, dtype=dtype)
        assert value == pytest.approx(expected, abs=atol)
        np.testing.assert_allclose(gradient, expected_gradient, atol=atol)


def test_many_scores_equal_the_twin():
    """30 000 scores, so that the sums go through bins."""
    generator = torch.Generator().manual_seed(1)
    scores, labels = (
        torch.randn(30_000, generator=generator, dtype=torch.float64),
        torch.zeros(30_000, dtype=torch.int8),
    )
    labels[::300] = 1
    expected = value_and_gradient(dense_loss, scores, labels)
    for dtype, rtol in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        value, gradient = value_and_gradient(smoothed_ap_loss, scores, labels, dtype=dtype)
        assert value == pytest.approx(expected[0], rel=rtol)
        np.testing.assert_allclose(gradient, expected[1], atol=rtol * np.abs(expected[1]).max())


def test_bad_arguments_are_named():
    logits, labels = torch.zeros(2), torch.tensor([1, 0])
    with pytest.raises(ValueError, match=r"^k must"):
        smoothed_ap_loss(logits, labels, k=0.0)
    for make in (lambda: smoothed_ap_loss(logits, labels, log_eps=0.0), lambda: SmoothedAPLoss(log_eps=-1.0)):
        with pytest.raises(ValueError, match=r"^log_eps must"):
            make()


def test_module_passes_its_arguments_on():
    """The log objective of AP 2/3 with eps 1/3 is 0; with the module's weight 2 and k = 1 its total is 0 too."""
    logits, labels = torch.zeros(1, 2, 1, requires_grad=True), torch.tensor([[[1], [0]]], dtype=torch.int8)
    total, parts = SmoothedAPLoss(log_eps=None, weight=2.0)(loss_inputs(logits, labels))
    assert total.item() == pytest.approx(2 / 3)
    assert parts["smoothed_ap"].item() == pytest.approx(1 / 3)
    assert SmoothedAPLoss()(loss_inputs(logits, labels)).total.item() == pytest.approx(-math.log(2 / 3 + 1e-3))
