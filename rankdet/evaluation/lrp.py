"""Optimal localisation-recall-precision error, a metric that falls with better boxes too (LRP, ECCV 2018)."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rankdet.evaluation.matches import RANGES, Matches, coco_matches
from rankdet.evaluation.results import Result, mean_of_defined


class OptimalLRP(NamedTuple):
    """The least LRP error over score thresholds, and what it is made of there. NaN: undefined."""

    error: float  # in [0, 1], 0 is perfect; NaN without objects
    loc: float  # mean 1 - IoU of the right detections, in [0, 1 - tau], not divided by 1 - tau
    fp: float  # share of wrong detections: 1 - precision
    fn: float  # share of objects not found: 1 - recall
    threshold: float  # the lowest score kept


def lrp_metrics(ground_truth: dict[str, Any], results: Sequence[Result], tau: float = 0.5) -> dict[str, float]:
    """Optimal LRP by COCO's matching at IoU tau in (0, 1): fractions, lower is better; NaN where undefined.

    Keys: oLRP, oLRP_loc, oLRP_FP, oLRP_FN (means over the classes where they are defined), oLRP_small, oLRP_medium,
    oLRP_large, and oLRP/<class>, oLRP_loc/<class>, oLRP_FP/<class>, oLRP_FN/<class>, oLRP_threshold/<class> (a score).
    LRP, ECCV 2018, with the aLRP paper's Eq. 6. Arguments as in coco_metrics; results may be empty (oLRP 1).
    """
    if not 0 < tau < 1:
        raise ValueError(f"tau must be in (0, 1), got {tau}")
    matches = coco_matches(ground_truth, results, tau, tuple(RANGES))
    optima = {name: optimal_lrp(found, tau) for name, found in matches["all"].items()}
    parts = {"oLRP": "error", "oLRP_loc": "loc", "oLRP_FP": "fp", "oLRP_FN": "fn"}
    metrics = {key: mean_of_defined(getattr(each, part) for each in optima.values()) for key, part in parts.items()}
    for area in ("small", "medium", "large"):
        metrics[f"oLRP_{area}"] = mean_of_defined(optimal_lrp(each, tau).error for each in matches[area].values())
    for key, part in (parts | {"oLRP_threshold": "threshold"}).items():
        metrics |= {f"{key}/{name}": getattr(each, part) for name, each in optima.items()}
    return metrics


def optimal_lrp(matches: Matches, tau: float) -> OptimalLRP:
    """The least of (sum of (1 - IoU) / (1 - tau) over right ones + wrong + missed) / (right + wrong + missed).

    The minimum is over how many of the best detections are kept, one by one also among equal scores, the first of equal
    minima. With objects but nothing right: error 1, fn 1, the rest undefined. Without objects all is undefined.
    """
    if not matches.num_objects:
        return OptimalLRP(math.nan, math.nan, math.nan, math.nan, math.nan)
    if not matches.right.any():
        return OptimalLRP(1.0, math.nan, math.nan, 1.0, math.nan)
    num_right, num_kept = np.cumsum(matches.right), np.arange(1, len(matches.right) + 1)
    distance = np.cumsum(np.where(matches.right, 1 - matches.ious, 0.0))
    num_missed = matches.num_objects - num_right
    error = (distance / (1 - tau) + num_kept - num_right + num_missed) / (num_kept + num_missed)
    error[num_right == 0] = math.inf  # 1, and undefined parts: no better than any prefix with something right
    best = int(error.argmin())
    return OptimalLRP(
        error=float(error[best]),
        loc=float(distance[best] / num_right[best]),
        fp=float(1 - num_right[best] / num_kept[best]),
        fn=float(num_missed[best] / matches.num_objects),
        threshold=float(matches.scores[best]),
    )
