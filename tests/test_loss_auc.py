"""AUC-loss against worked arithmetic, the full matrix of pairs and the rank statistic it tends to."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import auc_twin, loss_inputs, value_and_gradient

from rankdet.losses.auc import AUCLoss, auc_loss


def test_arithmetic():
    """Positives 0 and 2, negatives 0, 1 and -5, delta 1: f = 1/2, 1, 0 for the first, 0, 0, 0 for the second.

    Loss (1/2 + 1) / 6 = 1/4; gradient of the positives -1/4 and 0, of the negatives 1/12, 1/6 and 0.
    """
    value, gradient = value_and_gradient(auc_loss, [0.0, 2.0, 0.0, 1.0, -5.0], torch.tensor([1, 1, 0, 0, 0]))
    assert value == pytest.approx(1 / 4)
    np.testing.assert_allclose(gradient, [-1 / 4, 0, 1 / 12, 1 / 6, 0], atol=1e-15)


LEVELS = st.one_of(st.integers(-12, 12).map(lambda i: i / 4), st.floats(-3, 3, width=32), st.sampled_from([-1e4, 1e4]))


@settings(max_examples=80, deadline=None)
@given(
    cases=st.lists(st.tuples(LEVELS, st.sampled_from([1, 0, 0, -1])), max_size=24),
    delta=st.sampled_from([0.25, 0.3, 1.0, 4.0]),
    shift=st.integers(-400, 400),
)
def test_equals_its_twin_and_ignores_a_shift(cases, delta, shift):
    scores, labels = np.array([s for s, _ in cases]), torch.tensor([y for _, y in cases], dtype=torch.int8)
    loss, gradient = auc_twin(scores, labels, delta)
    for dtype, atol in ((torch.float64, 1e-10), (torch.float32, 1e-6)):
        value, computed = value_and_gradient(auc_loss, scores, labels, delta, dtype=dtype)
        assert abs(value - loss) <= atol
        np.testing.assert_allclose(computed, gradient, atol=atol)
    if np.abs(scores).max(initial=0) < 100:
        assert value_and_gradient(auc_loss, scores + shift / 4, labels, delta)[0] == pytest.approx(loss, abs=1e-10)
    assert gradient.sum() == pytest.approx(0, abs=1e-10)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), ties=st.booleans())
def test_small_delta_tends_to_the_rank_statistic(seed, ties):
    """1 - AUC from average ranks: AUC = (sum of the positives' ranks - P (P + 1) / 2) / (P N), ties at mean rank."""
    random = np.random.default_rng(seed)
    scores = random.integers(0, 8, 60) / 4 if ties else random.normal(size=60).round(4)
    labels = np.array([1] * 12 + [0] * 48)
    ranks = np.array([(scores < s).sum() + ((scores == s).sum() + 1) / 2 for s in scores])
    auc = (ranks[labels == 1].sum() - 12 * 13 / 2) / (12 * 48)
    value, _ = value_and_gradient(auc_loss, scores, torch.from_numpy(labels), 1e-5)
    assert value == pytest.approx(1 - auc, abs=1e-9)


@pytest.mark.parametrize("labels", [[0, 0], [1, 1], [-1, 0], [-1, -1]])
def test_an_empty_side_is_zero_with_a_gradient_path(labels):
    value, gradient = value_and_gradient(auc_loss, [1.0, 2.0], torch.tensor(labels))
    assert value == 0
    assert gradient.tolist() == [0, 0]


def test_bad_delta():
    for build in (lambda: auc_loss(torch.zeros(2), torch.tensor([1, 0]), 0.0), lambda: AUCLoss(delta=-1.0)):
        with pytest.raises(ValueError, match=r"^delta must be"):
            build()


def test_module_passes_its_arguments_on():
    logits, labels = torch.randn(2, 6, 3, requires_grad=True), torch.randint(-1, 2, (2, 6, 3), dtype=torch.int8)
    total, parts = AUCLoss(delta=0.5, weight=3.0)(loss_inputs(logits, labels))
    torch.testing.assert_close(parts, {"auc": auc_loss(logits, labels, 0.5).detach()})
    torch.testing.assert_close(total.detach(), 3 * parts["auc"])
    assert total.requires_grad
