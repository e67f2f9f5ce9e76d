"""AP-loss against the authors' numbers, worked arithmetic, Algorithm 1 written pair by pair, and its invariances."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import ap_twin, golden_files, loss_inputs, value_and_gradient

from rankdet.losses.ap import APLoss, ap_loss

# golden README: loss absolute, gradient absolute, gradient relative to its largest element
TOLERANCES = {torch.float64: (1e-10, 1e-12, 1e-9), torch.float32: (1e-6, 1e-8, 2e-5)}


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_golden(dtype):
    """Every file, delta and interpolation: loss, gradient, its sums over both sides and its norm, and exact zeros."""
    loss_atol, grad_atol, grad_rtol = TOLERANCES[dtype]
    visited = expected = 0
    for file in golden_files("aploss"):
        z = np.load(file)
        labels = torch.from_numpy(z["labels"])
        flat = z["labels"].reshape(-1)
        expected += z["loss"].size
        for (i, j), loss in np.ndenumerate(z["loss"]):
            case = f"{file.name} delta {z['deltas'][i]} interpolated {z['interpolated'][j]}"
            value, gradient = value_and_gradient(
                ap_loss, z["logits"], labels, float(z["deltas"][i]), bool(z["interpolated"][j]), dtype=dtype
            )
            assert abs(value - loss) <= loss_atol, case
            tolerance = grad_atol + grad_rtol * np.abs(z["grad"][i, j]).max()
            assert np.abs(gradient[z["grad_idx"]] - z["grad"][i, j]).max() <= tolerance, case
            assert (gradient[flat == -1] == 0).all(), case
            for name, total in (("pos", gradient[flat == 1].sum()), ("neg", gradient[flat == 0].sum())):
                assert abs(total - z[f"grad_sum_{name}"][i, j]) <= max(loss_atol, grad_rtol), case
            assert abs(np.linalg.norm(gradient) - z["grad_l2"][i, j]) <= max(loss_atol, grad_rtol), case
            visited += 1
    assert visited == expected >= 10


def test_arithmetic():
    """Positives at 4 and 0, negative at 2, delta 1: neither difference to the negative is smaller than delta.

    Ranks 1 and 3, precisions 1 and 2/3, loss (0 + 1/3) / 2 = 1/6. The second positive's error 1/3 goes to the one
    negative above it, so the gradient is (0, -1/6, +1/6). All three steps agree but the sigmoid.
    """
    for step in ("linear", "heaviside"):
        value, gradient = value_and_gradient(ap_loss, [4.0, 0.0, 2.0], torch.tensor([1, 1, 0]), step=step)
        assert value == pytest.approx(1 / 6, abs=1e-15)
        np.testing.assert_allclose(gradient, [0, -1 / 6, 1 / 6], atol=1e-15)


def test_arithmetic_of_interpolation():
    """Positives at 0 and 10, negative at 20: ranks 3 and 2, precisions 2/3 and 1/2, loss (1/3 + 1/2) / 2 = 5/12.

    Interpolated, the upper positive takes over the lower one's 2/3: loss (1/3 + 1/3) / 2 = 1/3, gradient
    (-1/6, -1/6, +1/3) in place of (-1/6, -1/4, +5/12).
    """
    labels = torch.tensor([1, 1, 0])
    value, gradient = value_and_gradient(ap_loss, [0.0, 10.0, 20.0], labels, interpolate=False)
    assert value == pytest.approx(5 / 12)
    np.testing.assert_allclose(gradient, [-1 / 6, -1 / 4, 5 / 12], atol=1e-15)
    value, gradient = value_and_gradient(ap_loss, [0.0, 10.0, 20.0], labels)
    assert value == pytest.approx(1 / 3)
    np.testing.assert_allclose(gradient, [-1 / 6, -1 / 6, 1 / 3], atol=1e-15)


def test_arithmetic_of_ties():
    """One positive and one negative, both 0: f(0) is 1/2, so rank 3/2 and loss 1/3; hard, f(0) = 1: rank 2, 1/2."""
    labels = torch.tensor([1, 0])
    for step, loss in (("linear", 1 / 3), ("sigmoid", 1 / 3), ("heaviside", 1 / 2)):
        value, gradient = value_and_gradient(ap_loss, [0.0, 0.0], labels, step=step)
        assert value == pytest.approx(loss)
        np.testing.assert_allclose(gradient, [-loss, loss])


# Multiples of 2^-20, so that a shift rounds none of them onto another.
FINE = st.floats(-3, 3, width=32).map(lambda x: round(x * 2**20) / 2**20)
LEVELS = st.one_of(st.integers(-12, 12).map(lambda i: i / 4), FINE, st.sampled_from([-1e4, 1e4]))


@st.composite
def problems(draw, max_size=24):
    """Scores with many ties and differences of exactly delta, and labels, either side of which may be empty."""
    scores = draw(st.lists(LEVELS, max_size=max_size))
    labels = draw(st.lists(st.sampled_from([1, 0, 0, -1]), min_size=len(scores), max_size=len(scores)))
    return np.array(scores, dtype=np.float64), torch.tensor(labels, dtype=torch.int8)


OPTIONS = st.fixed_dictionaries(
    {
        "delta": st.sampled_from([0.25, 0.3, 1.0, 4.0]),
        "interpolate": st.booleans(),
        "step": st.sampled_from(["linear", "linear", "heaviside", "sigmoid"]),
        "k": st.sampled_from([0.25, 0.5, 2.0]),
    }
)


@settings(max_examples=150, deadline=None)
@given(problem=problems(), options=OPTIONS)
def test_equals_its_twin(problem, options):
    scores, labels = problem
    loss, gradient = ap_twin(scores, labels, **options)
    for dtype, loss_atol, grad_atol in ((torch.float64, 1e-10, 1e-10), (torch.float32, 1e-6, 1e-6)):
        value, computed = value_and_gradient(ap_loss, scores, labels, dtype=dtype, **options)
        assert abs(value - loss) <= loss_atol
        np.testing.assert_allclose(computed, gradient, atol=grad_atol)


@pytest.mark.full
@settings(max_examples=1500, deadline=None)
@given(problem=problems(max_size=60), options=OPTIONS)
def test_equals_its_twin_on_more_problems(problem, options):
    scores, labels = problem
    loss, gradient = ap_twin(scores, labels, **options)
    value, computed = value_and_gradient(ap_loss, scores, labels, **options)
    assert abs(value - loss) <= 1e-10
    np.testing.assert_allclose(computed, gradient, atol=1e-10)


@settings(max_examples=60, deadline=None)
@given(problem=problems(), options=OPTIONS, shift=st.integers(-400, 400), seed=st.integers(0, 9))
def test_shift_permutation_and_balance(problem, options, shift, seed):
    """A shift of all scores and their order change nothing; each side carries the loss as its total gradient."""
    scores, labels = problem
    value, gradient = value_and_gradient(ap_loss, scores, labels, **options)
    if np.abs(scores).max(initial=0) < 100:  # else the shift itself rounds
        shifted, shifted_gradient = value_and_gradient(ap_loss, scores + shift / 4, labels, **options)
        assert shifted == pytest.approx(value, abs=1e-10)
        np.testing.assert_allclose(shifted_gradient, gradient, atol=1e-10)
    order = np.random.default_rng(seed).permutation(len(scores))
    permuted, permuted_gradient = value_and_gradient(ap_loss, scores[order], labels[order], **options)
    assert permuted == pytest.approx(value, abs=1e-12)
    np.testing.assert_allclose(permuted_gradient, gradient[order], atol=1e-12)
    assert gradient[labels.numpy() == 1].sum() == pytest.approx(-value, abs=1e-10)
    assert gradient[labels.numpy() == 0].sum() == pytest.approx(value, abs=1e-10)
    assert (gradient[labels.numpy() == 1] <= 0).all()
    assert (gradient[labels.numpy() == 0] >= -1e-15).all()
    assert 0 <= value < 1


def test_interpolation_never_raises_the_loss_and_small_delta_tends_to_the_hard_step():
    generator = torch.Generator().manual_seed(3)
    scores, labels = torch.randn(400, generator=generator, dtype=torch.float64), torch.tensor([1, 0, 0, 0] * 100)
    plain, interpolated = ap_loss(scores, labels, interpolate=False), ap_loss(scores, labels)
    assert interpolated < plain
    torch.testing.assert_close(ap_loss(scores, labels, 1e-9), ap_loss(scores, labels, step="heaviside"))


def test_all_equal_scores_in_float32():
    """P positives and N negatives tied at 7: rank+ = 1 + (P - 1)/2, F = N/2; each side's gradient is spread evenly."""
    labels = torch.tensor([1] * 3 + [0] * 500)
    value, gradient = value_and_gradient(ap_loss, np.full(503, 7.0), labels, dtype=torch.float32)
    loss = 250 / (2 + 250)
    assert value == pytest.approx(loss, abs=1e-6)
    np.testing.assert_allclose(gradient, [-loss / 3] * 3 + [loss / 500] * 500, rtol=1e-5)


@pytest.mark.full
def test_a_detector_sized_batch_equals_its_twin():
    """200 positives among 60 000 scores that crowd within delta of each other, float32 against the float64 twin."""
    random = np.random.default_rng(5)
    scores = random.normal(-4.6, 0.3, 60_000).astype(np.float32)
    labels = torch.zeros(60_000, dtype=torch.int8)
    labels[random.choice(60_000, 200, replace=False)] = 1
    loss, gradient = ap_twin_in_rows(scores, labels)
    value, computed = value_and_gradient(ap_loss, scores, labels, dtype=torch.float32)
    assert abs(value - loss) <= 1e-6
    assert np.abs(computed - gradient).max() <= 1e-8 + 2e-5 * np.abs(gradient).max()


def ap_twin_in_rows(scores, labels):
    """ap_twin with its inner sums as NumPy rows, for sizes where pairs in Python take minutes."""
    s, labels = scores.astype(np.float64), labels.numpy()
    pos, neg = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    gradient, errors, best = np.zeros_like(s), [], 0.0
    for i in pos[np.argsort(s[pos])]:
        above = np.clip((s[neg] - s[i]) / 2 + 0.5, 0, 1)
        rank_pos = 0.5 + np.clip((s[pos] - s[i]) / 2 + 0.5, 0, 1).sum()
        best = max(best, rank_pos / (rank_pos + above.sum()))
        errors.append(1 - best)
        gradient[i] = -errors[-1] / len(pos)
        gradient[neg] += errors[-1] * above / above.sum() / len(pos)
    return np.mean(errors), gradient


def test_module_passes_its_arguments_on():
    logits, labels = torch.randn(2, 6, 3, requires_grad=True), torch.randint(-1, 2, (2, 6, 3), dtype=torch.int8)
    for arguments in ({"delta": 0.5}, {"interpolate": False}, {"step": "sigmoid", "k": 2.0}, {"step": "heaviside"}):
        total, parts = APLoss(**arguments, weight=2.0)(loss_inputs(logits, labels))
        torch.testing.assert_close(parts, {"ap": ap_loss(logits, labels, **arguments).detach()})
        torch.testing.assert_close(total.detach(), 2 * parts["ap"])
        assert total.requires_grad
        assert not parts["ap"].requires_grad


def test_module_refuses_bad_arguments_when_built():
    with pytest.raises(ValueError, match=r"^delta must be"):
        APLoss(delta=0.0)


def test_scores_are_sigmoids():
    """Prior 0.01 for 3 classes: three biases of -log 99, whose sigmoid is 0.01."""
    loss = APLoss()
    assert loss.num_channels(3) == 3
    bias = loss.prior_bias(3, 0.01)
    torch.testing.assert_close(loss.probabilities(bias), torch.full((3,), 0.01))
    with pytest.raises(ValueError, match=r"^prior must"):
        loss.prior_bias(3, 1.0)
