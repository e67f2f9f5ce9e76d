"""Whether what was read back is what was written."""

from pathlib import Path

import numpy as np

from rankdet.errors import UserError
from rankdet.evaluation.results import Result


def require_same(written: list[Result], found: list[Result], path: Path, pixels: float, share: float) -> None:
    """UserError unless both lists hold the same detections in the same order.

    pixels: by how much corners or sides may differ, twice that for a side between two rounded corners; share: by how
    much scores may, of themselves. Both with room for the last bit.
    """
    same = len(written) == len(found) and all(
        np.array_equal([one[key] for one in written], [one[key] for one in found])
        for key in ("image_id", "category_id")
    )
    if same and written:
        boxes = [np.array([one["bbox"] for one in each], np.float64) for each in (written, found)]
        scores = [np.array([one["score"] for one in each], np.float64) for each in (written, found)]
        room = 1e-9 + 1e-12 * np.abs(boxes[0]).max()
        same = bool((np.abs(boxes[0] - boxes[1]) <= 2 * pixels + room).all())
        same &= np.allclose(*scores, rtol=share, atol=0)
    if not same:
        raise UserError(f"{path}: does not read back as it was written; is the disk full or failing? Write it again")
