"""What the losses should cost, and whether they do."""

import math
from typing import NamedTuple

import numpy as np

from rankdet.profiling.contestants import (
    ALRP,
    AP,
    AP_GIVEN,
    AP_SIGMOID,
    LOOP,
    PARAMETERIZED,
    RANKING,
    YARDSTICK,
)
from rankdet.profiling.sweeps import Measurement

TIME, MEMORY = "seconds", "peak_bytes"  # fields of a Measurement
GROWS = {
    "scores": "scores",
    "positives": "positives",
    "batch": "images",
    "pairs": "scores",
}  # sweep -> what grows in it


class Goal(NamedTuple):
    """A quantity of `loss` over that of `against` in a sweep of one size; without `against`, its growth over a decade
    of the sweep's sizes, the worst one. At most `limit`, or at least.
    """

    sweep: str
    quantity: str  # TIME or MEMORY
    loss: str
    against: str | None
    limit: float
    at_least: bool = False

    def __str__(self) -> str:
        """In words."""
        sign, what = ">=" if self.at_least else "<=", {TIME: "time", MEMORY: "memory"}[self.quantity]
        if self.against is None:
            return f"{self.loss}: {what} at 10x the {GROWS[self.sweep]} {sign} {self.limit:g}x"
        return f"{self.loss}: {what} {sign} {self.limit:g}x that of {self.against}, {self.sweep} in training"


class Outcome(NamedTuple):
    """A goal and what was measured; None where it was not."""

    goal: Goal
    value: float | None

    @property
    def verdict(self) -> str:
        """met | not met | not measured."""
        if self.value is None:
            return "not measured"
        met = self.value >= self.goal.limit if self.goal.at_least else self.value <= self.goal.limit
        return "met" if met else "not met"


class Slope(NamedTuple):
    """Exponent b of the power law a x^b through a loss's measurements in the sweep's last decade."""

    sweep: str
    quantity: str
    loss: str
    exponent: float
    sizes: int  # that it was fitted to


def goals(device_type: str) -> list[Goal]:
    """The table of goals; on a GPU ("cuda") the distance to the loop over positives is to be larger."""
    found = []
    for stage in ("early", "late"):
        found += [Goal(stage, what, loss, YARDSTICK, 1.0) for loss in (AP, AP_GIVEN) for what in (TIME, MEMORY)]
        found += [Goal(stage, TIME, loss, YARDSTICK, 1.5) for loss in (ALRP, RANKING)]
        found += [Goal(stage, TIME, PARAMETERIZED, YARDSTICK, 3.0), Goal(stage, TIME, AP_SIGMOID, AP, 5.0)]
    found.append(Goal("early", TIME, LOOP, AP, 100.0 if device_type == "cuda" else 30.0, at_least=True))
    for loss in (AP, AP_GIVEN):
        found += [Goal("scores", TIME, loss, None, 11.0), Goal("positives", TIME, loss, None, 2.0)]
    return found


def outcome(goal: Goal, measurements: list[Measurement]) -> Outcome:
    """The goal beside what was measured."""
    own = _curve(measurements, goal.sweep, goal.loss, goal.quantity)
    if goal.against is None:
        growths = [own[10 * x] / own[x] for x in own if 10 * x in own and own[x] > 0]
        return Outcome(goal, max(growths, default=None))
    against = _curve(measurements, goal.sweep, goal.against, goal.quantity)
    shared = [x for x in own if against.get(x, 0) > 0]
    return Outcome(goal, own[shared[0]] / against[shared[0]] if len(shared) == 1 else None)


def slopes(measurements: list[Measurement]) -> list[Slope]:
    """By sweep, quantity and loss; only where at least three sizes are there, of which the least is the tenth of the
    largest or more, so that fixed costs hide no growth. Memory that is not there or 0 is left out.
    """
    found = []
    for sweep in GROWS:
        names = dict.fromkeys(row.loss for row in measurements if row.sweep == sweep)
        for quantity in (TIME, MEMORY):
            for loss in names:
                curve = {x: y for x, y in _curve(measurements, sweep, loss, quantity).items() if y > 0}
                last = {x: y for x, y in curve.items() if 10 * x >= max(curve)}
                if len(last) >= 3:
                    exponent = np.polyfit(np.log(list(last)), np.log(list(last.values())), 1)[0]
                    found.append(Slope(sweep, quantity, loss, float(exponent), len(last)))
    return found


def _curve(measurements: list[Measurement], sweep: str, loss: str, quantity: str) -> dict[int, float]:
    """What grows in the sweep (its scores where nothing does) -> the quantity, where it was measured."""
    rows = [row for row in measurements if (row.sweep, row.loss) == (sweep, loss)]
    curve = {getattr(row, GROWS.get(sweep, "scores")): getattr(row, quantity) for row in rows}
    return {x: y for x, y in curve.items() if y is not None and math.isfinite(y)}
