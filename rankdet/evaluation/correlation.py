"""How well scores rank detections by the quality of their boxes (the aLRP paper's rho, Sec. 5)."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rankdet.evaluation.matches import coco_matches
from rankdet.evaluation.results import Result, mean_of_defined


def correlation_metrics(ground_truth: dict[str, Any], results: Sequence[Result]) -> dict[str, float]:
    """rho, the mean over classes, and rho/<class>: in [-1, 1]; NaN (left out of the mean) where undefined.

    Pearson's correlation between the ranks of scores and of IoUs, over the right detections of a class by COCO's
    matching at IoU 0.5. The paper does not say which detections; ranks it does say, and only with ranks do the bounds
    of its Table 5 have rho -1 and 1. Arguments as in coco_metrics.
    """
    matches = coco_matches(ground_truth, results)["all"]
    per_class = {
        name: rank_correlation(found.scores[found.right], found.ious[found.right]) for name, found in matches.items()
    }
    return {"rho": mean_of_defined(per_class.values())} | {f"rho/{name}": rho for name, rho in per_class.items()}


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's correlation of the ranks of two float [D], equal values sharing the mean of their ranks.

    NaN for fewer than two values or where all of one side are equal.
    """
    centred = [_ranks(values) - (len(values) - 1) / 2 for values in (first, second)]
    norm = math.sqrt(centred[0] @ centred[0]) * math.sqrt(centred[1] @ centred[1])
    return float(centred[0] @ centred[1] / norm) if norm else math.nan


def _ranks(values: np.ndarray) -> np.ndarray:
    """float64 [D]: how many are smaller, plus half of the others that are equal."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    smaller = np.cumsum(counts) - counts
    return (smaller + (counts - 1) / 2)[place]
