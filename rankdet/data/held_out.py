"""A data set of whose training images some are held out, to judge by what is learnt from the others."""

from dataclasses import dataclass, replace

import numpy as np

from rankdet.data.records import DetectionSet, Source
from rankdet.errors import UserError

KEPT, HELD_OUT = "kept", "held_out"
SEED = 0  # of the drawing: the same images for everybody


@dataclass(frozen=True)
class HeldOut:
    """Another source's splits and two more: `num` images of its split `of`, drawn at random, are split "held_out", the
    others "kept"; each in the order of `of`."""

    source: Source
    of: str
    num: int

    def read(self, split: str) -> DetectionSet:
        """As the source reads it. UserError unless both parts have an image."""
        if split not in (KEPT, HELD_OUT):
            return self.source.read(split)
        whole = self.source.read(self.of)
        count = len(whole.records)
        if type(self.num) is not int or not 0 < self.num < count:
            raise UserError(
                f"hold_out.num={self.num}: must be a whole number from 1 to {count - 1}, less than {self.of} has"
            )
        drawn = set(np.random.default_rng(SEED).permutation(count)[: self.num].tolist())
        records = tuple(record for place, record in enumerate(whole.records) if (place in drawn) == (split == HELD_OUT))
        return replace(whole, split=split, records=records)
