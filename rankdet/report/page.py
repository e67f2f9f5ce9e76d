"""A report as one HTML page that needs no other file and no network."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from omegaconf import OmegaConf

from rankdet.report.error_types import count_errors
from rankdet.report.figures import Plot, picture, plot
from rankdet.report.finished_run import FinishedRun
from rankdet.report.image_errors import MOST_BOXES, ImageError, best_and_worst, draw_image, errors_by_image
from rankdet.report.precision_recall import best_f1, class_curves, draw_curves
from rankdet.report.score_distributions import (
    AnchorScores,
    detection_scores,
    draw_densities,
    draw_overlap,
)
from rankdet.report.summary import HEADLINES, class_metrics, facts, overall_metrics, percent
from rankdet.report.training_curves import draw_panel, read_curves
from rankdet.report.verdicts import Verdicts, judge

IOUS = (0.5, 0.75)  # of the precision-recall curves
IMAGES = 6  # best ones, and as many worst


class Shown(NamedTuple):
    """A plot and the text below it."""

    plot: Plot
    caption: str


def render(run: FinishedRun) -> str:
    """The page's HTML. UserError where an image that it shows is missing."""
    verdicts = {iou: judge(run.ground_truth, run.results, iou) for iou in IOUS}
    score, f1 = best_f1(verdicts[0.5])
    curves = {f"AP{round(100 * iou)}": class_curves(verdicts[iou], run.ground_truth["categories"]) for iou in IOUS}
    by_curve = {f"{name}/{each}": float(curve.mean()) for name, part in curves.items() for each, curve in part.items()}
    headers, rows = class_metrics(by_curve | run.metrics, run.split)
    environment = Environment(
        loader=PackageLoader("rankdet.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("page.html").render(
        title=f"{run.record['run']}",
        subtitle=f"Report on the split {run.split.split} of {run.cfg.data.name}",
        notes=run.notes,
        headlines=[(name, percent(run.metrics[name])) for name in HEADLINES],
        facts=facts(run.cfg, run.record, run.split),
        metrics=overall_metrics(run.metrics),
        class_headers=headers,
        class_rows=rows,
        curve_plots=_curve_plots(curves),
        ap50=percent(run.metrics["AP50"]),
        operating_point=_operating_point(score, f1),
        count_header="none" if np.isnan(score) else f"score ≥ {score:.3f}",
        errors=_errors(verdicts[0.5], score),
        overlap_plots=_overlap_plots(verdicts[0.5], run.anchors),
        density_plots=_density_plots(run.anchors),
        training_plots=_training_plots(run),
        config=OmegaConf.to_yaml(run.cfg),
        **_images(run, verdicts[0.5], score),
    )


def _curve_plots(curves: Mapping[str, Mapping[str, np.ndarray]]) -> list[Shown]:
    shown = []
    for iou, (name, by_class) in zip(IOUS, curves.items(), strict=True):
        mean = percent(float(np.mean([curve.mean() for curve in by_class.values()])) if by_class else None)
        alt = f"Precision against recall at IoU {iou}, {len(by_class)} classes and their mean; mean {name} {mean}."
        caption = f"Right from an IoU of {iou} on: {name} {mean}. Beside each name stands its AP."
        shown.append(Shown(plot(partial(draw_curves, curves=by_class), alt), caption))
    return shown


def _operating_point(score: float, f1: float) -> str:
    """What is said of the score from which detections are counted in the second column, and drawn."""
    if np.isnan(score):
        return "There is no object or no detection, so no score threshold to choose."
    return (
        f"Most detections have low scores and never matter. The threshold {score:.3f} is the one with the highest F1 "
        f"({percent(f1)} %, all classes together, IoU 0.5); the second column counts the detections from there on."
    )


def _errors(verdicts: Verdicts, score: float) -> list[dict[str, str]]:
    return [
        {
            "name": each.name,
            "meaning": each.meaning,
            "repair": each.repair,
            "count": f"{each.count:,}",
            "count_above": f"{each.count_above:,}",
            "gain": percent(each.ap_cost),
        }
        for each in count_errors(verdicts, score)
    ]


def _overlap_plots(verdicts: Verdicts, anchors: AnchorScores) -> list[Shown]:
    """Anchors as in the paper's figure, and what became of them."""
    entries = (
        (
            anchors.overlap,
            "anchors",
            "Anchors: IoU of each anchor with the object it overlaps most, and its score for that object's class. "
            "Anchors that touch no object stand at IoU 0 with their highest score. The line is the mean score.",
        ),
        (
            detection_scores(verdicts),
            "detections",
            "Detections, after box regression and non-maximum suppression: IoU of each with that object of its class "
            "which it overlaps most.",
        ),
    )
    shown = []
    for counts, what, caption in entries:
        alt = f"Density of {int(counts.sum())} {what}, score against IoU with the object."
        shown.append(Shown(plot(partial(draw_overlap, counts=counts, what=what), alt), caption))
    return shown


def _density_plots(anchors: AnchorScores) -> list[Shown]:
    numbers = f"{int(anchors.foreground.sum())} foreground and {int(anchors.background.sum())} background pairs"
    captions = {
        False: "Each density has area 1; the background's is divided by 10, as in the paper's Fig. 1b.",
        True: "The same, not divided, on a logarithmic scale.",
    }
    shown = []
    for log, caption in captions.items():
        alt = f"Densities over the score of {numbers}" + (", logarithmic." if log else ".")
        whole = caption + " Pairs of an anchor and a class, positive or negative as in training." * (not log)
        shown.append(
            Shown(plot(partial(draw_densities, scores=anchors, log=log, divisor=1 if log else 10), alt), whole)
        )
    return shown


def _images(run: FinishedRun, verdicts: Verdicts, score: float) -> dict[str, Any]:
    errors = errors_by_image(run.ground_truth, verdicts, score, 0.5)
    best, worst = best_and_worst(errors, IMAGES)
    rule = (
        "By the localisation-recall-precision error (Oksuz et al., ECCV 2018) at IoU 0.5: 0 if every object is found "
        "exactly and nothing else, 1 if nothing is right. "
        + (f"Drawn are detections of score {score:.3f} and more, at most {MOST_BOXES}." if not np.isnan(score) else "")
    )
    return {"image_rule": rule, "best": _pictures(run, best, score), "worst": _pictures(run, worst, score)}


def _pictures(run: FinishedRun, errors: Sequence[ImageError], score: float) -> list[dict[str, str]]:
    names = {image["id"]: image["file_name"] for image in run.ground_truth["images"]}
    entries = []
    for each in errors:
        counts = f"{each.num_right} right, {each.num_wrong} wrong, {each.num_missed} missed"
        entries.append(
            {
                "uri": picture(draw_image(run.split, run.results, each.image_id, score)),
                "alt": f"{names[each.image_id]} with predicted and true boxes: {counts}",
                "caption": f"{names[each.image_id]}: error {each.error:.2f}; {counts}",
            }
        )
    return entries


def _training_plots(run: FinishedRun) -> list[Shown]:
    panels = read_curves(run.directory / "log.jsonl")
    return [
        Shown(plot(partial(draw_panel, title=title, curves=curves), f"{title} against the training step."), "")
        for title, curves in panels.items()
    ]
