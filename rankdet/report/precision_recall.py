"""Precision against recall, class by class as COCO draws it, and the score at which a detector is best used."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from rankdet.evaluation.results import Result
from rankdet.report.verdicts import Verdicts, judge

RECALLS = np.linspace(0.0, 1.0, 101)
NAMED = 8  # with more classes their curves are not named one by one


def precision_recall(
    ground_truth: dict[str, Any], results: Sequence[Result], iou: float = 0.5
) -> dict[str, np.ndarray]:
    """Class name -> float64 [101], precision at recall 0, 0.01 ... 1, for each class with an object that counts.

    A class's AP at this IoU is its curve's mean, and COCO's AP50 or AP75 the mean over classes. See class_curve.
    """
    return class_curves(judge(ground_truth, results, iou), ground_truth["categories"])


def class_curves(verdicts: Verdicts, categories: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    """The same from verdicts; `categories` as in a COCO annotation file."""
    curves = {}
    for category in categories:
        num_objects = int((verdicts.objects.counts & (verdicts.objects.category_id == category["id"])).sum())
        mine = (verdicts.category_id == category["id"]) & ~verdicts.ignored
        if num_objects:
            curves[category["name"]] = class_curve(verdicts.score[mine], verdicts.right[mine], num_objects)
    return curves


def class_curve(scores: np.ndarray, right: np.ndarray, num_objects: int) -> np.ndarray:
    """float64 [101]: the best precision at a recall of at least 0, 0.01 ... 1, and 0 where that is never reached.

    Of D detections of one class, `scores` float [D] and `right` bool [D]; num_objects >= 1. Equal scores keep the order
    given, as in pycocotools. A threshold just below each score gives one point of precision and recall.
    """
    right = right[np.argsort(-scores, kind="stable")]
    num_right = np.cumsum(right)
    precision = num_right / np.arange(1, len(right) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    first = np.searchsorted(num_right / num_objects, RECALLS, side="left")  # that reaches each recall
    return np.append(envelope, 0.0)[first]


def best_f1(verdicts: Verdicts) -> tuple[float, float]:
    """(score, F1): the threshold whose detections (score >= it), all classes together, have the highest F1, and that.

    F1 = 2 right / (detections + objects), at the IoU of the verdicts. Of several the highest score. (NaN, NaN) where
    there is nothing to threshold, or no object.
    """
    kept = ~verdicts.ignored
    order = np.argsort(-verdicts.score[kept], kind="stable")
    scores, right = verdicts.score[kept][order], verdicts.right[kept][order]
    num_objects = int(verdicts.objects.counts.sum())
    if not len(scores) or not num_objects:
        return math.nan, math.nan
    f1 = 2 * np.cumsum(right) / (np.arange(1, len(scores) + 1) + num_objects)
    f1[:-1][scores[:-1] == scores[1:]] = -1.0  # no threshold parts equal scores
    return float(scores[f1.argmax()]), float(f1.max())


def draw_curves(axes: Axes, curves: dict[str, np.ndarray]) -> None:
    """Each class's curve and, thick, their mean; few classes by name, many in one thin grey."""
    for name, curve in curves.items():
        if len(curves) <= NAMED:
            axes.plot(RECALLS, curve, lw=1.3, label=f"{name} {100 * curve.mean():.1f}")
        else:
            axes.plot(RECALLS, curve, lw=0.6, color="grey", alpha=0.6, label=f"{len(curves)} classes")
    if curves:
        mean = np.mean(list(curves.values()), axis=0)
        axes.plot(RECALLS, mean, lw=2.6, color="C7", label=f"mean {100 * mean.mean():.1f}")
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    rows = -(-len(once) // 3)
    axes.figure.subplots_adjust(bottom=0.16 + 0.055 * rows)
    axes.figure.legend(once.values(), once.keys(), loc="lower center", ncols=3, fontsize="small")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
