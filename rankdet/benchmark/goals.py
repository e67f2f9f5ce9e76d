"""Whether our training step is as fast as torchvision's."""

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from rankdet.benchmark.contestants import OURS
from rankdet.benchmark.sweeps import RACE, Measurement


class Duel(NamedTuple):
    """The two sides at one batch size.

    Our images/s over torchvision's, turn by turn: what slows the machine for a while slows both."""

    ours: Measurement
    theirs: Measurement

    @property
    def speeds(self) -> list[float]:
        """Of each turn, ascending."""
        return sorted(b / a for a, b in zip(self.ours.turns, self.theirs.turns, strict=False))

    @property
    def speed(self) -> float:
        """Of the median turn; the goal is at least 1."""
        return median(self.speeds)

    @property
    def memory(self) -> float | None:
        """Our peak over theirs."""
        ours, theirs = self.ours.peak_bytes, self.theirs.peak_bytes
        return ours / theirs if ours and theirs else None

    @property
    def verdict(self) -> str:
        """Whether ours is not slower; no difference was seen where it was slower in most turns, but not in all."""
        if self.speed >= 1:
            return "met"
        return "no difference seen" if self.speeds[-1] >= 1 else "not met"


def duels(measurements: Sequence[Measurement]) -> list[Duel]:
    """One for each of ours, in the order of the measurements."""
    rows = [row for row in measurements if row.sweep == RACE]
    theirs = {row.images: row for row in rows if row.contestant.side != OURS}
    return [Duel(row, theirs[row.images]) for row in rows if row.contestant.side == OURS]
