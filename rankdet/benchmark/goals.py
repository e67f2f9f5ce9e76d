"""Whether our training step is as fast as torchvision's."""

from collections.abc import Sequence
from typing import NamedTuple

from rankdet.benchmark.contestants import OURS
from rankdet.benchmark.sweeps import RACE, Measurement


class Duel(NamedTuple):
    """The two sides at one batch size."""

    ours: Measurement
    theirs: Measurement

    @property
    def speed(self) -> float:
        """Our images/s over theirs; the goal is at least 1."""
        return self.theirs.seconds / self.ours.seconds

    @property
    def memory(self) -> float | None:
        """Our peak over theirs."""
        ours, theirs = self.ours.peak_bytes, self.theirs.peak_bytes
        return ours / theirs if ours and theirs else None

    @property
    def met(self) -> bool:
        """Not slower."""
        return self.speed >= 1


def duels(measurements: Sequence[Measurement]) -> list[Duel]:
    """By batch size, in the order of the measurements."""
    rows = [row for row in measurements if row.sweep == RACE]
    ours = {row.images: row for row in rows if row.contestant.side == OURS}
    return [Duel(ours[row.images], row) for row in rows if row.contestant.side != OURS]
