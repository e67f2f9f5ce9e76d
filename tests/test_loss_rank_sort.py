"""Rank & Sort loss against the authors' numbers, worked arithmetic and a slow twin."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import golden_files, loss_inputs, step_value

from rankdet.losses import blocks
from rankdet.losses.rank_sort import RankSortLoss, rank_sort_loss

# golden README: loss absolute, gradient absolute, gradient relative to its largest element
TOLERANCES = {torch.float64: (1e-10, 1e-12, 1e-9), torch.float32: (1e-6, 1e-8, 1e-5)}


def parts_and_gradients(logits, quality, delta=0.5, dtype=torch.float64):
    """Both values (floats) and their gradients (float64 arrays, flat), each by itself."""
    logits = torch.as_tensor(np.asarray(logits)).to(dtype).requires_grad_()
    parts = rank_sort_loss(logits, torch.as_tensor(np.asarray(quality)), delta)
    gradients = [torch.autograd.grad(part, logits, retain_graph=True)[0].double().reshape(-1).numpy() for part in parts]
    return [part.item() for part in parts], gradients


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_golden(dtype):
    """Every file and delta: both parts, the gradient of their sum, its sums over both sides, and exact zeros."""
    loss_atol, grad_atol, grad_rtol = TOLERANCES[dtype]
    visited = expected_cases = 0
    for file in golden_files("ranksort"):
        z = dict(np.load(file))
        expected_cases += len(z["loss"])
        flat = z["labels"].reshape(-1)
        for d, delta in enumerate(z["deltas"]):
            case = f"{file.name} delta {delta}"
            values, gradients = parts_and_gradients(z["logits"], z["targets"], float(delta), dtype)
            gradient = sum(gradients)
            assert np.abs(values - z["loss"][d]).max() <= loss_atol, case
            tolerance = grad_atol + grad_rtol * np.abs(z["grad"][d]).max()
            assert np.abs(gradient[z["grad_idx"]] - z["grad"][d]).max() <= tolerance, case
            assert (gradient[flat == -1] == 0).all(), case
            for name, total in (("pos", gradient[flat == 1].sum()), ("neg", gradient[flat == 0].sum())):
                assert abs(total - z[f"grad_sum_{name}"][d]) <= max(loss_atol, grad_rtol), case
            visited += 1
    assert visited == expected_cases >= 3


def test_arithmetic():
    """Positives at 2 and 0 of quality 0.5 and 0.9, a negative at 1, delta 1/2: no difference is smaller than delta.

    Ranking: the upper has no false positive; the lower rank 1/2 + 1 + 1, error 1 / 2.5, mean 0.2, pushed onto it and
    the negative. Sorting: the upper sees itself alone, 0. The lower sees itself with weight 1/2 and 1 - quality 0.1,
    the upper with 1 and 0.5: (0.05 + 0.5) / 1.5 = 11/30, where itself alone would be 0.1; 11/30 - 3/30 = 4/15, mean
    2/15, pushed up onto it and down onto the upper.
    """
    values, (ranking, sorting) = parts_and_gradients([2.0, 0.0, 1.0], [0.5, 0.9, 0.0])
    assert values == pytest.approx([0.2, 2 / 15], abs=1e-15)
    np.testing.assert_allclose(ranking, [0, -0.2, 0.2], atol=1e-15)
    np.testing.assert_allclose(sorting, [2 / 15, -2 / 15, 0], atol=1e-15)


def test_arithmetic_of_the_hard_step():
    """As above with delta 0, where a positive counts 1 in its own rank: 1/3 of 3 ranks, mean 1/6; and sorting
    (0.1 + 0.5) / 2 - 0.1 = 0.2, mean 0.1. A tie counts 1 too: all three at 0, each rank is 3 and F 1: ranking 1/3;
    the worse positive is sorted, the better sees (0.1 + 0.5) / 2 against 0.1, mean 0.1.
    """
    values, (ranking, sorting) = parts_and_gradients([2.0, 0.0, 1.0], [0.5, 0.9, 0.0], 0)
    assert values == pytest.approx([1 / 6, 0.1], abs=1e-15)
    np.testing.assert_allclose(ranking, [0, -1 / 6, 1 / 6], atol=1e-15)
    np.testing.assert_allclose(sorting, [0.1, -0.1, 0], atol=1e-15)
    values, (ranking, sorting) = parts_and_gradients([0.0, 0.0, 0.0], [0.5, 0.9, 0.0], 0.0)
    assert values == pytest.approx([1 / 3, 0.1], abs=1e-15)
    np.testing.assert_allclose(ranking, [-1 / 6, -1 / 6, 1 / 3], atol=1e-15)
    np.testing.assert_allclose(sorting, [0.1, -0.1, 0], atol=1e-15)


@pytest.mark.parametrize("delta", [0.0, 0.5, 4.0])
def test_equal_qualities_are_sorted(delta):
    """Whatever the scores, no positive stands above one of better quality: sorting part and its gradient 0."""
    values, (_, sorting) = parts_and_gradients(torch.randn(40), [0.7, 0.0] * 20, delta)
    assert values[1] == 0
    assert (sorting == 0).all()


def rank_sort_twin(scores, quality, delta):
    """Both values and gradients, pair by pair, from the definitions in rank_sort_loss."""
    s, q = np.asarray(scores, dtype=np.float64), np.asarray(quality, dtype=np.float64)
    pos, neg = np.flatnonzero(q > 0), np.flatnonzero(q == 0)
    step, size = ("linear", delta) if delta > 0 else ("heaviside", None)
    values, gradients = np.zeros(2), np.zeros((2, len(s)))
    for i in pos:
        false = np.array([step_value(s[n] - s[i], step, size) for n in neg])
        true = np.array([step_value(s[k] - s[i], step, size) for k in pos])
        values[0] += false.sum() / (false.sum() + true.sum()) / len(pos)
        gradients[0, i] -= false.sum() / (false.sum() + true.sum()) / len(pos)
        gradients[0, neg] += false / (false.sum() + true.sum()) / len(pos)
        worse = np.where(q[pos] < q[i], true, 0)
        if worse.sum() > 0:
            sorted_ones = true - worse
            error = true @ (1 - q[pos]) / true.sum() - sorted_ones @ (1 - q[pos]) / sorted_ones.sum()
            values[1] += error / len(pos)
            gradients[1, i] -= error / len(pos)
            gradients[1, pos] += error * worse / worse.sum() / len(pos)
    return values, gradients


LEVELS = st.one_of(st.integers(-12, 12).map(lambda i: i / 4), st.floats(-3, 3, width=32), st.sampled_from([-1e4, 1e4]))
QUALITIES = st.one_of(st.sampled_from([0, 0, 0, -1, 0.25, 0.5, 1]), st.floats(2**-20, 1, width=32))
DELTAS = st.sampled_from([0, 0.25, 0.3, 0.5, 1.0, 4.0])
CASES = st.lists(st.tuples(LEVELS, QUALITIES), max_size=24)


@settings(max_examples=120, deadline=None)
@given(cases=CASES, delta=DELTAS)
def test_equals_its_twin(cases, delta):
    """With many ties of scores and of qualities, and either side empty now and then."""
    scores, quality = np.array(cases, dtype=np.float64).reshape(-1, 2).T
    expected = rank_sort_twin(scores, quality, delta)
    for dtype, atol in ((torch.float64, 1e-10), (torch.float32, 1e-6)):
        values, gradients = parts_and_gradients(scores, quality, delta, dtype)
        np.testing.assert_allclose(values, expected[0], atol=atol)
        np.testing.assert_allclose(gradients, expected[1], atol=atol)


@settings(max_examples=60, deadline=None)
@given(cases=CASES, delta=DELTAS, shift=st.integers(-400, 400), seed=st.integers(0, 9))
def test_shift_permutation_and_balance(cases, delta, shift, seed):
    """Neither a shift nor the order changes a value; either part's gradient adds up to 0."""
    scores, quality = np.array(cases, dtype=np.float64).reshape(-1, 2).T
    scores = np.round(scores * 2**20) / 2**20  # so that a shift rounds nothing
    values, gradients = parts_and_gradients(scores, quality, delta)
    shifted = parts_and_gradients(scores + shift / 4, quality, delta)
    np.testing.assert_allclose(shifted[0], values, atol=1e-10)
    np.testing.assert_allclose(shifted[1], gradients, atol=1e-10)
    order = np.random.default_rng(seed).permutation(len(scores))
    permuted = parts_and_gradients(scores[order], quality[order], delta)
    np.testing.assert_allclose(permuted[0], values, atol=1e-12)
    np.testing.assert_allclose(permuted[1], np.array(gradients)[:, order], atol=1e-12)
    np.testing.assert_allclose(np.sum(gradients, axis=1), 0, atol=1e-10)
    assert 0 <= values[0] < 1
    assert 0 <= values[1] < 1


@pytest.mark.parametrize("block", [1, 7, 50, 400])
@pytest.mark.parametrize("delta", [0.0, 0.5])
def test_blocks_change_nothing(block, delta, monkeypatch):
    """20 positives: one, two or all 20 of them at a time give the same sums, 1/2^52 apart or so."""
    quality = torch.cat((torch.rand(20), torch.zeros(60)))
    logits = torch.randn(80)
    whole = parts_and_gradients(logits, quality, delta)
    monkeypatch.setattr(blocks, "PAIRS_IN_CACHE", block)
    in_blocks = parts_and_gradients(logits, quality, delta)
    np.testing.assert_allclose(in_blocks[0], whole[0], atol=1e-14)
    np.testing.assert_allclose(in_blocks[1], whole[1], atol=1e-14)


def test_each_part_has_its_own_upstream_gradient():
    logits = torch.randn(30, dtype=torch.float64, requires_grad=True)
    quality = torch.rand(30, dtype=torch.float64) * torch.tensor([1, 0, 0] * 10)
    _, gradients = parts_and_gradients(logits.detach(), quality)
    ranking, sorting = rank_sort_loss(logits, quality)
    (3 * ranking + 5 * sorting).backward()
    np.testing.assert_allclose(logits.grad, 3 * gradients[0] + 5 * gradients[1], rtol=1e-12, atol=1e-15)
    assert np.abs(gradients).max(1).min() > 0


@pytest.mark.parametrize("quality", [[], [0, 0], [-1, -1], [1, 1], [-1, 1]])
@pytest.mark.parametrize("delta", [0.0, 0.5])
def test_an_empty_side_is_zero_with_a_gradient_path(quality, delta):
    values, gradients = parts_and_gradients(np.arange(len(quality), dtype=np.float64), np.array(quality), delta)
    assert values == [0, 0]
    assert not np.any(gradients)


def test_half_types_and_shapes():
    """bfloat16 logits of a [2, 3, 4] head are computed in float32; the gradient goes back in bfloat16."""
    logits = torch.randn(2, 3, 4).bfloat16().requires_grad_()
    quality = torch.rand(2, 3, 4) * torch.tensor([1, 0, 0, 0])
    parts = rank_sort_loss(logits, quality)
    sum(parts).backward()
    assert {part.dtype for part in parts} == {torch.float32}
    assert (logits.grad.dtype, logits.grad.shape) == (torch.bfloat16, (2, 3, 4))
    full = rank_sort_loss(logits.detach().float(), quality)
    assert [part.item() for part in parts] == [part.item() for part in full]


@pytest.mark.parametrize(
    ("quality", "message"),
    [
        (torch.zeros(2), r"^quality must have the shape of logits, got \(2,\) for \(3,\)"),
        (torch.tensor([0, 0.5, torch.nan]), r"^quality must be finite, and -1 or not negative: 1 of 3 are not"),
        (torch.tensor([0, torch.inf, -torch.inf]), r"^quality must be finite, and -1 or not negative: 2 of 3 are not"),
        (torch.tensor([0, 0.5, -0.5]), r"^quality must be finite, and -1 or not negative: 1 of 3 are not"),
    ],
)
def test_bad_quality(quality, message):
    """-0.5 might be a GIoU: to leave such a box out without a word would be a slip that nobody sees."""
    with pytest.raises(ValueError, match=message):
        rank_sort_loss(torch.zeros(3), quality)


def test_bad_arguments():
    for call in (lambda: rank_sort_loss(torch.zeros(1), torch.ones(1), -0.1), lambda: RankSortLoss(float("nan"))):
        with pytest.raises(ValueError, match=r"^delta must be finite and not negative"):
            call()
    for min_quality in (0.0, 1.5):
        with pytest.raises(ValueError, match=r"^min_quality must lie in \(0, 1\]"):
            RankSortLoss(min_quality=min_quality)
    with pytest.raises(ValueError, match=r"^logits must be finite"):
        rank_sort_loss(torch.tensor([torch.nan]), torch.ones(1))


class TestModule:
    def test_quality_is_the_iou(self):
        """Boxes of side 10, 2 apart: IoU 2/3, and every other one right."""
        torch.manual_seed(2)
        logits, labels = torch.randn(2, 6, 3, requires_grad=True), torch.randint(-1, 2, (2, 6, 3), dtype=torch.int8)
        inputs = loss_inputs(logits, labels)
        inputs.pred_boxes.data[::2] = inputs.target_boxes[::2]
        quality = labels.float()
        quality[labels == 1] = torch.tensor([1.0, 2 / 3] * 36)[: len(inputs.positives)]
        total, parts = RankSortLoss(delta=0.3, weight=2.0)(inputs)
        ranking, sorting = rank_sort_loss(logits, quality, 0.3)
        torch.testing.assert_close(parts, {"ranking": ranking.detach(), "sorting": sorting.detach()})
        assert parts["sorting"] > 0
        torch.testing.assert_close(total, 2 * (ranking + sorting))
        total.backward()
        assert logits.grad.abs().sum() > 0
        assert inputs.pred_deltas.grad is None  # the boxes are a quality here, not something to move

    @pytest.mark.parametrize("min_quality", [1e-6, 0.25])
    def test_a_positive_whose_box_misses_stays_one(self, min_quality):
        """Boxes 20 apart, IoU 0. Positive at 0, negative at 1, delta 1/2: rank 3/2, ranking 2/3.

        Two positives at 0 and 1, the lower's box right: it sees itself, quality 1, with weight 1/2 and the upper with
        1, so that (1 - min_quality) / 1.5 stands against 0; the mean over both is half of it.
        """
        total, parts = RankSortLoss(min_quality=min_quality)(
            loss_inputs(torch.tensor([[[0.0], [1.0]]]), [[[1], [0]]], apart=20.0)
        )
        assert total.item() == parts["ranking"].item() == pytest.approx(2 / 3)
        inputs = loss_inputs(torch.tensor([[[0.0], [1.0]]]), [[[1], [1]]], apart=20.0)
        inputs.pred_boxes.data[0] = inputs.target_boxes[0]
        _, parts = RankSortLoss(min_quality=min_quality)(inputs)
        assert parts["sorting"].item() == pytest.approx((1 - min_quality) / 1.5 / 2)

    def test_labels_need_not_be_contiguous(self):
        logits, labels = torch.randn(2, 3, 5), torch.randint(-1, 2, (2, 5, 3), dtype=torch.int8).transpose(1, 2)
        strided, plain = (loss_inputs(logits, labels)._replace(labels=each) for each in (labels, labels.contiguous()))
        assert torch.equal(RankSortLoss()(strided).total, RankSortLoss()(plain).total)

    def test_no_positives_is_zero_with_a_gradient_path(self):
        logits = torch.randn(1, 4, 2, requires_grad=True)
        total, _ = RankSortLoss()(loss_inputs(logits, torch.zeros(1, 4, 2)))
        total.backward()
        assert total.item() == 0
        assert torch.equal(logits.grad, torch.zeros_like(logits))
