"""Harmonic loss: the supplement's gradients and sign conditions; the unified term, its softmax and its negatives."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import ce_ohem_twin, loss_inputs

from rankdet.losses.box import SmoothL1Loss
from rankdet.losses.ce_ohem import CEOHEMLoss
from rankdet.losses.criterion import Criterion
from rankdet.losses.harmonic import HarmonicLoss, harmonic_loss
from rankdet.losses.inputs import LossInputs

ROOT = 1.278464542761074  # of y = 1 + exp(-y)


def test_arithmetic():
    """Two positives: CE log 2 and L log 4: (1 + 1/4) log 2 + (1 + 1/2) log 4 = 4.25 log 2; CE 0 and L 3: 0 + 2 x 3."""
    loss = harmonic_loss(torch.tensor([math.log(2), 0.0]), torch.tensor([math.log(4), 3.0]))
    assert loss.item() == pytest.approx((4.25 * math.log(2) + 6) / 2)


def slopes(p, box):
    """d loss / d p and d loss / d L by autograd, at scalars."""
    p, box = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (p, box))
    return [slope.item() for slope in torch.autograd.grad(harmonic_loss(-p.log(), box), (p, box))]


PROBABILITIES, BOX_LOSSES = st.floats(1e-3, 0.999), st.floats(0, 8)


@settings(max_examples=100, deadline=None)
@given(ce=st.lists(st.floats(0.01, 8), min_size=1, max_size=5), box=st.floats(0.01, 8))
def test_both_factors_are_differentiated(ce, box):
    """Finite differences in both losses: dF/dx = 1 + e^-y - y e^-x (Eq. 8) over the number of positives."""
    ce = torch.tensor(ce, dtype=torch.float64, requires_grad=True)
    box = torch.full_like(ce, box).requires_grad_()
    assert torch.autograd.gradcheck(harmonic_loss, (ce, box))
    slope = torch.autograd.grad(harmonic_loss(ce, box), ce)[0]
    torch.testing.assert_close(slope, (1 + (-box).exp() - box * (-ce).exp()) / len(ce))


@settings(max_examples=100, deadline=None)
@given(p=PROBABILITIES, offset=st.floats(-3, 3))
def test_gradient_by_the_offset(p, offset):
    """Eq. 5: the factor 1 + p + e^-L log p times the slope of smooth L1, which is the offset up to 1, then its sign."""
    t = torch.tensor([offset], dtype=torch.float64, requires_grad=True)
    box = F.smooth_l1_loss(t, torch.zeros_like(t), reduction="none")
    harmonic_loss(torch.tensor([-math.log(p)], dtype=torch.float64), box).backward()
    factor = 1 + p + math.exp(-box.item()) * math.log(p)
    assert t.grad.item() == pytest.approx(factor * np.clip(offset, -1, 1), abs=1e-12)


@settings(max_examples=200, deadline=None)
@given(p=PROBABILITIES, box=BOX_LOSSES)
def test_gradient_by_the_probability(p, box):
    """Eq. 10, L - (1 + e^-L) / p: negative exactly where CE > ln L - ln(1 + e^-L) (Eq. 9), always for L <= 1.278."""
    slope, _ = slopes(p, box)
    assert slope == pytest.approx(box - (1 + math.exp(-box)) / p, rel=1e-12)
    threshold = math.log(box) - math.log1p(math.exp(-box)) if box > 0 else -math.inf
    if abs(-math.log(p) - threshold) > 1e-9:
        assert (slope < 0) == (-math.log(p) > threshold)
    if box <= ROOT:
        assert slope < 0


@settings(max_examples=200, deadline=None)
@given(p=PROBABILITIES, box=BOX_LOSSES)
def test_gradient_by_the_box_loss(p, box):
    """Eq. 5's factor, by symmetry negative exactly where L < ln CE - ln(1 + p), which no L >= 0 is for p > 0.278."""
    _, slope = slopes(p, box)
    assert slope == pytest.approx(1 + p + math.exp(-box) * math.log(p), abs=1e-12)
    threshold = math.log(-math.log(p)) - math.log1p(p)
    if abs(box - threshold) > 1e-9:
        assert (slope < 0) == (box < threshold)
    if p >= math.exp(-ROOT):
        assert slope >= 0


def test_where_the_supplement_is_too_sure():
    """A confident, badly placed box (p = 0.9, L = 3) is pushed to less confidence: dL/dp = 3 - (1 + e^-3) / 0.9.

    And a well placed one of p = 0.1, L = 0.05 away from its place: 1 + 0.1 + e^-0.05 log 0.1 = -1.090. Both turn at
    y = 1 + e^-y = 1.278..., p = e^-y = 0.278...
    """
    assert slopes(0.9, 3.0)[0] == pytest.approx(1.834, abs=5e-4)
    assert slopes(0.1, 0.05)[1] == pytest.approx(-1.090, abs=5e-4)
    assert 1 + math.exp(-ROOT) == pytest.approx(ROOT, rel=1e-14)
    assert slopes(1.0, ROOT)[0] == pytest.approx(0, abs=1e-14)
    assert slopes(math.exp(-ROOT), 0.0)[1] == pytest.approx(0, abs=1e-14)
    assert math.exp(-ROOT) == pytest.approx(0.27846, abs=5e-6)


def test_sides_are_equal_and_losses_may_be_huge():
    ce, box = torch.tensor([0.0, 1e4, 2.0]), torch.tensor([1e4, 0.0, 5.0])
    assert torch.equal(harmonic_loss(ce, box), harmonic_loss(box, ce))
    assert harmonic_loss(ce[:2], box[:2]).item() == 2e4


def test_no_positives_is_zero_with_a_gradient_path():
    ce, box = torch.zeros(0, requires_grad=True), torch.zeros(0, requires_grad=True)
    loss = harmonic_loss(ce, box)
    loss.backward()
    assert loss.item() == 0
    assert ce.grad.shape == box.grad.shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32(dtype):
    ce, box = (torch.rand(6, generator=torch.Generator().manual_seed(seed)).to(dtype) for seed in (0, 1))
    assert harmonic_loss(ce, box).dtype == torch.float32
    assert torch.equal(harmonic_loss(ce, box), harmonic_loss(ce.float(), box.float()))


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"^regression must have the shape of cross_entropy"):
        harmonic_loss(torch.zeros(3), torch.zeros(4))


def test_unified_term_arithmetic():
    """One image, one class, channels (object, background); a positive, two negatives, an ignored anchor.

    Logits log 3, 0, log 7 and 9 over 0: p of the positive 3/4, background's p 1/2 and 1/8. One negative per positive
    takes the one of 1/8. Smooth L1 of deltas (1/2, 2, 0, 0): 1/8 + 3/2 = 13/8 = L. CE = log(4/3):
    (1 + e^-13/8) CE + (1 + 3/4) L + log 8.
    """
    logits = torch.tensor([[[math.log(3), 0], [0, 0], [math.log(7), 0], [9, 0]]])
    labels = torch.tensor([[[1], [0], [0], [-1]]], dtype=torch.int8)
    inputs = loss_inputs(logits, labels)._replace(pred_deltas=torch.tensor([[0.5, -2.0, 0, 0]]))
    total, parts = HarmonicLoss(negatives_per_positive=1.0, min_negatives=0, weight=2.0)(inputs)
    ce, box = math.log(4 / 3), 13 / 8
    expected = (1 + math.exp(-box)) * ce + 1.75 * box + math.log(8)
    assert total.item() == pytest.approx(2 * expected)
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(
        {"harmonic": expected, "ce": ce + math.log(8), "box": box}
    )


def random_inputs(seed, images=3, anchors=20, classes=3):
    """Image 0 has no positives; some anchors are ignored; boxes of side 8 to 12 around their targets."""
    random = np.random.default_rng(seed)
    labels = np.zeros((images, anchors, classes), dtype=np.int8)
    for b in range(1, images):
        for a in random.choice(anchors, 2 * b, replace=False):
            labels[b, a, random.integers(classes)] = 1
    labels[(random.random((images, anchors)) < 0.2) & ~(labels == 1).any(2)] = -1
    positives = torch.from_numpy(np.flatnonzero(labels == 1))
    count = len(positives)
    target = torch.tensor([[0.0, 0, 10, 10]], dtype=torch.float64).repeat(count, 1)
    return LossInputs(
        torch.from_numpy(random.normal(size=(images, anchors, classes + 1))).requires_grad_(),
        torch.from_numpy(labels),
        positives,
        torch.from_numpy(random.normal(size=(count, 4))).requires_grad_(),
        torch.zeros(count, 4, dtype=torch.float64),
        (target + torch.from_numpy(random.uniform(-1, 1, (count, 4)))).requires_grad_(),
        target,
    )


def harmonic_twin(inputs, box, gamma, beta=0.7):
    """The sum over positives, one after the other, plus CE of the negatives as the CE + OHEM twin chooses them."""
    labels, logits = inputs.labels.numpy(), inputs.logits.detach().numpy()
    all_ce, _ = ce_ohem_twin(logits, labels, 2.0, 1)
    count = len(inputs.positives)
    value = all_ce * count
    for i, flat in enumerate(inputs.positives.tolist()):
        b, a, c = np.unravel_index(flat, labels.shape)
        ce = -math.log(math.exp(logits[b, a, c]) / np.exp(logits[b, a]).sum())
        if box == "smooth_l1":
            offsets = np.abs(inputs.pred_deltas[i].detach().numpy())
            loss = sum(0.5 * x * x / beta if x < beta else x - beta / 2 for x in offsets)
        else:
            (x1, y1, x2, y2), (u1, v1, u2, v2) = inputs.pred_boxes[i].tolist(), inputs.target_boxes[i].tolist()
            shared = (min(x2, u2) - max(x1, u1)) * (min(y2, v2) - max(y1, v1))
            iou = shared / ((x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - shared)
            loss = (1 + iou) ** gamma * (1 - iou)
        value += (1 + math.exp(-loss)) * ce + (1 + math.exp(-ce)) * loss - ce
    return value / count


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("box", "gamma"), [("smooth_l1", 1.0), ("harmonic_iou", 0.5), ("harmonic_iou", -1.0)])
def test_unified_term_equals_its_twin(box, gamma, seed):
    inputs = random_inputs(seed)
    loss = HarmonicLoss(box=box, gamma=gamma, beta=0.7, negatives_per_positive=2.0, min_negatives=1)
    total, _ = loss(inputs)
    assert total.item() == pytest.approx(harmonic_twin(inputs, box, gamma), abs=1e-12)
    total.backward()
    assert (inputs.logits.grad[inputs.labels.numpy()[..., 0] == -1] == 0).all()
    moved = inputs.pred_deltas if box == "smooth_l1" else inputs.pred_boxes
    assert (moved.grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize("box", ["smooth_l1", "harmonic_iou"])
def test_without_objects_the_negatives_alone_teach(box):
    """As for ce_ohem, whose value it then has; the deltas get a gradient of zeros."""
    logits = torch.randn(2, 10, 4, requires_grad=True)
    labels = torch.zeros(2, 10, 3, dtype=torch.int8)
    deltas, none = torch.randn(2, 10, 4, requires_grad=True), torch.zeros(0, 4)
    inputs = LossInputs(logits, labels, torch.zeros(0, dtype=torch.int64), deltas.view(-1, 4)[:0], none, none, none)
    total, parts = HarmonicLoss(box=box)(inputs)
    torch.testing.assert_close(total, CEOHEMLoss()(inputs).total)
    assert parts["box"].item() == 0
    total.backward()
    assert (logits.grad.abs().sum(2) > 0).sum() == 6
    assert torch.equal(deltas.grad, torch.zeros_like(deltas))


def test_scores_are_a_softmax_with_background():
    loss = HarmonicLoss()
    assert loss.num_channels(20) == 21
    torch.testing.assert_close(loss.probabilities(loss.prior_bias(20, 0.01)[None]), torch.full((1, 20), 0.01))


def test_a_second_box_loss_is_refused():
    inputs = loss_inputs(torch.randn(1, 4, 2), torch.tensor([[[1], [0], [0], [0]]]))
    with pytest.raises(ValueError, match=r"\['box'\]"):
        Criterion([HarmonicLoss(), SmoothL1Loss()])(inputs)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"box": "giou"}, "box"),
        ({"beta": -0.1}, "beta"),
        ({"gamma": 1.01}, "gamma"),
        ({"gamma": float("nan")}, "gamma"),
        ({"min_negatives": -1}, "min_negatives"),
    ],
)
def test_bad_arguments(arguments, named):
    with pytest.raises(ValueError, match=f"^{named} must"):
        HarmonicLoss(**arguments)
