"""Every metric of one set of predictions, in one flat dict, and how it reads on a screen."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tabulate import tabulate

from rankdet.data.records import DetectionSet
from rankdet.evaluation.bounds import bound_metrics
from rankdet.evaluation.coco import coco_ground_truth, coco_metrics
from rankdet.evaluation.correlation import correlation_metrics
from rankdet.evaluation.lrp import lrp_metrics
from rankdet.evaluation.results import Result, check_results
from rankdet.evaluation.voc import voc_metrics

GROUPS: dict[str, Callable[[dict[str, Any], Sequence[Result]], dict[str, float]]] = {
    "coco": coco_metrics,
    "voc": voc_metrics,
    "lrp": lrp_metrics,
    "rho": correlation_metrics,
    "bounds": bound_metrics,
}
RECORDED = ("coco", "voc", "lrp", "rho")  # what every run records; the bounds ask another question
# Not fractions: correlations, and a score.
PLAIN = ("rho", "lower_rho", "kept_rho", "upper_rho", "oLRP_threshold")


def all_metrics(detection_set: DetectionSet, results: Sequence[Result]) -> dict[str, float | None]:
    """The metrics that a run records: COCO's, VOC's, oLRP and rho; see metrics_of.

    All are None for a split whose objects an evaluation server keeps.
    """
    return metrics_of(coco_ground_truth(detection_set), results if detection_set.labelled else [], RECORDED)


def metrics_of(
    ground_truth: dict[str, Any], results: Sequence[Result], groups: Sequence[str] = tuple(GROUPS)
) -> dict[str, float | None]:
    """Some groups of metrics (keys of GROUPS) in one flat dict, None where there is no object to find.

    By image id first: ties between images then fall alike however the images were shared among processes. UserError
    names a bad entry of either.
    """
    check_results(ground_truth, results)
    results = sorted(results, key=lambda result: result["image_id"])
    metrics: dict[str, float] = {}
    for group in groups:
        metrics |= GROUPS[group](ground_truth, results)
    return {name: None if math.isnan(value) else value for name, value in metrics.items()}


def metrics_text(metrics: Mapping[str, float | None]) -> str:
    """Lines `name value`, then a table of the metrics per class; in percent save rho and oLRP_threshold; - for None."""
    plain = [name for name in metrics if name.partition("/")[0] in PLAIN]
    unit = "in percent" + (
        f", except {' and '.join(dict.fromkeys(n.partition('/')[0] for n in plain))}" if plain else ""
    )
    overall = {name: value for name, value in metrics.items() if "/" not in name}
    per_class: dict[str, dict[str, str]] = {}
    for name, value in metrics.items():
        key, slash, class_name = name.partition("/")
        if slash:
            per_class.setdefault(class_name, {})[key] = _shown(key, value)
    lines = [unit, *(f"{name:28} {_shown(name, value):>7}" for name, value in overall.items())]
    if per_class:
        rows = [{"class": class_name} | row for class_name, row in per_class.items()]
        columns = ["class", *dict.fromkeys(key for row in per_class.values() for key in row)]
        body = [[row.get(column, "-") for column in columns] for row in rows]
        align = ("left", *["right"] * (len(columns) - 1))
        lines.append(tabulate(body, columns, colalign=align, disable_numparse=True))
    return "\n".join(lines)


def _shown(key: str, value: float | None) -> str:
    """A value as the screen shows it."""
    if value is None:
        return "-"
    return f"{value:.3f}" if key.partition("/")[0] in PLAIN else f"{100 * value:.2f}"
