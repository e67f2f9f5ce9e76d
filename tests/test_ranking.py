"""The pair sums in both directions, and the checks and edges of every error-driven loss."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import pair_steps

from rankdet.losses.ranking import error_driven_loss, named_step

STEPS = ["linear", "heaviside", "sigmoid"]


def test_sums_by_hand():
    """Points 0 and 2, scores -0.5, 0, 1.5 and 9, delta 1, so f(x) = clamp(x/2 + 1/2, 0, 1).

    At point 0: 1/4 + 1/2 + 1 + 1 = 2.75; at point 2: 0 + 0 + 1/4 + 1 = 1.25. With weights 3 and 5 on the points the
    scores get 3/4, 3/2, 3 + 5/4 and 8. The hard step: 0 + 1 + 1 + 1 and 0 + 0 + 0 + 1; back 0, 3, 3, 8.
    """
    points, scores = torch.tensor([0.0, 2.0]), torch.tensor([-0.5, 0.0, 1.5, 9.0])
    weights = torch.tensor([3.0, 5.0], dtype=torch.float64)
    linear = named_step("linear", 1.0).pairs(points, scores)
    assert linear.at_points().tolist() == [2.75, 1.25]
    assert linear.at_scores(weights).tolist() == [0.75, 1.5, 4.25, 8.0]
    hard = named_step("heaviside", 1.0).pairs(points, scores)
    assert hard.at_points().tolist() == [3.0, 1.0]
    assert hard.at_scores(weights).tolist() == [0.0, 3.0, 3.0, 8.0]


def test_weights_and_takes_part_by_hand():
    """Scores 0 and 1 with weights 2 and 4 at point 0, delta 1: 2/2 + 4 = 5; with the second left out, 1."""
    points, scores, weights = torch.zeros(1), torch.tensor([0.0, 1.0]), torch.tensor([2.0, 4.0])
    step = named_step("linear", 1.0)
    assert step.pairs(points, scores).at_points(weights).tolist() == [5.0]
    partly = step.pairs(points, scores, torch.tensor([True, False]))
    assert partly.at_points(weights).tolist() == [1.0]
    assert partly.at_scores(torch.ones(1, dtype=torch.float64)).tolist() == [0.5, 0.0]


# Multiples of 1/4 make ties and differences of exactly delta common; the rest are any float32 up to 1e4.
SCORES = st.one_of(
    st.integers(-20, 20).map(lambda i: i / 4), st.floats(-1e4, 1e4, width=32), st.sampled_from([-1e4, 1e4])
)


@settings(max_examples=120, deadline=None)
@given(
    points=st.lists(SCORES, min_size=1, max_size=8),
    scores=st.lists(SCORES, max_size=12),
    step=st.sampled_from(STEPS),
    size=st.sampled_from([0.25, 0.3, 1.0, 4.0]),
    seed=st.integers(0, 9),
)
def test_both_directions_equal_the_full_matrix(points, scores, step, size, seed):
    random = np.random.default_rng(seed)
    point_weights, score_weights = random.uniform(0, 9, len(points)), random.uniform(0, 9, len(scores))
    takes_part = random.random(len(scores)) < 0.8
    matrix = pair_steps(points, scores, step, size) * takes_part
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        pairs = named_step(step, size, size).pairs(
            torch.tensor(points, dtype=dtype), torch.tensor(scores, dtype=dtype), torch.tensor(takes_part)
        )
        np.testing.assert_allclose(pairs.at_points(), matrix.sum(1), atol=1e-9)
        np.testing.assert_allclose(pairs.at_points(torch.tensor(score_weights)), matrix @ score_weights, atol=1e-8)
        np.testing.assert_allclose(pairs.at_scores(torch.tensor(point_weights)), point_weights @ matrix, atol=tolerance)


def test_one_huge_score_does_not_drown_the_others():
    """Point 0, delta 1, scores 1e30 and 1/2: 1 + 3/4, although 1e30 + 1/2 is 1e30 in float64."""
    pairs = named_step("linear", 1.0).pairs(torch.zeros(1), torch.tensor([1e30, 0.5]))
    assert pairs.at_points().tolist() == [1.75]


def test_huge_points_keep_their_step():
    """At 1e8 float32 numbers are 8 apart: a delta of 1 separates all but equal ones, which count 1/2."""
    pairs = named_step("linear", 1.0).pairs(torch.tensor([1e8]), torch.tensor([1e8 - 8, 1e8, 1e8 + 8]))
    assert pairs.at_points().tolist() == [1.5]
    assert pairs.at_scores(torch.ones(1, dtype=torch.float64)).tolist() == [0.0, 0.5, 1.0]


def test_sums_are_flat_above_all_ramps():
    """0.1 + 0.2 - 0.1 - 0.2 is 3e-17 in float64: as a left-over slope it would add 1e-5 to the 0.3 at 1e12."""
    pairs = named_step("linear", 0.5).pairs(*(torch.tensor(x, dtype=torch.float64) for x in ([0, 0.5], [3, 1e6, 1e12])))
    sums = pairs.at_scores(torch.tensor([0.1, 0.2], dtype=torch.float64))
    np.testing.assert_allclose(sums, [0.3] * 3, rtol=1e-14)


def test_sums_over_many_scores_are_exact():
    """2 000 003 scores of 0.1f at point 0.1f count 1/2 each: a float32 running sum would stall or drift."""
    pairs = named_step("linear", 1.0).pairs(torch.tensor([0.1]), torch.full((2_000_003,), 0.1))
    assert pairs.at_points().item() == pytest.approx(1_000_001.5, abs=1e-6)


def num_fp_terms(ranking):
    return ranking.num_fp, 0.0, None


def sum_loss(logits, labels, **kwargs):
    """Mean number of negatives above a positive: the simplest error-driven loss."""
    return error_driven_loss(logits, labels, num_fp_terms, named_step("linear", 1.0), **kwargs)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (torch.zeros(3), torch.zeros(2, dtype=torch.int8), "labels must have the shape"),
        (torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int8), "logits must be floating"),
        (torch.zeros(3), torch.zeros(3), "labels must be signed integers"),
        (torch.zeros(3), torch.zeros(3, dtype=torch.bool), "labels must be signed integers"),
        (torch.zeros(3), torch.tensor([0, 1, 2]), "labels must be 1, 0 or -1, got values from 0 to 2"),
        (torch.zeros(3), torch.tensor([-2, 1, 0]), "labels must be 1, 0 or -1, got values from -2 to 1"),
        (torch.tensor([0, torch.nan, 1]), torch.tensor([0, 1, 0]), r"^logits must .* 1 of 3 .* index 1 \(nan\)"),
        (torch.tensor([0, 1, -torch.inf]), torch.tensor([0, 1, -1]), r"^logits must .* 1 of 3 .* index 2 \(-inf\)"),
        (torch.tensor([torch.inf, -torch.inf]), torch.tensor([0, 1]), r"^logits must .* 2 of 2 .* index 0 \(inf\)"),
    ],
)  # fmt: skip
def test_bad_tensors_are_named(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        sum_loss(logits, labels)


@pytest.mark.parametrize(
    ("step", "delta", "k", "name"),
    [("linear", 0.0, 0.5, "delta"), ("linear", -1.0, 0.5, "delta"), ("linear", float("nan"), 0.5, "delta"),
     ("sigmoid", 1.0, 0.0, "k"), ("sigmoid", 1.0, float("inf"), "k"), ("smooth", 1.0, 0.5, "step")],
)  # fmt: skip
def test_bad_steps_are_named(step, delta, k, name):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        named_step(step, delta, k)


def test_huge_finite_logits_are_no_error():
    """Their float32 sum overflows; each is finite. The negative at 3e38 is above the positive at 0: one."""
    assert sum_loss(torch.tensor([3e38, 3e38, 0.0]), torch.tensor([0, -1, 1])).item() == 1.0


@pytest.mark.parametrize("labels", [[], [0, 0], [-1, -1], [1, 1], [1, -1]])
def test_an_empty_side_is_zero_with_a_gradient_path(labels):
    logits = torch.randn(len(labels), requires_grad=True)
    loss = sum_loss(logits, torch.tensor(labels, dtype=torch.int8))
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad.tolist() == [0.0] * len(labels)


def test_upstream_gradient_and_no_double_backward():
    """Positive at 0, negative at 0, delta 1: F = 1/2, gradient -+1/2, times the upstream 3.

    The gradient is a constant to autograd; where the upstream depends on the logits, as in a square, it refuses.
    """
    logits, labels = torch.zeros(2, requires_grad=True), torch.tensor([1, 0])
    (gradient,) = torch.autograd.grad(3 * sum_loss(logits, labels), logits, create_graph=True)
    assert gradient.tolist() == [-1.5, 1.5]
    assert not gradient.requires_grad
    (gradient,) = torch.autograd.grad(sum_loss(logits, labels) ** 2, logits, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_backward_twice_gives_the_same_gradient_twice():
    logits = torch.randn(9, requires_grad=True)
    loss = sum_loss(logits, torch.tensor([1, 0, 0] * 3))
    first, second = (torch.autograd.grad(loss, logits, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_given_positives_change_nothing():
    logits, labels = torch.randn(40), torch.tensor([1, 0, 0, -1] * 10)
    assert torch.equal(sum_loss(logits, labels), sum_loss(logits, labels, positives=(labels == 1).nonzero()[:, 0]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32(dtype):
    """The gradient goes back in the half type; the value is that of the rounded logits, in float32."""
    logits, labels = torch.randn(60).to(dtype).requires_grad_(), torch.tensor([1, 0, 0] * 20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = sum_loss(logits, labels)
    loss.backward()
    full = logits.detach().float().requires_grad_()
    expected = sum_loss(full, labels)
    expected.backward()
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)
    assert torch.equal(logits.grad, full.grad.to(dtype))


def test_strided_tensors_and_any_shape():
    logits, labels = torch.randn(4, 5, 6), torch.randint(-1, 2, (4, 5, 6))
    moved = sum_loss(logits.permute(2, 0, 1), labels.permute(2, 0, 1))
    torch.testing.assert_close(moved, sum_loss(logits, labels))


def test_a_borrower_needs_torch_alone():
    """Importing the functions loads nothing else of requirements.txt, and of rankdet the losses alone."""
    code = "import sys, rankdet.losses.ap, rankdet.losses.auc; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"torch", "rankdet.losses.ap", "rankdet.losses.auc", "rankdet.losses.ranking"} <= set(loaded)
    assert not {"torchvision", "hydra", "omegaconf", "albumentations", "cv2", "pycocotools", "pandas"} & set(loaded)
    assert all(name.startswith("rankdet.losses") for name in loaded if name.startswith("rankdet."))
