"""A data set whose objects are all of one class, for networks that tell objects from background."""

from dataclasses import dataclass, replace

import numpy as np

from rankdet.data.records import DetectionSet, Source

CLASS = "object"


@dataclass(frozen=True)
class OneClass:
    """Another source's splits; its K classes become one, of COCO category id 1."""

    source: Source

    def read(self, split: str) -> DetectionSet:
        """As the source reads it, every label 0."""
        found = self.source.read(split)
        records = tuple(replace(record, labels=np.zeros_like(record.labels)) for record in found.records)
        return replace(found, classes=(CLASS,), category_ids=(1,), records=records)
