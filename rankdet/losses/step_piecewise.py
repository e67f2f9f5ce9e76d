"""Piecewise linear steps, the hard step among them: pair sums from the intervals that their knots cut."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rankdet.losses.blocks import blocks
from rankdet.losses.intervals import are_few, number_intervals
from rankdet.losses.sums import bounded, interval_sums, running_sums, sums_from_the_right

Number = float | Tensor  # tensors are float64 scalars


class PiecewiseStep(NamedTuple):
    """A step f with K + 1 knots at ascending differences x: 0 left of them all, constant right of them all.

    Where f jumps or bends it matters on which side a difference equal to a knot lies: right of a closed knot, left of
    an open one.
    """

    offsets: tuple[Number, ...]  # the knots
    values: tuple[Number, ...]  # f just right of each
    slopes: tuple[Number, ...]  # f' right of each; the last is 0
    closed: tuple[bool, ...]
    at_zero: float  # f(0)

    @property
    def is_flat(self) -> bool:
        """Whether f jumps only, as far as numbers that lie on a device do not have to be read for it."""
        return all(not isinstance(slope, Tensor) and slope == 0 for slope in self.slopes)

    def pairs(self, points: Tensor, scores: Tensor, takes_part: Tensor | None = None) -> "PiecewisePairs":
        """Pairs of P points with those of N scores (float) whose `takes_part` (bool [N]; None: all) is true."""
        return PiecewisePairs.build(self, points, scores, takes_part)


def linear_step(delta: float) -> PiecewiseStep:
    """f(x) = clamp(x / (2 delta) + 1/2, 0, 1), delta > 0 (AP-loss TPAMI 2020, Eq. 21)."""
    return PiecewiseStep((-delta, delta), (0.0, 1.0), (0.5 / delta, 0.0), (False, True), 0.5)


def heaviside_step() -> PiecewiseStep:
    """H(x) = [x >= 0] (AP-loss TPAMI 2020, Eq. 2)."""
    return PiecewiseStep((0.0,), (1.0,), (0.0,), (True,), 1.0)


def sign_step() -> PiecewiseStep:
    """sign(x) / 2 + 1/2: the hard step whose ties count 1/2 (Parameterized AP with four searched functions)."""
    return PiecewiseStep((0.0, 0.0), (0.5, 1.0), (0.0, 0.0), (True, False), 0.5)


def curve_step(x: Sequence[Number], y: Sequence[Number]) -> PiecewiseStep:
    """The curve through (x_k, y_k) of u = clamp(difference / 2 + 1/2, 0, 1); x ascends from 0 to 1, y_0 = 0.

    Its slope at a knot is that of the segment on its left, and 0 at both ends (golden data of Parameterized AP).
    f(0) is the curve's value at 1/2; `at_zero` is nan, since it would have to be read back from the device.
    """
    slopes = [(y[k + 1] - y[k]) / (2 * (x[k + 1] - x[k])) for k in range(len(x) - 1)]
    closed = (False,) * len(slopes) + (True,)
    return PiecewiseStep(tuple(2 * knot - 1 for knot in x), tuple(y), (*slopes, 0.0), closed, float("nan"))


class PiecewisePairs(NamedTuple):
    """Sums of a piecewise linear step over P x N pairs in O((P + N) log P) time and O(P + N) memory.

    The M = (K + 1) P breakpoints p_i + knot cut the score axis into M + 1 intervals; inside one, every f(n - p_i) is
    linear in n. Scores left of all breakpoints and those that take no part share interval 0, where f is 0 for every
    point. Breakpoints are float64 and each score is put on its true side of them; sums are float64.
    Where most scores lie in interval 0, as late in training, only the others are held.
    """

    step: PiecewiseStep
    num_scores: int  # N
    held: Tensor | None  # int64 [H]: which of the scores what follows is about; None: all of them
    scores: Tensor  # float [H], finite
    interval: Tensor  # int32 [H]: number of breakpoints left of the score; 0 where it takes no part
    edges: Tensor  # [M], the scores' dtype, ascending: the least score that lies right of each breakpoint
    knots: Tensor  # float64 [M]: the breakpoints, in the order of edges
    place: Tensor  # int64 [K + 1, P]: where the breakpoints of p_i stand among them

    @classmethod
    def build(
        cls, step: PiecewiseStep, points: Tensor, scores: Tensor, takes_part: Tensor | None = None
    ) -> "PiecewisePairs":
        """points: float [P]; scores: float [N]; takes_part: bool [N], None: all."""
        points = points.double()
        breakpoints = [points + offset for offset in step.offsets]
        first = [
            _least_right_of(each, closed, scores.dtype) for each, closed in zip(breakpoints, step.closed, strict=True)
        ]
        # A huge point's knots can round to one number: a closed one must not fall left of the open one before it.
        first = torch.stack(first).flip(0).cummin(0).values.flip(0)
        edges, order = first.reshape(-1).sort(stable=True)
        place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        knots, place = torch.cat(breakpoints)[order], place.view(len(step.offsets), -1)

        num_scores, held = len(scores), None
        if len(edges) and are_few(scores, edges[0]):
            right = scores >= edges[0]
            held = (right if takes_part is None else right.logical_and_(takes_part)).nonzero().squeeze(1)
            scores, takes_part = scores[held], None
        interval = number_intervals(scores, edges)
        if takes_part is not None:
            interval.mul_(takes_part)
        return cls(step, num_scores, held, scores, interval, edges, knots, place)

    def at_points(self, weights: Tensor | None = None) -> Tensor:
        """float64 [P]: sum_n u_n f(n - p_i), u = `weights` (float [N]; None: 1) over the scores that take part."""
        weights = self._of_held(weights)
        mass = self._beyond(self._interval_sums(weights))
        total = self.step.values[-1] * mass[-1]
        for t, value in enumerate(self.step.values[:-1]):
            total = total + value * (mass[t] - mass[t + 1])
        if self.step.is_flat or len(self.edges) == 0:
            return total
        inside = bounded(self.scores, self.edges[0], self.edges[-1])
        moment = self._interval_sums(inside if weights is None else inside.double() * weights)
        moment = self._beyond(torch.where(self._in_ramp(), moment, 0))
        for t, slope in enumerate(self.step.slopes[:-1]):
            mass_here, moment_here = mass[t] - mass[t + 1], moment[t] - moment[t + 1]
            total = total + slope * (moment_here - self.knots[self.place[t]] * mass_here)
        return total

    def at_scores(self, weights: Tensor) -> Tensor:
        """float [N] in the scores' dtype: sum_i w_i f(n - p_i), w = `weights` (float64 [P]); 0 where n takes no part.

        Intercept + slope * score in float64: in float32 the two would cancel.
        """
        value = self._jumps(weights)
        if self.step.is_flat:
            return self._at_all(self._of_intervals(value))
        slope = self._slope_table(weights)
        value[1:] += running_sums(slope[:-1] * self.knots.diff())
        intercept, slope = _prepend_zero(value - slope * self.knots), _prepend_zero(slope)
        result = torch.empty_like(self.scores)
        for some, interval, scores in blocks(result, self.interval, self.scores):
            line = slope.index_select(0, interval).mul_(scores).add_(intercept.index_select(0, interval))
            some.copy_(line)
        return self._at_all(result)

    def slopes_at_points(self, weights: Tensor | None = None) -> Tensor:
        """float64 [P]: sum_n u_n f'(n - p_i)."""
        mass = self._beyond(self._interval_sums(self._of_held(weights)))
        total = torch.zeros_like(mass[0])
        for t, slope in enumerate(self.step.slopes[:-1]):
            total = total + slope * (mass[t] - mass[t + 1])
        return total

    def slopes_at_scores(self, weights: Tensor) -> Tensor:
        """float [N] in the scores' dtype: sum_i w_i f'(n - p_i)."""
        return self._at_all(self._of_intervals(self._slope_table(weights)))

    def _interval_sums(self, values: Tensor | None) -> Tensor:
        return interval_sums(self.interval, values, len(self.edges) + 1)

    def _beyond(self, bins: Tensor) -> Tensor:
        """[M + 1] -> [K + 1, P]: the sum of the bins right of each breakpoint of each point."""
        return sums_from_the_right(bins)[self.place + 1]

    def _in_ramp(self) -> Tensor:
        """bool [M + 1]: whether the interval lies between the first and the last knot of some point."""
        active = torch.zeros(len(self.edges) + 1, dtype=torch.int64, device=self.edges.device)
        active[self.place[0] + 1] = 1
        active[self.place[-1] + 1] = -1
        return active.cumsum(0) > 0

    def _slope_table(self, weights: Tensor) -> Tensor:
        """float64 [M]: slope of sum_i w_i f(n - p_i) right of each breakpoint; exactly 0 outside all ramps."""
        change = torch.zeros_like(self.knots)
        before: Number = 0.0
        for place, slope in zip(self.place, self.step.slopes, strict=True):
            change[place] = weights * (slope - before)
            before = slope
        return running_sums(change).where(self._in_ramp()[1:], 0)

    def _jumps(self, weights: Tensor) -> Tensor:
        """float64 [M]: what the jumps of f at the breakpoints up to each one add up to."""
        step, jumps = self.step, torch.zeros_like(self.knots)
        for t, place in enumerate(self.place):
            jump = step.values[t]
            if t > 0:
                width = self.knots[place] - self.knots[self.place[t - 1]]  # of the knots as rounded
                jump = jump - step.values[t - 1] - step.slopes[t - 1] * width
            jumps[place] = weights * jump
        return running_sums(jumps)

    def _of_intervals(self, table: Tensor) -> Tensor:
        """[M] -> [H] in the scores' dtype: the entry of each score's interval, 0 for interval 0."""
        table = _prepend_zero(table).to(self.scores.dtype)
        return table.index_select(0, self.interval)  # indexing with [] takes several times as long

    def _of_held(self, values: Tensor | None) -> Tensor | None:
        """[N] -> [H]."""
        return values if values is None or self.held is None else values[self.held]

    def _at_all(self, values: Tensor) -> Tensor:
        """[H] -> [N], 0 for the scores that are not held."""
        return values if self.held is None else values.new_zeros(self.num_scores).index_copy_(0, self.held, values)


def _prepend_zero(table: Tensor) -> Tensor:
    return torch.cat((table.new_zeros(1), table))


def _least_right_of(knots: Tensor, closed: bool, dtype: torch.dtype) -> Tensor:
    """The least numbers of type `dtype` at (closed) or above (open) the float64 knots."""
    rounded = knots.to(dtype)
    above = torch.nextafter(rounded, torch.full_like(rounded, torch.inf))
    exact = rounded.double()
    return torch.where((exact < knots) if closed else (exact <= knots), above, rounded)
