"""What AP would be if scores ranked the right detections by their boxes, or the other way round (aLRP, Table 5)."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rankdet.evaluation.coco import IOUS
from rankdet.evaluation.correlation import rank_correlation
from rankdet.evaluation.curve import class_curve
from rankdet.evaluation.matches import Matches, coco_matches
from rankdet.evaluation.results import Result, mean_of_defined

# What becomes of the IoUs of a class's right detections, which come by falling score.
ORDERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "lower": np.sort,
    "kept": lambda ious: ious,
    "upper": lambda ious: np.sort(ious)[::-1],
}


def bound_metrics(ground_truth: dict[str, Any], results: Sequence[Result]) -> dict[str, float]:
    """COCO's AP after the IoUs of the right detections are dealt out anew: fractions; NaN without objects.

    Keys: lower_AP, lower_AP50, lower_AP75, lower_AP90, lower_rho (the rank correlation that is then between scores and
    IoUs, as in correlation_metrics), the same with upper_ and kept_. Class by class the detections
    that are right at IoU 0.5 keep their scores and exchange their IoUs: lower, so that the ranks are inverse (rho -1);
    upper, so that they are the same (rho 1); kept, not at all. At each IoU threshold those with a smaller IoU are wrong
    then, as are all that were wrong at 0.5. So AP50 is COCO's own in all three, and lower and upper are the extremes
    over all ways to exchange. kept_AP is less than COCO's AP where a duplicate has the better box: COCO matches
    anew at each threshold, which exchanged IoUs do not allow. The paper does not say how it reordered.
    Arguments as in coco_metrics.
    """
    matches = [found for found in coco_matches(ground_truth, results)["all"].values() if found.num_objects]
    metrics = {}
    for name, order in ORDERS.items():
        per_iou = [mean_of_defined(class_ap(found, order, iou) for found in matches) for iou in IOUS]
        metrics[f"{name}_AP"] = mean_of_defined(per_iou)
        metrics |= {f"{name}_AP{percent}": per_iou[(percent - 50) // 5] for percent in (50, 75, 90)}
        metrics[f"{name}_rho"] = mean_of_defined(
            rank_correlation(found.scores[found.right], order(found.ious[found.right])) for found in matches
        )
    return metrics


def class_ap(matches: Matches, order: Callable[[np.ndarray], np.ndarray], iou: float) -> float:
    """One class's AP, COCO's 101 points, when order has rearranged its right detections' IoUs. Objects: one or more."""
    ious = matches.ious.copy()
    ious[matches.right] = order(ious[matches.right])
    return float(class_curve(matches.scores, matches.right & (ious >= iou), matches.num_objects).mean())
