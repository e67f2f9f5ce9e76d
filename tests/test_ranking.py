"""The error-driven loss of any terms against pairs, and the checks and edges that all losses made of it share."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import split, step_value, value_and_gradient

from rankdet.losses.alrp import alrp_loss
from rankdet.losses.checks import check_finite, find_positives
from rankdet.losses.ranking import error_driven_loss, named_step, rank

SCORES = st.one_of(st.integers(-20, 20).map(lambda i: i / 4), st.sampled_from([-1e4, 1e4]))


def test_ranks_by_hand():
    """Positives 0 and 1, a negative 1/2, an ignored 9; delta 1, so f(x) = clamp(x/2 + 1/2, 0, 1).

    F is 3/4 and 1/4; the lower positive has the other above it (f = 1), the upper none (f = 0): R is 2 and 1 with a
    self term of 1, 3/2 and 1/2 with one of 1/2. Of values 10 and 20 above a positive: 20 and 0.
    """
    logits, labels = torch.tensor([0.0, 0.5, 9.0, 1.0]), torch.tensor([1, 0, -1, 1])
    ranking = rank(logits, labels, named_step("linear", 1.0))
    assert ranking.positives.tolist() == [0, 3]
    assert ranking.num_fp.tolist() == [0.75, 0.25]
    assert ranking.rank_pos.tolist() == [2.0, 1.0]
    assert ranking.rank.tolist() == [2.75, 1.25]
    assert ranking.sum_above(torch.tensor([10.0, 20.0], dtype=torch.float64)).tolist() == [20.0, 0.0]
    assert rank(logits, labels, named_step("linear", 1.0), self_term=0.5).rank_pos.tolist() == [1.5, 0.5]


@pytest.mark.parametrize(("step", "tie"), [("linear", 0.5), ("sigmoid", 0.5), ("heaviside", 1.0)])
def test_ranks_of_ties(step, tie):
    """Three positives and two negatives at 7: others count f(0), oneself the self term; order is that of appearance."""
    ranking = rank(torch.full((5,), 7.0), torch.tensor([1, 0, 1, 1, 0]), named_step(step, 1.0))
    torch.testing.assert_close(ranking.rank_pos, torch.full((3,), 1 + 2 * tie, dtype=torch.float64))
    torch.testing.assert_close(ranking.num_fp, torch.full((3,), 2 * tie, dtype=torch.float64))
    assert ranking.order().tolist() == [0, 1, 2]
    assert rank(torch.tensor([2.0, 1, 1]), torch.ones(3).int(), named_step(step, 1.0)).order().tolist() == [1, 2, 0]


def test_target_and_normaliser_by_hand():
    """Positives 0 and 4, negatives 0, 1 and 9, delta 1: f = 1/2, 1, 1 for the first, 0, 0, 1 for the second.

    l = (6, 5), l* = (1, 2), Z = 4: value 11/4; pushes 5/4 and 3/4. The first goes to the negatives in the ratio
    1 : 2 : 2, so 1/4, 1/2, 1/2, the second all to the last one: 5/4.
    """
    logits, labels = torch.tensor([0.0, 4, 0, 1, 9], requires_grad=True), torch.tensor([1, 1, 0, 0, 0])
    current, target = torch.tensor([6.0, 5.0]), torch.tensor([1.0, 2.0])
    loss = error_driven_loss(logits, labels, lambda ranking: (current, target, 4.0), named_step("linear", 1.0))
    loss.backward()
    assert loss.item() == 2.75
    np.testing.assert_allclose(logits.grad, [-1.25, -0.75, 0.25, 0.5, 1.25], rtol=1e-6)


def test_no_push_without_false_positives():
    """Positives 0 and 4, negative 1: nothing lies above the second, whose error stays in the value alone."""
    logits, labels = torch.tensor([0.0, 4, 1], requires_grad=True), torch.tensor([1, 1, 0])
    current = torch.tensor([1.0, 3.0])
    loss = error_driven_loss(logits, labels, lambda ranking: (current, 0.0, None), named_step("linear", 1.0))
    loss.backward()
    assert loss.item() == 2.0
    assert logits.grad.tolist() == [-0.5, 0.0, 0.5]


def pushed_twin(scores, labels, current, target, normaliser, step, size):
    """Value and gradient positive by positive: aLRP Algorithm 1 with p(j|i) = f(n_j - p_i) / F_i."""
    s, pos, neg = split(scores, labels)
    gradient = np.zeros_like(s)
    for i, error, wanted in zip(pos, current, target, strict=True):
        above = np.array([step_value(s[j] - s[i], step, size) for j in neg])
        if above.sum() > 0:
            push = (error - wanted) / normaliser
            gradient[i] -= push
            gradient[neg] += push * above / above.sum()
    return sum(current) / normaliser, gradient


@settings(max_examples=100, deadline=None)
@given(
    cases=st.lists(st.tuples(SCORES, st.sampled_from([1, 0, 0, -1])), max_size=16),
    step=st.sampled_from(["linear", "heaviside", "sigmoid"]),
    size=st.sampled_from([0.25, 1.0, 4.0]),
    lowest=st.sampled_from([0.0, -1.0]),
    seed=st.integers(0, 9),
)
def test_any_terms_equal_their_twin_and_both_sides_balance(cases, step, size, lowest, seed):
    """Random errors, targets and Z; aLRP Theorem 2: positives and negatives get gradients of equal total magnitude.

    That needs errors not below their targets; else, totals of opposite sign.
    """
    scores, labels = np.array([s for s, _ in cases]), np.array([y for _, y in cases], dtype=np.int8)
    random = np.random.default_rng(seed)
    num_pos = int((labels == 1).sum())
    target, normaliser = random.uniform(0, 1, num_pos), random.uniform(0.5, 3)
    current = target + random.uniform(lowest, 1, num_pos)
    loss, gradient = pushed_twin(scores, labels, current, target, normaliser, step, size)
    arguments = torch.from_numpy(labels), lambda _: (*map(torch.from_numpy, (current, target)), normaliser)
    for dtype, atol in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        value, found = value_and_gradient(
            error_driven_loss, scores, *arguments, named_step(step, size, size), dtype=dtype
        )
        assert value == pytest.approx(loss, abs=atol)
        np.testing.assert_allclose(found, gradient, atol=atol)
        of_positives, of_negatives = found[labels == 1], found[labels == 0]
        assert of_positives.sum() == pytest.approx(-of_negatives.sum(), abs=10 * atol)
        if lowest == 0:
            assert np.abs(of_positives).sum() == pytest.approx(np.abs(of_negatives).sum(), abs=10 * atol)
        assert (found[labels == -1] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_alrp_is_three_terms(dtype):
    """aLRP Alg. 1: l(i) is the error of Eq. 9, its target (Eq. 13) what is left of it when only i itself is above.

    The value is both parts of alrp_loss (soft localisation, Eq. 11), the gradient its classification part's.
    """
    generator = torch.Generator().manual_seed(7)
    scores = torch.randn(300, generator=generator, dtype=dtype)
    labels = torch.tensor([1, 0, 0, 0, -1] * 60)
    errors = torch.rand(60, generator=generator, dtype=dtype)

    def terms(ranking):
        own = errors.double()
        return (ranking.num_fp + own + ranking.sum_above(own)) / ranking.rank, own / ranking.rank, None

    value, gradient = value_and_gradient(
        error_driven_loss, scores, labels, terms, named_step("linear", 1.0), dtype=dtype
    )
    logits = scores.clone().requires_grad_()
    classification, localisation = alrp_loss(logits, labels, errors, soft_localisation=True)
    classification.backward()
    assert value == pytest.approx((classification + localisation).item(), rel=1e-6)
    np.testing.assert_allclose(gradient, logits.grad.double(), rtol=1e-6 if dtype == torch.float32 else 1e-13)


def test_the_least_that_a_sigmoid_can_give_is_pushed_in_full():
    """700 k below its positive the only negative counts 1e-304; at 800 k, 0, and nothing is pushed."""
    for distance, pushed in ((700.0, 1.0), (800.0, 0.0)):
        logits, labels = torch.tensor([0.0, -distance], requires_grad=True), torch.tensor([1, 0])
        step = named_step("sigmoid", 1.0, 1.0)
        error_driven_loss(logits, labels, lambda ranking: (torch.ones(1), 0.0, None), step).backward()
        torch.testing.assert_close(logits.grad, torch.tensor([-pushed, pushed]))


def test_logits_that_need_no_gradient_get_none():
    """The same value, without a graph; and from logits that need one, under no_grad."""
    logits, labels = torch.randn(60), torch.tensor([1, 0, 0] * 20)
    expected = sum_loss(logits.clone().requires_grad_(), labels)
    assert expected.requires_grad
    with torch.no_grad():
        silent = sum_loss(logits.clone().requires_grad_(), labels)
    for loss in (sum_loss(logits, labels), silent):
        assert torch.equal(loss, expected.detach())
        assert not loss.requires_grad


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
    """With the positives' indices given, too."""
    for positives in (None, torch.tensor([1])):
        with pytest.raises(ValueError, match=message):
            sum_loss(logits, labels, positives=positives)


def test_a_bad_device_is_named():
    with pytest.raises(ValueError, match="labels must be on the device of logits, got meta for cpu"):
        sum_loss(torch.zeros(3), torch.zeros(3, dtype=torch.int8, device="meta"))


def test_bad_values_are_named_and_counted():
    check_finite(torch.tensor([3e38, 3e38]), "quality")
    with pytest.raises(ValueError, match=r"^quality must be finite: 2 of 3 are not$"):
        check_finite(torch.tensor([torch.nan, 1, torch.inf]), "quality")


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
@pytest.mark.parametrize("step", ["linear", "heaviside", "sigmoid"])
def test_half_types_are_computed_in_float32(dtype, step):
    """The gradient goes back in the half type; the value is that of the rounded logits, in float32, also in autocast.

    The sigmoid takes 600 scores in bins where they are close, pair by pair where they are far apart.
    """
    labels = torch.tensor([1, 0, 0] * 200)
    for spread in (1.0, 100.0):
        logits = (torch.randn(600) * spread).to(dtype).requires_grad_()
        with torch.autocast("cpu", dtype=dtype):
            loss = error_driven_loss(logits, labels, num_fp_terms, named_step(step, 1.0))
        loss.backward()
        full = logits.detach().float().requires_grad_()
        expected = error_driven_loss(full, labels, num_fp_terms, named_step(step, 1.0))
        expected.backward()
        assert loss.dtype == torch.float32
        assert torch.equal(loss, expected)
        assert torch.equal(logits.grad, full.grad.to(dtype))


def test_strided_tensors_and_any_shape():
    logits, labels = torch.randn(4, 5, 6), torch.randint(-1, 2, (4, 5, 6))
    moved = sum_loss(logits.permute(2, 0, 1), labels.permute(2, 0, 1))
    torch.testing.assert_close(moved, sum_loss(logits, labels))


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int64])
def test_positives_are_found_wherever_they_stand(dtype):
    """Of every length to 40, from every offset, and of every second label."""
    labels = torch.randint(-1, 2, (90,), generator=torch.Generator().manual_seed(0)).to(dtype)
    visited = 0
    for some in (labels[start : start + size] for start in range(9) for size in range(41)):
        for each in (some, some[::2]):
            expected = [place for place, label in enumerate(each.tolist()) if label == 1]
            assert find_positives(torch.zeros(len(each)), each).tolist() == expected
            visited += 1
    assert visited == 2 * 9 * 41


def test_a_borrower_needs_torch_alone():
    """The functions load nothing else of requirements.txt, of rankdet the losses alone, and not torch's compiler.

    That takes seconds, for which the first loss would wait; a compiled graph alone needs it.
    """
    code = (
        "import sys, torch, rankdet.losses.auc; from rankdet.losses.ap import ap_loss\n"
        "ap_loss(torch.zeros(2, requires_grad=True), torch.tensor([1, 0])).backward(); print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"torch", "rankdet.losses.ap", "rankdet.losses.auc", "rankdet.losses.ranking"} <= set(loaded)
    assert not {
        "torch._dynamo",
        "torchvision",
        "hydra",
        "omegaconf",
        "albumentations",
        "cv2",
        "pycocotools",
        "pandas",
    } & set(loaded)
    assert all(name.startswith("rankdet.losses") for name in loaded if name.startswith("rankdet."))
