"""Parameterized AP loss against the authors' numbers, worked arithmetic, a slow twin and finite differences."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from reference import golden_files, loss_inputs, split

from rankdet.losses.curves import FORMS
from rankdet.losses.overlap import paired_giou
from rankdet.losses.parameterized_ap import ParameterizedAPLoss, parameterized_ap_loss

# golden README: loss absolute, gradient absolute, gradient relative to its largest element
TOLERANCES = {torch.float64: (1e-10, 1e-12, 1e-9), torch.float32: (2e-6, 2e-6, 1e-4)}
QUICK = 100  # scores; golden files up to there are checked in float32 on every run

# As released for RetinaNet, and one whose knots score differences of multiples of 1/2 hit; H2, I2, I3, I1, H1.
TESTS = Path(__file__).parent
CONFIG = OmegaConf.load(TESTS.parent / "configs/loss/parameterized_ap.yaml")
PUBLISHED = torch.tensor([[0, 0, *row, 1, 1] for row in CONFIG.control_points], dtype=torch.float64)
DYADIC = torch.tensor(
    [
        [0, 0, 0.25, 0.05, 0.5, 0.2, 0.625, 0.3, 0.75, 0.9, 1, 1],
        [0, 0, 0.25, 0.3, 0.5, 0.5, 0.625, 0.6, 0.75, 0.7, 1, 1],
        [0, 0, 0.125, 0.1, 0.25, 0.5, 0.5, 0.75, 0.75, 0.75, 1, 1],
        [0, 0, 0.25, 0.1, 0.5, 0.2, 0.625, 0.4, 0.75, 0.6, 1, 1],
        [0, 0, 0.25, 0.2, 0.5, 0.6, 0.625, 0.7, 0.75, 0.9, 1, 1],
    ],
    dtype=torch.float64,
)


def value_and_gradients(logits, labels, ious, *args, dtype=torch.float64, **kwargs):
    """The value, and its gradients to logits and IoUs (float64 arrays)."""
    logits, ious = (torch.as_tensor(np.asarray(x)).to(dtype).requires_grad_() for x in (logits, ious))
    value = parameterized_ap_loss(logits, torch.as_tensor(np.asarray(labels)), ious, *args, **kwargs)
    value.backward()
    return value.item(), logits.grad.double().reshape(-1).numpy(), ious.grad.double().numpy()


def check_golden(files, dtype):
    """Every form and blocking of these files: loss, gradients to scores and IoUs, and exact zeros."""
    loss_atol, grad_atol, grad_rtol = TOLERANCES[dtype]
    visited = expected_cases = 0
    for file in files:
        z = dict(np.load(file))
        expected_cases += z["loss"].size
        flat = z["labels"].reshape(-1)
        for (f, b), loss in np.ndenumerate(z["loss"]):
            form, points = str(z["forms"][f]), torch.from_numpy(z["ctrl_points"])
            if form == "searched_signH1":
                form, points = "searched", points[:4]
            case = f"{file.name} {z['forms'][f]} blocked {z['block_grad'][b]}"
            value, to_logits, to_ious = value_and_gradients(
                z["logits"], z["labels"], z["ious"], points, form, bool(z["block_grad"][b]), int(z["num_topk"]),
                dtype=dtype,
            )  # fmt: skip
            assert abs(value - loss) <= loss_atol, case
            for computed, expected in ((to_logits[z["grad_idx"]], z["grad"][f, b]), (to_ious, z["grad_ious"][f, b])):
                tolerance = grad_atol + grad_rtol * np.abs(expected).max()
                assert np.abs(computed - expected).max() <= tolerance, case
            assert (to_logits[flat == -1] == 0).all(), case
            visited += 1
    assert visited == expected_cases >= 10


def loss_files():
    return [file for file in golden_files("pap") if file.name.split("_")[1] not in ("curve", "theta", "search")]


def test_golden():
    check_golden(loss_files(), torch.float64)


def test_golden_in_float32():
    check_golden([file for file in loss_files() if np.load(file)["labels"].size <= QUICK], torch.float32)


@pytest.mark.full
def test_all_golden_in_float32():
    check_golden(loss_files(), torch.float32)


def test_arithmetic():
    """A positive at 0 with IoU 0.6, negatives at -1/2 and 3; linear: u of itself 1/2, of the negatives 1/4 and 1.

    Numerator 1/2 * 0.4 + 1/4 + 1 = 1.45, denominator 1.75: 1 - 0.6 + 0.6 * 1.45 / 1.75. Blocked, the numerator's
    slope in the negative at -1/2 is 1/2, so 0.6 / 1.75 / 2 onto it and off the positive; the one at 3 is out of reach.
    Not blocked, the denominator's slope 1/2 takes 0.6 * 1.45 / 1.75^2 / 2 away. The IoU: -1 + 1.45 / 1.75 from I1 and
    I3, and from I2 -(1/2) 0.6 / 1.75.
    """
    arguments = ([0.0, -0.5, 3.0], [1, 0, 0], [0.6], None, "linear")
    push, pull = 0.6 / 1.75 / 2, 0.6 * 1.45 / 1.75**2 / 2
    for block, onto in ((True, push), (False, push - pull)):
        value, to_logits, to_ious = value_and_gradients(*arguments, block)
        assert value == pytest.approx(0.4 + 0.6 * 1.45 / 1.75, abs=1e-7)  # the released 1e-8 beside P
        np.testing.assert_allclose(to_logits, [-onto, onto, 0], atol=1e-7)
        np.testing.assert_allclose(to_ious, [-1 + 1.45 / 1.75 - 0.5 * 0.6 / 1.75], atol=1e-7)


def test_arithmetic_of_two_positives():
    """Positives at 0 and 0 with IoUs 1 and 0, square: every u is 1/2 and every H 1/4, I is o^2.

    Both numerators 1/4 * 0 + 1/4 * 1, denominators 1/2: ratios 1/2. Losses 1 - 1 + 1/2 and 1 - 0 + 0, mean 3/4.
    The better one's IoU: (2 * 1/2 - 2) / 2 and from I2, counted by itself alone with I3 = 1, -2 (1/4 / (1/2)) / 2.
    """
    value, _, to_ious = value_and_gradients([0.0, 0.0], [1, 1], [1.0, 0.0], None, "square")
    assert value == pytest.approx(3 / 4, abs=1e-7)
    np.testing.assert_allclose(to_ious, [-1 / 2 - 1 / 2, 0], atol=1e-7)


def test_arithmetic_below_the_cut():
    """Positive at -5 with IoU 0.6, negatives at 0 and -9, the highest alone counted; linear.

    The positive itself has no part: 1 / 1, so 1 - 0.6 + 0.6 = 1. Counted with two, or all, u = 1, 1/2 (and 0):
    (1 + 0.2) / 1.5. An ignored score, the highest of all, takes nobody's place.
    """
    arguments = ([-5.0, 0.0, -9.0, 7.0], [1, 0, 0, -1], [0.6], None, "linear", True)
    assert value_and_gradients(*arguments, 1)[0] == pytest.approx(1, abs=1e-7)
    for num_topk in (2, 4):
        assert value_and_gradients(*arguments, num_topk)[0] == pytest.approx(0.4 + 0.6 * 1.2 / 1.5, abs=1e-7)


def twin_functions(form, points):
    """H1, H2, I1, I2, I3: each a function of one number that returns its value and slope."""

    def sigmoid(x):
        value = 0.5 + 0.5 * math.tanh(x / 2)
        return value, value * (1 - value)

    def sigmoid_of_iou(o):
        value, slope = sigmoid(2 * o - 1)
        return value, 2 * slope

    def power(u):
        exponent = {"linear": 1.0, "square": 2.0, "sqrt": 0.5}[form]
        return u**exponent, exponent * u ** (exponent - 1) if u > 0 or exponent >= 1 else 0.0

    def curve(row):
        def function(u):
            k = next(k for k in range(5) if u <= row[2 * k + 2])  # a knot belongs to the segment on its left
            slope = (row[2 * k + 3] - row[2 * k + 1]) / (row[2 * k + 2] - row[2 * k])
            return row[2 * k + 1] + slope * (u - row[2 * k]), slope

        return function

    def of_difference(function):
        def step(x):
            u = min(max(x / 2 + 0.5, 0.0), 1.0)
            value, slope = function(u)
            return value, slope / 2 if 0 < u < 1 else 0.0

        return step

    if form == "sigmoid":
        return sigmoid, sigmoid, sigmoid_of_iou, sigmoid_of_iou, sigmoid_of_iou
    if form != "searched":
        return of_difference(power), of_difference(power), power, power, power
    h2, i2, i3, i1 = map(curve, points.tolist()[:4])
    h1 = of_difference(curve(points[4].tolist())) if len(points) == 5 else lambda x: ((x > 0) / 2 + (x >= 0) / 2, 0.0)
    return h1, of_difference(h2), i1, i2, i3


def pap_twin(scores, labels, ious, points=None, form="searched", block_gradient=True, num_topk=100_000):
    """Value, gradients to scores and IoUs, and every positive's denominator, pair by pair."""
    h1, h2, i1, i2, i3 = twin_functions(form, points)
    s, pos, neg = split(scores, labels)
    number = {j: k for k, j in enumerate(pos)}
    counted = sorted((*pos, *neg), key=lambda j: -s[j])[:num_topk]
    value, to_scores, to_ious, denominators = 0.0, np.zeros_like(s), np.zeros(len(pos)), []
    for k, i in enumerate(pos):
        lost = {j: 1 - i2(ious[number[j]] if j in number else 0.0)[0] for j in counted}
        numerator = sum(h2(s[j] - s[i])[0] * lost[j] for j in counted)
        denominators.append(sum(h1(s[j] - s[i])[0] for j in counted))
        ratio, share = numerator / denominators[-1], i3(ious[k])[0] / denominators[-1]
        value += 1 - i1(ious[k])[0] + i3(ious[k])[0] * ratio
        to_ious[k] += i3(ious[k])[1] * ratio - i1(ious[k])[1]
        for j in counted:
            slope = share * h2(s[j] - s[i])[1] * lost[j]
            if not block_gradient:
                slope -= share * ratio * h1(s[j] - s[i])[1]
            to_scores[j] += slope
            to_scores[i] -= slope
            if j in number:
                to_ious[number[j]] -= share * h2(s[j] - s[i])[0] * i2(ious[number[j]])[1]
    count = len(pos) + 1e-8
    return value / count, to_scores / count, to_ious / count, np.array(denominators)


# Differences that the twin's u = x / 2 + 1/2 holds exactly: else it would take one beside a knot for one at it.
LEVELS = st.one_of(
    st.integers(-12, 12).map(lambda i: i / 4),
    st.integers(-3 * 2**18, 3 * 2**18).map(lambda i: i / 2**18),
    st.sampled_from([-1e4, 1e4]),
)
IOUS = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(2**-10, 1, width=32))
CASES = st.lists(st.tuples(LEVELS, st.sampled_from([1, 0, 0, -1]), IOUS), max_size=16)
FUNCTIONS = st.sampled_from(
    [(form, None) for form in FORMS if form != "searched"]
    + [("searched", points) for points in (PUBLISHED, PUBLISHED[:4], DYADIC, DYADIC[:4])]
)


def unzip(cases):
    """Scores, labels, and the IoUs of the positives."""
    scores, labels, ious = np.array(cases, dtype=np.float64).reshape(-1, 3).T
    return scores, labels.astype(np.int8), ious[labels == 1]


def check_twin(scores, labels, ious, points, *args):
    expected = pap_twin(scores, labels, ious, points, *args)
    for dtype, atol in ((torch.float64, 1e-10), (torch.float32, 2e-5)):
        computed = value_and_gradients(scores, labels, ious, points, *args, dtype=dtype)
        for each, truth in zip(computed, expected[:3], strict=True):
            np.testing.assert_allclose(each, truth, atol=atol, rtol=atol)


@settings(max_examples=120, deadline=None)
@given(cases=CASES, functions=FUNCTIONS, block=st.booleans())
def test_equals_its_twin(cases, functions, block):
    """All forms; ties, differences on knots and IoUs on knots among them."""
    form, points = functions
    check_twin(*unzip(cases), points, form, block)


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(LEVELS, min_size=5, max_size=16, unique=True),
    functions=FUNCTIONS,
    block=st.booleans(),
    num_topk=st.integers(1, 5),
    seed=st.integers(0, 999),
)
def test_equals_its_twin_when_cut(scores, functions, block, num_topk, seed):
    """No two scores are alike, so that it is plain who is cut off."""
    random = np.random.default_rng(seed)
    labels = random.choice([1, 0, -1], len(scores))
    form, points = functions
    check_twin(np.array(scores), labels, random.uniform(0, 1, (labels == 1).sum()), points, form, block, num_topk)


@settings(max_examples=60, deadline=None)
@given(cases=CASES, functions=FUNCTIONS, block=st.booleans(), shift=st.integers(-400, 400), seed=st.integers(0, 9))
def test_shift_and_permutation(cases, functions, block, shift, seed):
    """Neither changes the value; gradients follow their scores and boxes, and the scores' add up to 0."""
    scores, labels, ious = unzip(cases)
    scores = np.round(scores * 2**20) / 2**20  # so that a shift rounds nothing
    form, points = functions
    value, to_logits, to_ious = value_and_gradients(scores, labels, ious, points, form, block)
    assert to_logits.sum() == pytest.approx(0, abs=1e-10)
    order = np.random.default_rng(seed).permutation(len(scores))
    number = np.full(len(scores), -1)  # of a positive, in order of appearance
    number[labels == 1] = np.arange(len(ious))
    of_positives = number[order][labels[order] == 1]
    permuted = value_and_gradients(scores[order] + shift / 4, labels[order], ious[of_positives], points, form, block)
    for each, truth in zip(permuted, (value, to_logits[order], to_ious[of_positives]), strict=True):
        np.testing.assert_allclose(each, truth, atol=1e-10)


@pytest.mark.parametrize("points", [PUBLISHED, PUBLISHED[:4], None], ids=["searched", "searched, sign", ""])
@pytest.mark.parametrize("form", FORMS)
def test_finite_differences(form, points):
    """Not blocked, both gradients are those of the value; no two scores are a knot apart here."""
    if (form == "searched") != (points is not None):
        return
    random = np.random.default_rng(8)
    logits, ious = (torch.from_numpy(x).requires_grad_() for x in (random.normal(0, 0.7, 14), random.uniform(0, 1, 5)))
    labels = torch.tensor([1, 0, 0, -1] + [1, 0] * 4 + [0, 0])

    def loss(logits, ious):
        return parameterized_ap_loss(logits, labels, ious, points, form, block_gradient=False)

    assert torch.autograd.gradcheck(loss, (logits, ious))


@pytest.mark.parametrize("form", FORMS)
def test_blocked_gradient_is_the_numerators(form):
    """Finite differences of the value with every denominator left as it was (supplement A.1).

    value = mean of 1 - I1 + ratio * I3, so a positive's denominator is left alone by the twin's value times its change.
    """
    random = np.random.default_rng(9)
    scores, ious, labels = random.normal(0, 0.7, 12), random.uniform(0.1, 1, 4), np.array([1, 0, 0] * 4)
    points = PUBLISHED if form == "searched" else None
    _, to_logits, to_ious = value_and_gradients(scores, labels, ious, points, form)
    _, _, _, denominators = pap_twin(scores, labels, ious, points, form)
    _, h2, i1, i2, i3 = twin_functions(form, points)
    pos = np.flatnonzero(labels == 1)

    def frozen(s):
        lost = np.ones(12) - i2(0.0)[0]
        lost[pos] = [1 - i2(o)[0] for o in ious]
        numerators = [sum(h2(s[j] - s[i])[0] * lost[j] for j in range(12)) for i in pos]
        return np.mean(
            [1 - i1(o)[0] + i3(o)[0] * n / d for o, n, d in zip(ious, numerators, denominators, strict=True)]
        )

    for j, move in enumerate(1e-6 * np.eye(12)):
        assert to_logits[j] == pytest.approx((frozen(scores + move) - frozen(scores - move)) / 2e-6, abs=1e-7)
    value_only, _, same = value_and_gradients(scores, labels, ious, points, form, False)
    assert value_only == pytest.approx(frozen(scores), abs=1e-7)
    np.testing.assert_allclose(same, to_ious, rtol=1e-12)  # no IoU is in the denominator


class TestTopk:
    """40 scores, no two alike, every fifth positive."""

    scores = np.random.default_rng(1).permutation(40) / 8 - 2.5
    labels = np.array([1, 0, 0, 0, -1] * 8, dtype=np.int8)
    ious = np.random.default_rng(2).uniform(0, 1, 8)

    def test_as_many_as_there_are_is_all(self):
        for block in (True, False):
            everything = value_and_gradients(self.scores, self.labels, self.ious, PUBLISHED, block_gradient=block)
            for num_topk in (40, 41):
                arguments = (self.scores, self.labels, self.ious, PUBLISHED, "searched", block, num_topk)
                for each, truth in zip(value_and_gradients(*arguments), everything, strict=True):
                    np.testing.assert_array_equal(each, truth)
            arguments = (self.scores, self.labels, self.ious, PUBLISHED, "searched", block, 32)  # the ignored 8 are out
            for each, truth in zip(value_and_gradients(*arguments), everything, strict=True):
                np.testing.assert_allclose(each, truth, atol=1e-14)

    @pytest.mark.parametrize("num_topk", [1, 5, 16, 31])
    def test_who_is_cut_off_is_as_good_as_ignored(self, num_topk):
        """With positives above all others, so that none of them is cut off."""
        scores = np.where(self.labels == 1, self.scores / 10 + 9, self.scores)
        num_topk = max(num_topk, 8)
        rest = np.argsort(-np.where(self.labels >= 0, scores, -np.inf))[num_topk:]
        labels = self.labels.copy()
        labels[rest] = -1
        for form, points in (("searched", PUBLISHED), ("sqrt", None), ("sigmoid", None)):
            cut = value_and_gradients(scores, self.labels, self.ious, points, form, False, num_topk)
            ignored = value_and_gradients(scores, labels, self.ious, points, form, False)
            for each, truth in zip(cut, ignored, strict=True):
                np.testing.assert_allclose(each, truth, atol=1e-14)
            assert (cut[1][rest] == 0).all()


def test_published_control_points_at_50000_scores_in_float32():
    """100 positives among them, crowded within reach of each other; against float64 sums pair by pair."""
    random = np.random.default_rng(5)
    scores = random.normal(-4.6, 0.3, 50_000).astype(np.float32)
    labels = np.zeros(50_000, dtype=np.int8)
    labels[random.choice(50_000, 100, replace=False)] = 1
    ious = random.uniform(0, 1, 100).astype(np.float32)
    s, pos, o = scores.astype(np.float64), np.flatnonzero(labels == 1), ious.astype(np.float64)
    h2, i2, i3, i1, h1 = ((row[0::2], row[1::2]) for row in PUBLISHED.numpy())
    lost = np.ones(50_000)
    lost[pos] = 1 - np.interp(o, *i2)
    value, gradient = 0.0, np.zeros(50_000)
    for k, i in enumerate(pos):
        u = np.clip((s - s[i]) / 2 + 0.5, 0, 1)
        denominator = np.interp(u, *h1).sum()
        share = np.interp(o[k], *i3) / denominator / 100
        value += (1 - np.interp(o[k], *i1)) / 100 + share * np.interp(u, *h2) @ lost
        slopes = (np.diff(h2[1]) / np.diff(h2[0]) / 2)[np.clip(np.searchsorted(h2[0], u) - 1, 0, 4)]
        push = share * lost * np.where((u > 0) & (u < 1), slopes, 0)
        gradient += push
        gradient[i] -= push.sum()
    loss_atol, grad_atol, grad_rtol = TOLERANCES[torch.float32]
    computed, to_logits, _ = value_and_gradients(scores, labels, ious, PUBLISHED, dtype=torch.float32)
    assert abs(computed - value) <= loss_atol
    assert np.abs(to_logits - gradient).max() <= grad_atol + grad_rtol * np.abs(gradient).max()


@pytest.mark.parametrize("labels", [[], [0, 0], [-1, -1], [-1, 0]])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_no_positives_is_zero_with_a_gradient_path(labels, dtype):
    logits = torch.arange(float(len(labels))).to(dtype).requires_grad_()
    ious = torch.zeros(0, dtype=torch.float64, requires_grad=True)
    loss = parameterized_ap_loss(logits, torch.tensor(labels, dtype=torch.int8), ious, PUBLISHED)
    loss.backward()
    assert (loss.item(), loss.dtype) == (0, torch.float64 if dtype == torch.float64 else torch.float32)
    assert logits.grad.tolist() == [0] * len(labels)
    assert ious.grad.shape == (0,)


def test_boxes_apart_have_a_finite_gradient():
    """IoU 0 and, off the scale, -0.25 and 1.5, which count as 0 and 1: no form's slope is infinite there."""
    for form in FORMS:
        points = PUBLISHED if form == "searched" else None
        ends = value_and_gradients([0.0, 1.0, 2.0, 1.5], [1, 1, 1, 0], [0.0, -0.25, 1.5], points, form)
        assert all(np.isfinite(each).all() for each in ends)
        clamped = value_and_gradients([0.0, 1.0, 2.0, 1.5], [1, 1, 1, 0], [0.0, 0.0, 1.0], points, form)
        for each, truth in zip(ends, clamped, strict=True):
            np.testing.assert_array_equal(each, truth)


def test_upstream_half_types_and_shapes():
    """bfloat16 logits and IoUs of a [2, 3, 4] head are computed in float32; three times the loss, three times both."""
    logits, labels = torch.randn(2, 3, 4).bfloat16().requires_grad_(), torch.tensor([1, 0, 0, -1] * 6).view(2, 3, 4)
    ious = torch.rand(6).bfloat16().requires_grad_()
    loss = parameterized_ap_loss(logits, labels, ious, PUBLISHED)
    (4 * loss).backward()
    value, to_logits, to_ious = value_and_gradients(
        logits.detach().float(), labels, ious.detach().float(), PUBLISHED, dtype=torch.float32
    )
    assert (loss.dtype, loss.item()) == (torch.float32, value)
    assert (logits.grad.dtype, logits.grad.shape, ious.grad.dtype) == (torch.bfloat16, (2, 3, 4), torch.bfloat16)
    np.testing.assert_allclose(logits.grad.double().reshape(-1), 4 * to_logits, rtol=0.01, atol=1e-9)
    np.testing.assert_allclose(ious.grad.double(), 4 * to_ious, rtol=0.01, atol=1e-9)


def test_given_positives_change_nothing():
    logits, labels, ious = torch.randn(40), torch.tensor([1, 0, 0, -1] * 10), torch.rand(10)
    found = parameterized_ap_loss(logits, labels, ious, PUBLISHED)
    given = parameterized_ap_loss(logits, labels, ious, PUBLISHED, positives=(labels == 1).nonzero()[:, 0])
    assert torch.equal(found, given)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"ious": torch.rand(3)}, r"^ious must be \[2\], one for each positive, got \(3,\)"),
        ({"num_topk": 0}, r"^num_topk must be at least 1, got 0"),
        ({"form": "cubic"}, r"^form must be one of"),
        ({"control_points": None}, r"^control_points must be \[5, 12\] or \[4, 12\], got None"),
        ({"control_points": PUBLISHED.flip(1)}, r"^control_points must ascend from \(0, 0\) to \(1, 1\)"),
        ({"logits": torch.tensor([0, torch.nan, 0])}, r"^logits must be finite"),
        ({"labels": torch.tensor([1, 2, 0])}, r"^labels must be 1, 0 or -1"),
    ],
)
def test_bad_input(changed, message):
    arguments = {"logits": torch.zeros(3), "labels": torch.tensor([1, 0, 1]), "ious": torch.rand(2)}
    with pytest.raises(ValueError, match=message):
        parameterized_ap_loss(**arguments | {"control_points": PUBLISHED} | changed)


class TestModule:
    published = PUBLISHED[:, 2:-2].tolist()

    def inputs(self, apart=2.0):
        torch.manual_seed(3)
        labels = torch.randint(-1, 2, (2, 6, 3), dtype=torch.int8)
        return loss_inputs(torch.randn(2, 6, 3, requires_grad=True), labels, apart)

    def test_its_arguments_reach_the_loss(self):
        """The IoU is (GIoU + 1) / 2."""
        visited = 0
        for arguments in (
            {"control_points": self.published, "block_gradient": False},
            {"control_points": self.published[:4], "num_topk": 5},
            {"form": "square"},
        ):
            inputs = self.inputs()
            total, parts = ParameterizedAPLoss(**arguments, weight=2.0)(inputs)
            if "control_points" in arguments:
                arguments["control_points"] = PUBLISHED[: len(arguments["control_points"])]
            ious = (paired_giou(inputs.pred_boxes, inputs.target_boxes) + 1) / 2
            expected = parameterized_ap_loss(inputs.logits, inputs.labels, ious, **arguments)
            torch.testing.assert_close(parts, {"pap": expected.detach()})
            torch.testing.assert_close(total, 2 * expected)
            visited += 1
        assert visited == 3

    @pytest.mark.parametrize("apart", [2.0, 20.0])
    def test_gradient_scale_is_for_the_boxes_and_leaves_the_value(self, apart):
        results = []
        for scale in (1.0, 4.1231):
            inputs = self.inputs(apart)
            total, _ = ParameterizedAPLoss(self.published, gradient_scale=scale)(inputs)
            total.backward()
            results.append((total, inputs.logits.grad, inputs.pred_deltas.grad))
        (value, to_logits, to_deltas), (scaled_value, scaled_to_logits, scaled_to_deltas) = results
        assert torch.equal(value, scaled_value)
        assert torch.equal(to_logits, scaled_to_logits)
        torch.testing.assert_close(scaled_to_deltas, 4.1231 * to_deltas)
        assert (to_deltas != 0).any()

    def test_shared_parameters_are_one_row_repeated(self):
        """Four points on the line through (0, 0) and (1, 1), five times, are the linear form."""
        row = [0.2, 0.2, 0.4, 0.4, 0.6, 0.6, 0.8, 0.8]
        gradients = []
        for loss in (ParameterizedAPLoss([row] * 5), ParameterizedAPLoss(form="linear")):
            inputs = self.inputs()
            loss(inputs).total.backward()
            gradients.append((inputs.logits.grad, inputs.pred_deltas.grad))
        torch.testing.assert_close(*gradients)

    def test_control_points_are_saved_and_moved_with_it(self):
        loss = ParameterizedAPLoss(self.published)
        assert torch.equal(loss.state_dict()["control_points"], PUBLISHED)
        assert ParameterizedAPLoss(form="linear").state_dict() == {}

    def test_published_config(self):
        """The yaml's points are the golden data's, and it takes them as they come from a config."""
        golden = np.load(TESTS / "golden" / "pap_p5_n50_overlap_s11.npz")["ctrl_points"]
        assert PUBLISHED.tolist() == golden.tolist()
        assert torch.equal(ParameterizedAPLoss(CONFIG.control_points).control_points, PUBLISHED)
        assert (CONFIG.form, CONFIG.block_gradient, CONFIG.gradient_scale) == ("searched", True, 4.1231)

    def test_no_positives_is_zero_with_a_gradient_path(self):
        logits, deltas = torch.randn(1, 4, 2, requires_grad=True), torch.randn(1, 4, 4, requires_grad=True)
        inputs = loss_inputs(logits, torch.zeros(1, 4, 2))
        none = deltas.reshape(-1, 4)[inputs.positives]
        total, parts = ParameterizedAPLoss(self.published)(inputs._replace(pred_deltas=none, pred_boxes=none * 1))
        total.backward()
        assert total.item() == parts["pap"].item() == 0
        assert torch.equal(logits.grad, torch.zeros_like(logits))
        assert torch.equal(deltas.grad, torch.zeros_like(deltas))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({}, r"^control_points must be"),
            ({"control_points": [[0.5, 0.5]] * 5}, r"^control_points must be .* got 5 of 2, 2, 2, 2, 2"),
            ({"control_points": [published[0]] * 3}, r"^control_points must be five rows .* got 3 of 8, 8, 8"),
            ({"control_points": [*published[:4], published[4][:7]]}, r"^control_points must be .* of 8, 8, 8, 8, 7"),
            ({"control_points": published[0]}, r"^control_points must be .* got 8 of 1, 1"),
            ({"form": "cubic"}, r"^form must be"),
            ({"form": "linear", "num_topk": 0}, r"^num_topk must be"),
            ({"form": "linear", "gradient_scale": 0.0}, r"^gradient_scale must be positive"),
        ],
    )
    def test_bad_arguments_are_refused_when_built(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            ParameterizedAPLoss(**arguments)
