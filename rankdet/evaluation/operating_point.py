"""The score at which a detector is best used."""

import math

import numpy as np


def best_f1(scores: np.ndarray, right: np.ndarray, num_objects: int) -> tuple[float, float]:
    """(score, F1): the threshold whose detections (score >= it) have the highest F1, and that; of several the highest.

    Of D detections, `scores` float [D] and whether they are right, bool [D]. F1 = 2 right / (detections + objects).
    (NaN, NaN) where there is nothing to threshold, or no object.
    """
    if not len(scores) or not num_objects:
        return math.nan, math.nan
    order = np.argsort(-scores, kind="stable")
    scores, right = scores[order], right[order]
    f1 = 2 * np.cumsum(right) / (np.arange(1, len(scores) + 1) + num_objects)
    f1[:-1][scores[:-1] == scores[1:]] = -1.0  # no threshold parts equal scores
    return float(scores[f1.argmax()]), float(f1.max())
