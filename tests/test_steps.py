"""Every step function's sums over pairs, in both directions, against the full matrix of pairs."""

import math
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rankdet.losses import blocks, intervals, step_piecewise, step_sigmoid, sums
from rankdet.losses.step_direct import DirectStep, power_step
from rankdet.losses.step_piecewise import curve_step, heaviside_step, linear_step, sign_step
from rankdet.losses.step_sigmoid import SigmoidStep

# Its slope changes at every knot and is 0 between two; binary fractions, so that differences hit knots exactly.
CURVE = ((0, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1), (0, 1 / 8, 1 / 2, 5 / 8, 5 / 8, 1))


def linear(delta):
    """The slope is 0 at both knots and outside (golden README: at exactly u = 0 or 1 slope 0)."""
    return SimpleNamespace(
        name=f"linear {delta}",
        step=linear_step(delta),
        value=lambda x: min(max(x / (2 * delta) + 0.5, 0.0), 1.0),
        slope=lambda x: 0.5 / delta if -delta < x < delta else 0.0,
    )


def sigmoid(k):
    def value(x):
        return 1 / (1 + math.exp(-x / k)) if x > -700 * k else 0.0

    return SimpleNamespace(
        name=f"sigmoid {k}", step=SigmoidStep(k), value=value, slope=lambda x: value(x) * value(-x) / k
    )


def curve(xs, ys):
    """Segment by segment: at a knot the one on its left, outside and at u = 0 and 1 slope 0."""

    def segment(u):
        return next(k for k in range(1, len(xs)) if u <= xs[k])

    def value(x):
        u = min(max(x / 2 + 0.5, 0.0), 1.0)
        k = segment(u)
        return ys[k - 1] + (ys[k] - ys[k - 1]) * (u - xs[k - 1]) / (xs[k] - xs[k - 1])

    def slope(x):
        u = x / 2 + 0.5
        if not 0 < u < 1:
            return 0.0
        k = segment(u)
        return (ys[k] - ys[k - 1]) / (xs[k] - xs[k - 1]) / 2

    return SimpleNamespace(name="curve", step=curve_step(xs, ys), value=value, slope=slope)


def power(exponent):
    def slope(x):
        u = x / 2 + 0.5
        return exponent * u ** (exponent - 1) / 2 if 0 < u < 1 else 0.0

    return SimpleNamespace(
        name=f"power {exponent}",
        step=power_step(exponent),
        value=lambda x: min(max(x / 2 + 0.5, 0.0), 1.0) ** exponent,
        slope=slope,
    )


def flat(name, step, value):
    return SimpleNamespace(name=name, step=step, value=value, slope=lambda x: 0.0)


TWINS = [
    linear(0.25),
    linear(0.3),
    linear(1.0),
    linear(4.0),
    flat("heaviside", heaviside_step(), lambda x: float(x >= 0)),
    flat("sign", sign_step(), lambda x: ((x > 0) - (x < 0)) / 2 + 0.5),
    curve(*CURVE),
    sigmoid(0.25),
    sigmoid(2.0),
    power(2.0),
    power(0.5),
]
PIECEWISE = TWINS[:7]
each_step = pytest.mark.parametrize("twin", TWINS, ids=lambda twin: twin.name)


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def matrix(function, points, scores):
    """[P, N]: the function of score - point, pair by pair."""
    return np.array([[function(n - p) for n in scores] for p in points]).reshape(len(points), len(scores))


def assert_sums(twin, points, scores, dtype, takes_part, point_weights, score_weights):
    """All four sums of the step's pairs against its twin's full matrices.

    float32 sums over points have float32's error of their largest partial value; all others are float64. A sigmoid's
    sums may come from bins, whose error test_step_sigmoid limits.
    """
    pairs = twin.step.pairs(torch.tensor(points, dtype=dtype), torch.tensor(scores, dtype=dtype), takes_part)
    active = np.ones(len(scores)) if takes_part is None else takes_part.numpy()
    values, slopes = (matrix(function, points, scores) * active for function in (twin.value, twin.slope))
    exact = 1e-9 if dtype == torch.float64 or not isinstance(twin.step, SigmoidStep) else 1e-6
    rtol, atol = (1e-9, 1e-9) if dtype == torch.float64 else (1e-6, 1e-6 * (1 + np.abs(point_weights).sum()))
    for at_points, at_scores, full in (
        (pairs.at_points, pairs.at_scores, values),
        (pairs.slopes_at_points, pairs.slopes_at_scores, slopes),
    ):
        results = at_points(), at_points(double(score_weights)), at_scores(double(point_weights))
        assert [result.dtype for result in results] == [torch.float64, torch.float64, dtype]
        np.testing.assert_allclose(results[0], full.sum(1), rtol=exact, atol=exact)
        np.testing.assert_allclose(results[1], full @ score_weights, rtol=exact, atol=10 * exact)
        np.testing.assert_allclose(results[2], point_weights @ full, rtol=rtol, atol=atol)


# Multiples of 1/8 make ties and differences that hit a knot common; the rest are any float32 up to 1e4.
GRID = st.one_of(st.integers(-40, 40).map(lambda i: i / 8), st.sampled_from([-1e4, 1e4]))
SCORES = st.one_of(GRID, st.integers(-(10**7), 10**7).map(lambda i: float(np.float32(i / 1000))))


@st.composite
def problems(draw):
    """points, scores, the type they are given in, who takes part, weights of either sign for both."""
    points, scores = draw(st.lists(SCORES, max_size=8)), draw(st.lists(SCORES, max_size=12))
    random = np.random.default_rng(draw(st.integers(0, 9)))
    takes_part = torch.tensor(random.random(len(scores)) < 0.8) if draw(st.booleans()) else None
    weights = random.uniform(-2, 9, len(points)), random.uniform(-2, 9, len(scores))
    return points, scores, draw(st.sampled_from([torch.float64, torch.float32])), takes_part, *weights


@each_step
@settings(max_examples=40, deadline=None)
@given(problem=problems())
def test_sums_equal_the_full_matrix(twin, problem):
    assert_sums(twin, *problem)


@pytest.mark.full
@each_step
@settings(max_examples=300, deadline=None)
@given(problem=problems())
def test_sums_equal_the_full_matrix_on_more_problems(twin, problem):
    assert_sums(twin, *problem)


@pytest.mark.parametrize("twin", PIECEWISE, ids=lambda twin: twin.name)
@settings(max_examples=25, deadline=None)
@given(problem=problems())
def test_sums_as_a_gpu_adds_them_equal_the_full_matrix(twin, problem):
    """Fixed-point sums and running sums in blocks, in the CPU's place."""
    with as_on_a_gpu():
        assert_sums(twin, *problem)


@pytest.mark.parametrize("twin", PIECEWISE, ids=lambda twin: twin.name)
@settings(max_examples=25, deadline=None)
@given(problem=problems(), few=st.booleans())
def test_sums_over_many_scores_equal_the_full_matrix(twin, problem, few):
    """Intervals by the grid, whether or not the scores left of all knots are sorted out first; sums in blocks."""
    fraction = 2.0 if few else 0.0  # of scores that count as few
    with (
        mock.patch.multiple(intervals, LARGE=1, FEW=fraction),
        mock.patch.object(step_piecewise, "are_few", wraps=intervals.are_few) as asked,
        mock.patch.object(blocks, "BLOCK", 3),
    ):
        assert_sums(twin, *problem)
        assert asked.called == bool(problem[0])


@contextmanager
def as_on_a_gpu():
    """The forms of the sums that other devices than the CPU use."""
    with (
        mock.patch.multiple(
            step_piecewise,
            bounded=torch.clamp,
            interval_sums=sums.fixed_point_sums,
            running_sums=sums.blockwise_running_sums,
        ),
        mock.patch.object(step_sigmoid, "interval_sums", sums.fixed_point_sums),
        mock.patch.object(sums, "running_sums", sums.blockwise_running_sums),
    ):
        yield


def test_linear_and_hard_by_hand():
    """Points 0 and 2, scores -0.5, 0, 1.5 and 9, delta 1, so f(x) = clamp(x/2 + 1/2, 0, 1).

    At point 0: 1/4 + 1/2 + 1 + 1 = 2.75; at point 2: 0 + 0 + 1/4 + 1 = 1.25. With weights 3 and 5 on the points the
    scores get 3/4, 3/2, 3 + 5/4 and 8. The hard step: 0 + 1 + 1 + 1 and 0 + 0 + 0 + 1; back 0, 3, 3, 8.
    Slopes of 1/2 within 1: of -0.5 and 0 at point 0, of 1.5 at point 2; back 3/2, 3/2, 5/2, 0.
    """
    points, scores, weights = torch.tensor([0.0, 2.0]), torch.tensor([-0.5, 0.0, 1.5, 9.0]), double([3.0, 5.0])
    pairs = linear_step(1.0).pairs(points, scores)
    assert pairs.at_points().tolist() == [2.75, 1.25]
    assert pairs.at_scores(weights).tolist() == [0.75, 1.5, 4.25, 8.0]
    assert pairs.slopes_at_points().tolist() == [1.0, 0.5]
    assert pairs.slopes_at_scores(weights).tolist() == [1.5, 1.5, 2.5, 0.0]
    hard = heaviside_step().pairs(points, scores)
    assert hard.at_points().tolist() == [3.0, 1.0]
    assert hard.at_scores(weights).tolist() == [0.0, 3.0, 3.0, 8.0]
    assert hard.slopes_at_scores(weights).tolist() == [0.0] * 4


def test_weights_and_takes_part_by_hand():
    """Scores 0 and 1 with weights 2 and 4 at point 0, delta 1: 2/2 + 4 = 5; with the second left out, 1."""
    points, scores, weights = torch.zeros(1), torch.tensor([0.0, 1.0]), torch.tensor([2.0, 4.0])
    assert linear_step(1.0).pairs(points, scores).at_points(weights).tolist() == [5.0]
    partly = linear_step(1.0).pairs(points, scores, torch.tensor([True, False]))
    assert partly.at_points(weights).tolist() == [1.0]
    assert partly.at_scores(double([1.0])).tolist() == [0.5, 0.0]


def test_signed_weights_of_no_total_by_hand():
    """Scores 1/2 and 0 with weights 1 and -1 at point 0, delta 1: 3/4 - 1/2, though the weights add up to nothing."""
    pairs = linear_step(1.0).pairs(torch.zeros(1), torch.tensor([0.5, 0.0]))
    assert pairs.at_points(torch.tensor([1.0, -1.0])).tolist() == [0.25]


def at_differences(step, differences):
    """Values and slopes of a step at score differences, exact in float64 and by both directions alike."""
    pairs = step.pairs(double([0.0]), double(differences))
    values, slopes = pairs.at_scores(double([1.0])).tolist(), pairs.slopes_at_scores(double([1.0])).tolist()
    for n, difference in enumerate(differences):
        one = step.pairs(double([7.0]), double([7 + difference]))
        assert (one.at_points().item(), one.slopes_at_points().item()) == (values[n], slopes[n])
    return values, slopes


def test_differences_at_knots_by_hand():
    """Linear, delta 2: 0 and 1 at -2 and 2, slope 1/4 between them but not at them. The sign's ties count 1/2.

    The curve through (0, 0), (1/2, 1/4), (1, 1) over u = x/2 + 1/2 has slopes 1/4 and 3/4 in x: at x = 0 that on the
    left, at -1 and 1 none. u**2 has slope u there, and sqrt(u) 1/(4 sqrt(u)): 1/4 at 1 - 2^-52, but 0 at u = 1.
    """
    assert at_differences(linear_step(2.0), [-2.0, 0.0, 1.0, 2.0]) == ([0, 0.5, 0.75, 1], [0, 0.25, 0.25, 0])
    assert at_differences(heaviside_step(), [-1.0, 0.0, 1.0]) == ([0, 1, 1], [0, 0, 0])
    assert at_differences(sign_step(), [-1.0, 0.0, 1.0]) == ([0, 0.5, 1], [0, 0, 0])
    bent = curve_step((0.0, 0.5, 1.0), (0.0, 0.25, 1.0))
    assert at_differences(bent, [-1.0, -0.5, 0.0, 0.5, 1.0]) == ([0, 0.125, 0.25, 0.625, 1], [0, 0.25, 0.25, 0.75, 0])
    assert at_differences(power_step(2.0), [-1.0, 0.0, 0.5, 1.0]) == ([0, 0.25, 0.5625, 1], [0, 0.5, 0.75, 0])
    assert at_differences(power_step(0.5), [-1.0, -0.5, 1.0]) == ([0, 0.5, 1], [0, 0.5, 0])


def test_the_curve_by_hand():
    """At the knots of CURVE, x = 2 u - 1: its y, and the slope dy/du / 2 of the segment on the left, 0 at the ends."""
    values, slopes = at_differences(curve_step(*CURVE), [2 * u - 1 for u in CURVE[0]])
    assert values == [0, 1 / 8, 1 / 2, 5 / 8, 5 / 8, 1]
    assert slopes == [0, 1 / 2, 3 / 2, 1 / 4, 0, 0]


def test_a_curve_of_tensors_is_one_of_numbers():
    scores, points = torch.linspace(-2, 2, 33), torch.tensor([-0.5, 0.25])
    by_tensors = curve_step(*(double(row).unbind() for row in CURVE)).pairs(points, scores)
    by_numbers = curve_step(*CURVE).pairs(points, scores)
    assert torch.equal(by_tensors.at_points(), by_numbers.at_points())
    assert torch.equal(by_tensors.slopes_at_scores(double([1, 2])), by_numbers.slopes_at_scores(double([1, 2])))


@each_step
def test_value_at_zero(twin):
    """f(0) is what at_zero says; a curve does not say."""
    value = twin.step.pairs(double([0.25]), double([0.25])).at_points().item()
    assert value == pytest.approx(twin.value(0.0), abs=1e-15)
    assert twin.step.at_zero == twin.value(0.0) or (twin.name == "curve" and math.isnan(twin.step.at_zero))


@each_step
@pytest.mark.parametrize(("num_points", "num_scores"), [(0, 0), (0, 3), (2, 0), (2, 3)])
def test_an_empty_side(twin, num_points, num_scores):
    """Also scores of which none takes part."""
    for form in (nullcontext, as_on_a_gpu):
        with form():
            nobody = torch.zeros(num_scores, dtype=torch.bool)
            pairs = twin.step.pairs(torch.zeros(num_points), torch.zeros(num_scores), nobody)
            weights = torch.ones(num_points, dtype=torch.float64)
            assert pairs.at_points().tolist() == pairs.slopes_at_points().tolist() == [0.0] * num_points
            assert pairs.at_scores(weights).tolist() == pairs.slopes_at_scores(weights).tolist() == [0.0] * num_scores


def test_one_huge_score_does_not_drown_the_others():
    """Point 0, delta 1, scores 1e30 and 1/2: 1 + 3/4, although 1e30 + 1/2 is 1e30 in float64 and in fixed point."""
    for form in (nullcontext, as_on_a_gpu):
        with form():
            pairs = linear_step(1.0).pairs(torch.zeros(1), torch.tensor([1e30, 0.5]))
            assert pairs.at_points().tolist() == [1.75]


def test_huge_points_keep_their_step():
    """At 1e8 float32 numbers are 8 apart: a delta of 1 separates all but equal ones, which count 1/2."""
    pairs = linear_step(1.0).pairs(torch.tensor([1e8]), torch.tensor([1e8 - 8, 1e8, 1e8 + 8]))
    assert pairs.at_points().tolist() == [1.5]
    assert pairs.at_scores(double([1.0])).tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("twin", PIECEWISE, ids=lambda twin: twin.name)
def test_points_whose_knots_are_one_number_have_a_hard_step(twin):
    """At 1e17 float64 numbers are 16 apart, so all knots of a point lie on it: what is above it counts 1, below 0."""
    levels = [-3e38, -1e17, 0.0, 1e17, 3e38]
    for dtype in (torch.float32, torch.float64):
        scores = torch.tensor(levels, dtype=dtype)
        for p, point in ((1, -1e17), (3, 1e17), (4, 3e38)):
            pairs = twin.step.pairs(torch.tensor([point], dtype=dtype), scores)
            steps = pairs.at_scores(double([1.0])).tolist()
            assert (steps[:p], steps[p + 1 :]) == ([0.0] * p, [1.0] * (4 - p))
            assert 0 <= steps[p] <= 1
            assert pairs.at_points().item() == sum(steps)


def test_sums_are_flat_above_all_ramps():
    """0.1 + 0.2 - 0.1 - 0.2 is 3e-17 in float64: as a left-over slope it would add 1e-5 to the 0.3 at 1e12."""
    pairs = linear_step(0.5).pairs(double([0, 0.5]), double([3, 1e6, 1e12]))
    np.testing.assert_allclose(pairs.at_scores(double([0.1, 0.2])), [0.3] * 3, rtol=1e-14)


def test_sums_over_many_scores_are_exact():
    """2 000 003 scores of 0.1f at point 0.1f count 1/2 each: a float32 running sum would stall or drift."""
    pairs = linear_step(1.0).pairs(torch.tensor([0.1]), torch.full((2_000_003,), 0.1))
    assert pairs.at_points().item() == pytest.approx(1_000_001.5, abs=1e-6)


@pytest.mark.parametrize("twin", PIECEWISE, ids=lambda twin: twin.name)
def test_unequal_weights_in_float32(twin):
    """Weights from 1 to 1e5 on points that crowd: each sum is off by less than 3e-7 of the largest."""
    random = np.random.default_rng(2)
    points, scores = random.normal(-4.6, 0.4, 60).astype("f4"), random.normal(-4.6, 1, 5000).astype("f4")
    weights = double(10 ** random.uniform(0, 5, 60))
    single = twin.step.pairs(torch.tensor(points), torch.tensor(scores)).at_scores(weights)
    exact = twin.step.pairs(torch.tensor(points), torch.tensor(scores).double()).at_scores(weights)
    assert (single - exact).abs().max() <= 3e-7 * exact.max()


def test_a_point_below_which_all_scores_lie_counts_exactly_none():
    """Else a positive without false positives would push; 300 points, so that the GPU's running sums have blocks."""
    generator = torch.Generator().manual_seed(1)
    low, scores = torch.rand(2, 300, generator=generator, dtype=torch.float64) - 4.6
    points = torch.cat((low, low + 3, low + 9))
    for form in (nullcontext, as_on_a_gpu):
        with form():
            counts = linear_step(0.7).pairs(points, scores).at_points()
        assert (counts[:300] > 0).all()
        assert (counts[300:] == 0).all()


def test_pairs_are_held_in_blocks():
    """At most BLOCK at a time, here 64: 9 scores with 7 points, in 56 blocks of 500; the sums are those of one."""
    generator = torch.Generator().manual_seed(0)
    points, scores = torch.rand(7, generator=generator), torch.rand(500, generator=generator)
    held = []

    def square(x):
        held.append(x.numel())
        return x**2

    pairs = DirectStep(square, square, 0.0).pairs(points, scores)
    weights = double(range(7))
    expected = pairs.at_points(), pairs.at_scores(weights)
    with mock.patch.object(blocks, "PAIRS_IN_CACHE", 64):
        for sums_of in (pairs.at_points, lambda: pairs.at_scores(weights)):
            held.clear()
            torch.testing.assert_close(sums_of(), expected[sums_of != pairs.at_points])
            assert held == [63] * 55 + [35]
