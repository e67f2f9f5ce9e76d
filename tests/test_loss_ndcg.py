"""nDCG-loss: worked arithmetic, its formula pair by pair, and 1 - nDCG on separated scores."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import loss_inputs, split, step_value, value_and_gradient

from rankdet.losses.ndcg import NDCGLoss, ndcg_loss


def test_arithmetic():
    """Positives at 4 and 0, negative at 2, delta 1: R is 1 and 2, the lower's rank 3. Z = 1 + 1 / log2(3).

    Lost: 1 / log2(3) - 1 / log2(4) of Z. It is pushed up onto the lower positive and down onto the negative.
    """
    loss = (1 / math.log2(3) - 1 / 2) / (1 + 1 / math.log2(3))
    value, gradient = value_and_gradient(ndcg_loss, [4.0, 0.0, 2.0], torch.tensor([1, 1, 0]))
    assert value == pytest.approx(loss, abs=1e-15)
    np.testing.assert_allclose(gradient, [0, -loss, loss], atol=1e-15)


def test_arithmetic_of_ties():
    """A positive and two negatives, all 0: R = 1, F = 1/2 + 1/2, rank 2: 1 - 1 / log2(3), half onto each negative."""
    loss = 1 - 1 / math.log2(3)
    value, gradient = value_and_gradient(ndcg_loss, [0.0, 0.0, 0.0], torch.tensor([1, 0, 0]))
    assert value == pytest.approx(loss)
    np.testing.assert_allclose(gradient, [-loss, loss / 2, loss / 2], atol=1e-15)


def ndcg_twin(scores, labels, delta):
    """Value and gradient, pair by pair: l_i = 1/log2(1 + R_i) - 1/log2(1 + rank_i), Z the gain of the ranks 1 .. P."""
    s, pos, neg = split(scores, labels)
    normaliser = sum(1 / math.log2(1 + r) for r in range(1, len(pos) + 1))
    value, gradient = 0.0, np.zeros_like(s)
    for i in pos:
        above = np.array([step_value(s[j] - s[i], "linear", delta) for j in neg])
        rank_pos = 1 + sum(step_value(s[k] - s[i], "linear", delta) for k in pos if k != i)
        error = (1 / math.log2(1 + rank_pos) - 1 / math.log2(1 + rank_pos + above.sum())) / normaliser
        value += error
        if above.sum() > 0:
            gradient[i] -= error
            gradient[neg] += error * above / above.sum()
    return value, gradient


LEVELS = st.one_of(st.integers(-12, 12).map(lambda i: i / 4), st.floats(-3, 3, width=32), st.sampled_from([-1e4, 1e4]))


@settings(max_examples=100, deadline=None)
@given(
    cases=st.lists(st.tuples(LEVELS, st.sampled_from([1, 0, 0, -1])), max_size=24),
    delta=st.sampled_from([0.25, 0.3, 1.0, 4.0]),
    shift=st.integers(-400, 400),
)
def test_equals_its_twin_ignores_a_shift_and_is_balanced(cases, delta, shift):
    scores, labels = np.array([s for s, _ in cases]), torch.tensor([y for _, y in cases], dtype=torch.int8)
    loss, gradient = ndcg_twin(scores, labels, delta)
    for dtype, atol in ((torch.float64, 1e-10), (torch.float32, 1e-6)):
        value, computed = value_and_gradient(ndcg_loss, scores, labels, delta, dtype=dtype)
        assert abs(value - loss) <= atol
        np.testing.assert_allclose(computed, gradient, atol=atol)
    shifted = value_and_gradient(ndcg_loss, scores + shift / 4, labels, delta)[0]
    assert shifted == pytest.approx(loss, abs=1e-9)  # the step is continuous: a shift that rounds changes little
    assert gradient[labels.numpy() == 0].sum() == pytest.approx(loss, abs=1e-10)
    assert gradient[labels.numpy() == 1].sum() == pytest.approx(-loss, abs=1e-10)


@settings(max_examples=40, deadline=None)
@given(labels=st.lists(st.sampled_from([1, 0]), min_size=1, max_size=40), seed=st.integers(0, 99))
def test_is_one_minus_ndcg_on_separated_scores(labels, seed):
    """DCG = sum of 1 / log2(1 + place) over the relevant, divided by what it is with all of them first."""
    scores = np.random.default_rng(seed).permutation(len(labels)) * 2.0
    places = len(labels) - scores / 2
    relevant = np.array(labels) == 1
    dcg = (1 / np.log2(1 + places))[relevant].sum()
    ideal = (1 / np.log2(1 + np.arange(1, relevant.sum() + 1))).sum()
    value, _ = value_and_gradient(ndcg_loss, scores, torch.tensor(labels))
    assert value == pytest.approx(1 - dcg / ideal if relevant.any() else 0, abs=1e-12)


@pytest.mark.parametrize("labels", [[], [0, 0], [1, 1], [-1, 0], [-1, 1]])
def test_an_empty_side_is_zero_with_a_gradient_path(labels):
    value, gradient = value_and_gradient(ndcg_loss, [1.0, 2.0][: len(labels)], torch.tensor(labels, dtype=torch.int8))
    assert value == 0
    assert gradient.tolist() == [0] * len(labels)


def test_bad_delta():
    for build in (lambda: ndcg_loss(torch.zeros(2), torch.tensor([1, 0]), 0.0), lambda: NDCGLoss(delta=-1.0)):
        with pytest.raises(ValueError, match=r"^delta must be"):
            build()


def test_module_passes_its_arguments_on():
    logits, labels = torch.randn(2, 6, 3, requires_grad=True), torch.randint(-1, 2, (2, 6, 3), dtype=torch.int8)
    total, parts = NDCGLoss(delta=0.5, weight=3.0)(loss_inputs(logits, labels))
    torch.testing.assert_close(parts, {"ndcg": ndcg_loss(logits, labels, 0.5).detach()})
    torch.testing.assert_close(total.detach(), 3 * parts["ndcg"])
    assert total.requires_grad
