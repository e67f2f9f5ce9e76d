"""Precision against recall, class by class as COCO draws it, and the score at which a detector is best used."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from rankdet.evaluation import operating_point
from rankdet.evaluation.curve import RECALLS, class_curve
from rankdet.evaluation.results import Result
from rankdet.report.verdicts import Verdicts, judge

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


def best_f1(verdicts: Verdicts) -> tuple[float, float]:
    """operating_point.best_f1 of all classes' detections together, at the IoU of the verdicts."""
    kept = ~verdicts.ignored
    num_objects = int(verdicts.objects.counts.sum())
    return operating_point.best_f1(verdicts.score[kept], verdicts.right[kept], num_objects)


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
