"""The structured hinge of AP: worked arithmetic, all rankings, the greedy twin, convexity and the upper bound."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import loss_inputs, split, value_and_gradient

from rankdet.losses.hinge import StructuredHingeAPLoss, structured_hinge_ap_loss


def ranking_error(ranking, labels):
    """1 - AP of a list of elements, best first."""
    hits, precisions = 0, []
    for place, i in enumerate(ranking, start=1):
        if labels[i] == 1:
            hits += 1
            precisions.append(hits / place)
    return 1 - np.mean(precisions)


def objective(ranking, scores, labels):
    """1 - AP(r) + <Psi(r) - Psi(r*)> with Psi as printed: the mean over pairs of y_ij (p_i - n_j)."""
    s, pos, neg = split(scores, labels)
    place = {i: at for at, i in enumerate(ranking)}
    psi = sum((1 if place[i] < place[j] else -1) * (s[i] - s[j]) for i in pos for j in neg)
    psi_best = sum(s[i] - s[j] for i in pos for j in neg)
    return ranking_error(ranking, labels) + (psi - psi_best) / (len(pos) * len(neg))


def greedy_twin(scores, labels):
    """Yue et al.: the negatives one after the other, best first, each at the place that pays most: O(P N)."""
    s, pos, neg = split(scores, labels)
    gradient = np.zeros_like(s)
    if len(pos) == 0 or len(neg) == 0:
        return 0.0, gradient
    pos, neg = sorted(pos, key=lambda i: -s[i]), sorted(neg, key=lambda j: -s[j])
    value, above = 0.0, np.zeros(len(pos))
    for number, j in enumerate(neg, start=1):
        sums = [0.0]  # of the gains at the last 0, 1, 2, ... positives
        for k in range(len(pos), 0, -1):
            gain = k / (k + number - 1) - k / (k + number) - 2 * (s[pos[k - 1]] - s[j]) / len(neg)
            sums.append(sums[-1] + gain / len(pos))
        count = int(np.argmax(sums))
        value += sums[count]
        above[len(pos) - count :] += 1
        gradient[j] = 2 * count / (len(pos) * len(neg))
    gradient[pos] = -2 * above / (len(pos) * len(neg))
    return value, gradient


def test_arithmetic_of_one_pair():
    """1 - AP of the swapped pair is 1/2, and the swap costs 2 (p - n): the loss is max(0, 1/2 - 2 (p - n)).

    p - n = 1/8: 1/4, pushed by 2 each. p - n = 1/4 + 1/8: 0.
    """
    value, gradient = value_and_gradient(structured_hinge_ap_loss, [0.125, 0.0], torch.tensor([1, 0]))
    assert value == 0.25
    assert gradient.tolist() == [-2, 2]
    value, gradient = value_and_gradient(structured_hinge_ap_loss, [0.375, 0.0], torch.tensor([1, 0]))
    assert value == 0
    assert gradient.tolist() == [0, 0]


def test_arithmetic_of_an_ignored_score_and_two_negatives():
    """Positive 0, negatives 0 and -0.2, one ignored. m negatives on top: 1 - 1/(1 + m) - (m 0 - sum of them).

    m = 0, 1, 2: 0, 1/2, 2/3 - 0.2 = 0.467. So m = 1: the positive is pushed by 2/2, and so is the upper negative.
    """
    value, gradient = value_and_gradient(structured_hinge_ap_loss, [-0.2, 9.0, 0.0, 0.0], torch.tensor([0, -1, 1, 0]))
    assert value == pytest.approx(0.5)
    assert gradient.tolist() == [0, 0, -1, 1]


def test_arithmetic_of_positives_that_only_pay_together():
    """Positives 0.2 and 0.2, negative 0: between them it gains 1 - 2/3 - 2 x 0.2 < 0 and is not worth it; above both
    precisions 1/2 and 2/3 cost 5/6 against 4 x 0.2, in all (5/6 - 0.8) / 2 = 1/60. Gradient -2/2 each, and 2."""
    value, gradient = value_and_gradient(structured_hinge_ap_loss, [0.2, 0.2, 0.0], torch.tensor([1, 1, 0]))
    assert value == pytest.approx(1 / 60)
    assert gradient.tolist() == [-1, -1, 2]


SIZES = [(1, 1), (1, 5), (5, 1), (2, 4), (3, 3), (4, 2)]


@pytest.mark.parametrize(("num_positives", "num_negatives"), SIZES)
def test_no_ranking_is_worse(num_positives, num_negatives):
    """The maximum over all orders of the scores, equal ones among them; and the gradient is that of a maximiser."""
    random = np.random.default_rng(num_positives)
    labels = np.array([1] * num_positives + [0] * num_negatives)
    for spread in (0.05, 0.3, 2.0):
        scores = random.normal(size=len(labels)).round(1) * spread
        value, gradient = value_and_gradient(structured_hinge_ap_loss, scores, torch.from_numpy(labels))
        rankings = list(itertools.permutations(range(len(labels))))
        values = np.array([objective(ranking, scores, labels) for ranking in rankings])
        assert value == pytest.approx(values.max(), abs=1e-12)
        near = [rankings[i] for i in np.flatnonzero(values > values.max() - 1e-12)]
        assert any(np.allclose(gradient, psi_gradient(ranking, labels)) for ranking in near)


def psi_gradient(ranking, labels):
    """The derivative of objective() by the scores."""
    one = np.eye(len(labels))
    base = objective(ranking, np.zeros(len(labels)), labels)
    return [objective(ranking, row, labels) - base for row in one]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("distance", [-3.0, 0.0, 2.0, 40.0])
@pytest.mark.parametrize(("num_positives", "num_negatives"), [(40, 400), (1, 1000), (300, 7), (65, 129)])
def test_equals_the_greedy_twin(num_positives, num_negatives, distance, dtype):
    random = np.random.default_rng(0)
    labels = torch.from_numpy(random.permutation([1] * num_positives + [0] * num_negatives + [-1] * 20))
    scores = (random.normal(size=len(labels)) + distance * (labels == 1).numpy()).astype(np.float32)
    loss, gradient = greedy_twin(scores, labels)
    value, computed = value_and_gradient(structured_hinge_ap_loss, scores, labels, dtype=dtype)
    assert value == pytest.approx(loss, abs=1e-10 if dtype == torch.float64 else 1e-6)
    np.testing.assert_allclose(computed, gradient, rtol=1e-12 if dtype == torch.float64 else 1e-6)


LEVELS = st.one_of(st.integers(-12, 12).map(lambda i: i / 4), st.floats(-3, 3), st.sampled_from([-1e4, 1e4]))


@st.composite
def problems(draw, max_size=20):
    """Two lists of scores, with ties, for the same labels, either side of which may be empty."""
    labels = draw(st.lists(st.sampled_from([1, 0, 0, -1]), max_size=max_size))
    scores = [draw(st.lists(LEVELS, min_size=len(labels), max_size=len(labels))) for _ in range(2)]
    return np.array(scores, dtype=np.float64), torch.tensor(labels, dtype=torch.int8)


@settings(max_examples=150, deadline=None)
@given(problem=problems(), share=st.floats(0, 1))
def test_value_subgradient_and_convexity(problem, share):
    """Equals its twin; the plane through a point lies below the loss everywhere; so does it below its own chords."""
    (scores, other), labels = problem
    value, gradient = value_and_gradient(structured_hinge_ap_loss, scores, labels)
    loss, _ = greedy_twin(scores, labels)
    elsewhere, _ = value_and_gradient(structured_hinge_ap_loss, other, labels)
    tolerance = 1e-10 * (1 + np.abs(scores).max(initial=0) + np.abs(other).max(initial=0))
    assert value == pytest.approx(loss, abs=tolerance)
    assert elsewhere >= value + gradient @ (other - scores) - tolerance
    between, _ = value_and_gradient(structured_hinge_ap_loss, share * scores + (1 - share) * other, labels)
    assert between <= share * value + (1 - share) * elsewhere + tolerance


@settings(max_examples=100, deadline=None)
@given(problem=problems())
def test_an_upper_bound_of_the_ranking_error(problem):
    """Of 1 - AP with ties at their worst, negatives first; the pushes on positives and negatives are equal."""
    (scores, _), labels = problem
    s, pos, neg = split(scores, labels)
    value, gradient = value_and_gradient(structured_hinge_ap_loss, scores, labels)
    if len(pos) and len(neg):
        ranking = sorted([*pos, *neg], key=lambda i: (-s[i], labels[i].item()))
        assert value >= ranking_error(ranking, labels.numpy()) - 1e-9
    assert value >= 0
    assert gradient[neg].sum() == pytest.approx(-gradient[pos].sum())
    assert (gradient[pos] <= 0).all()
    assert (gradient[neg] >= 0).all()
    assert (gradient[labels.numpy() == -1] == 0).all()


@settings(max_examples=50, deadline=None)
@given(problem=problems(), shift=st.integers(-8, 8), seed=st.integers(0, 99))
def test_shifts_and_order_do_not_matter(problem, shift, seed):
    """The gradient's order only without equal scores, among which one is pushed first."""
    (scores, _), labels = problem
    scores = np.clip(scores, -4, 4).round(3)
    value, gradient = value_and_gradient(structured_hinge_ap_loss, scores, labels)
    order = np.random.default_rng(seed).permutation(len(scores))
    shuffled, moved = value_and_gradient(structured_hinge_ap_loss, scores[order] + shift, labels[order])
    assert shuffled == pytest.approx(value, abs=1e-12)
    if len(set(scores)) == len(scores) and shift == 0:
        np.testing.assert_allclose(moved, gradient[order], atol=1e-15)


def test_all_equal_scores_cost_the_worst_ranking():
    """Psi is 0 for every ranking, so the worst is all 6 negatives first: AP = (1/7 + 2/8 + 3/9) / 3."""
    value, gradient = value_and_gradient(structured_hinge_ap_loss, np.full(9, 0.5), torch.tensor([1, 0, 0] * 3))
    assert value == pytest.approx(1 - (1 / 7 + 2 / 8 + 3 / 9) / 3)
    assert gradient == pytest.approx(np.where(np.arange(9) % 3 == 0, -2 / 3, 1 / 3))


@pytest.mark.parametrize("margin", [0.99, 1.01])
def test_zero_from_a_margin_of_a_quarter_of_the_negatives(margin):
    """The first inversion pays 1/2 to 1 (for k = 1: 1 - 1/2) against 2 (p - n) / N: nothing from p - n = N / 4 on."""
    scores = np.array([2.0 * margin] * 3 + [0.0] * 8)
    value, gradient = value_and_gradient(structured_hinge_ap_loss, scores, torch.tensor([1] * 3 + [0] * 8))
    assert value == 0 if margin > 1 else value >= 0
    only_first = value_and_gradient(structured_hinge_ap_loss, scores[2:], torch.tensor([1] + [0] * 8))[0]
    assert (only_first == 0) == (margin > 1)
    assert (gradient == 0).all() == (value == 0)


@pytest.mark.parametrize("labels", [[], [1, 1], [0, 0], [-1, -1], [1, -1]])
def test_one_side_empty_is_zero_with_a_gradient_path(labels):
    value, gradient = value_and_gradient(structured_hinge_ap_loss, np.ones(len(labels)), torch.tensor(labels).long())
    assert value == 0
    assert gradient.tolist() == [0] * len(labels)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32(dtype):
    random = np.random.default_rng(3)
    labels = torch.from_numpy(random.integers(-1, 2, 60))
    logits = torch.from_numpy(random.normal(size=60)).to(dtype).requires_grad_()
    loss = structured_hinge_ap_loss(logits, labels)
    loss.backward()
    full = logits.detach().float().requires_grad_()
    structured_hinge_ap_loss(full, labels).backward()
    assert loss.dtype == torch.float32
    assert torch.equal(logits.grad, full.grad.to(dtype))


def test_any_shape_and_upstream_gradient_and_given_positives():
    labels = torch.tensor([[1, 0, -1], [0, 1, 0]], dtype=torch.int8)
    logits = torch.linspace(-0.1, 0.1, 6, dtype=torch.float64).view(2, 3).requires_grad_()
    loss = structured_hinge_ap_loss(logits, labels, positives=torch.tensor([0, 4]))
    (3 * loss).backward()
    value, gradient = value_and_gradient(structured_hinge_ap_loss, logits.detach().reshape(-1), labels.reshape(-1))
    assert loss.item() == value
    np.testing.assert_allclose(logits.grad.reshape(-1), 3 * gradient)


@pytest.mark.parametrize(
    ("logits", "labels", "named"),
    [
        ([0.0, float("nan")], [1, 0], "logits"),
        ([0.0, float("inf")], [1, -1], "logits"),
        ([0.0, 1.0], [1, 2], "labels"),
        ([0.0, 1.0, 2.0], [1, 0], "labels"),
    ],
)
def test_bad_input(logits, labels, named):
    with pytest.raises(ValueError, match=f"^{named} must"):
        structured_hinge_ap_loss(torch.tensor(logits), torch.tensor(labels))


def test_one_graph_that_never_asks_the_device():
    """With the positives given: fullgraph=True refuses whatever waits for a value."""
    labels = torch.tensor([1, 0, -1, 0, 1, 0])
    logits = torch.linspace(-0.3, 0.3, 6, dtype=torch.float64, requires_grad=True)
    compiled = torch.compile(structured_hinge_ap_loss, backend="eager", fullgraph=True)
    loss = compiled(logits, labels, positives=torch.tensor([0, 4]))
    loss.backward()
    value, gradient = value_and_gradient(structured_hinge_ap_loss, logits.detach(), labels)
    assert loss.item() == value
    np.testing.assert_array_equal(logits.grad, gradient)


def test_descent_separates_what_can_be_separated():
    """Subgradient steps, each scaled to the value at hand (Polyak), from a wrong order to a loss below 1e-3."""
    labels = torch.tensor([0, 1, 0, 1, 0, 0])
    logits = torch.tensor([3.0, -2, 1, 0, 2, -1], dtype=torch.float64, requires_grad=True)
    for _ in range(200):
        loss = structured_hinge_ap_loss(logits, labels)
        if loss.item() < 1e-3:
            break
        (gradient,) = torch.autograd.grad(loss, logits)
        with torch.no_grad():
            logits -= loss / gradient.square().sum() * gradient
    assert loss.item() < 1e-3
    assert logits[labels == 1].min() > logits[labels == 0].max()


def test_module_uses_the_function():
    logits, labels = torch.randn(2, 6, 3, requires_grad=True), torch.randint(-1, 2, (2, 6, 3), dtype=torch.int8)
    loss = StructuredHingeAPLoss(weight=2.0)
    total, parts = loss(loss_inputs(logits, labels))
    torch.testing.assert_close(parts, {"hinge": structured_hinge_ap_loss(logits, labels).detach()})
    torch.testing.assert_close(total.detach(), 2 * parts["hinge"])
    assert total.requires_grad
    assert loss.num_channels(3) == 3
