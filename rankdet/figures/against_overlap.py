"""Figures of anchors' scores against their overlap with an object, as densities, a panel a loss."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from tabulate import tabulate

from rankdet.figures.anchors import CountedFigure, CountedRun
from rankdet.figures.content import Content, mean_sd, over_seeds
from rankdet.figures.of_table import TablePlan
from rankdet.files import as_csv
from rankdet.report.score_distributions import BINS, draw_overlap
from rankdet.results.runs import Run

LOW, HIGH = 0.1, 0.5  # IoU below which an anchor is background for sure, and from which it is counted as on its object
SURE, LIKELY = 0.9, 0.5  # scores
KEPT = 0.5  # of the anchors on their objects, where losses are compared whatever the scale of their scores

Counts = dict[str, list[CountedRun]]  # series key -> a run a seed


@dataclass
class AnchorFigure(CountedFigure):
    """A figure of the kind anchors."""

    def content(self, published: bool) -> Content:
        """From the counts beside the runs, or what was published of them."""
        return overlap_content(self.of, self.finder(published))


@dataclass(frozen=True)
class Shares:
    """What one run's counts say. likely: anchors of IoU < LOW scored LIKELY or more, a thousand anchors on objects.

    threshold: the highest edge of a bin from which at least KEPT of the anchors on objects are scored; at_kept: anchors
    of IoU < LOW from there on, for each anchor on an object from there on. sure: of the anchors on objects, the share
    scored SURE or more. strip: the upper edge of the highest bin that holds an anchor of IoU < 1 / BINS."""

    likely: float
    threshold: float
    at_kept: float
    sure: float
    strip: float


def shares(overlap: np.ndarray) -> Shares | None:
    """Of int64 [BINS (IoU), BINS (score)]; None where no anchor lies on an object."""
    on_object, background = overlap[round(HIGH * BINS) :].sum(axis=0), overlap[: round(LOW * BINS)].sum(axis=0)
    total = int(on_object.sum())
    if not total:
        return None
    above = on_object[::-1].cumsum()[::-1]  # [i]: from bin i on
    edge = int(np.flatnonzero(above >= KEPT * total)[-1])
    reached = np.flatnonzero(overlap[0])
    return Shares(
        likely=1000 * int(background[round(LIKELY * BINS) :].sum()) / total,
        threshold=edge / BINS,
        at_kept=int(background[edge:].sum()) / int(above[edge]),
        sure=int(on_object[round(SURE * BINS) :].sum()) / total,
        strip=(int(reached[-1]) + 1) / BINS if len(reached) else 0.0,
    )


def overlap_content(of: TablePlan, find: Callable[[Run], CountedRun | None]) -> Content:
    """The figure as far as its runs are finished and counted."""
    series = of.series()
    counts = {key: [found for run in runs if (found := find(run)) is not None] for key, runs in series.items()}
    runs = [run for own in series.values() for run in own]
    done = [found for own in counts.values() for found in own]
    images = ", ".join(sorted({str(found.num_images) for found in done})) or "no"
    return Content(
        _table(of, counts),
        _csv(counts),
        {key: _measured(own) for key, own in counts.items()},
        [
            over_seeds(of.table.data.name),
            f"All anchors of the first {images} images of the test split, by the final weights of the rows of "
            f"{of.table.manifest.name}; an anchor's object is the one it overlaps most, its score that of the object's "
            "class. An anchor that touches no object has no such class; it is shown with the highest of its scores.",
            f"Background: IoU below {LOW}. On an object: IoU from {HIGH} on. Kept: scored at or above the highest "
            f"multiple of {1 / BINS:g} that at least half of the anchors on objects reach, so that scores of any scale "
            "compare. Plotted: all seeds together, and as a line the mean score at each IoU.",
        ],
        lambda figure: _draw(figure, of, counts),
        (9.6, 7.6),
        "score against IoU, a panel a series",
        [own[0] for key, own in series.items() if counts[key]],
        [found.record for found in done],
        of.settings(runs),
        tested=True,
    )


def _measured(runs: Sequence[CountedRun]) -> str:
    if not runs:
        return "not run"
    found = [one for run in runs if (one := shares(run.overlap)) is not None]
    if not found:
        return "no anchor lies on an object"
    return (
        f"{mean_sd([one.at_kept for one in found])} background anchors for each one kept on an object; the highest "
        f"score at IoU 0 lies below {max(one.strip for one in found):.2f} with every seed; "
        f"{mean_sd([100 * one.sure for one in found], 1)} % of those on objects are scored {SURE} or more"
    )


def _table(of: TablePlan, counts: Counts) -> str:
    body = []
    for key, runs in counts.items():
        found = [one for run in runs if (one := shares(run.overlap)) is not None]
        columns = [
            ([one.likely for one in found], 1), ([one.threshold for one in found], 2),
            ([one.at_kept for one in found], 2), ([100 * one.sure for one in found], 1),
            ([one.strip for one in found], 2),
        ]  # fmt: skip
        cells = [mean_sd(values, digits) if values else "not run" for values, digits in columns]
        body.append([of.manifest.series[key].label, *cells, str(len(runs))])
    headers = [
        "series", f"background scored ≥ {LIKELY}, per 1000 on objects", "threshold of the kept",
        "background per anchor kept", f"on objects scored ≥ {SURE} (%)", "highest score at IoU 0, below", "n",
    ]  # fmt: skip
    return tabulate(body, headers, tablefmt="github", disable_numparse=True, colalign=("left", *["right"] * 6))


def _csv(counts: Counts) -> str:
    """A line for each bin that holds an anchor, all seeds together."""
    lines = [
        (key, f"{i / BINS:g}", f"{j / BINS:g}", pooled[i, j])
        for key, pooled in ((key, _pooled(runs)) for key, runs in counts.items())
        for i, j in np.argwhere(pooled).tolist()
    ]
    return as_csv(("series", "iou_from", "score_from", "anchors"), lines)


def _pooled(runs: Sequence[CountedRun]) -> np.ndarray:
    return sum((run.overlap for run in runs), np.zeros((BINS, BINS), np.int64))


def _draw(figure: Figure, of: TablePlan, counts: Counts) -> None:
    panels = figure.subplots(-(-len(counts) // 2), 2, squeeze=False).flatten()
    for axes, (key, runs) in zip(panels, counts.items(), strict=False):
        draw_overlap(axes, _pooled(runs), "anchors")
        axes.set_title(of.manifest.series[key].label + ("" if runs else ": not run"))
    for axes in panels[len(counts) :]:
        axes.set_axis_off()
