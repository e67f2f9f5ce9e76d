"""Figures of the densities of foreground and background scores, as DR loss's supplement has one (Fig. 1)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from tabulate import tabulate

from rankdet.figures.anchors import CountedFigure, CountedRun
from rankdet.figures.content import Content, mean_sd, over_seeds
from rankdet.figures.of_table import TablePlan
from rankdet.files import as_csv
from rankdet.report.score_distributions import BINS, AnchorScores, draw_densities
from rankdet.results.runs import Run

DIVISORS = (1, 10)  # of the background's density: panels (a) and (b)
MOST = 0.99  # of the background, where it is told how high its scores reach

Counts = dict[str, list[CountedRun]]  # series key -> a run a seed


@dataclass
class DensityFigure(CountedFigure):
    """A figure of the kind densities."""

    def content(self, published: bool) -> Content:
        """From the counts beside the runs, or what was published of them."""
        return density_content(self.of, self.finder(published))


@dataclass(frozen=True)
class Separation:
    """How far one run's two densities lie apart; scores are upper edges of bins.

    foreground: the score that at least half of the foreground does not exceed. background: that MOST of the background
    does not. above: the share of the foreground in higher bins than that. common: the area under both densities."""

    foreground: float
    background: float
    above: float
    common: float


def separation(foreground: np.ndarray, background: np.ndarray) -> Separation | None:
    """Of two int64 [BINS]; None where one of them counts nothing."""
    if not foreground.any() or not background.any():
        return None
    densities = [counts / counts.sum() for counts in (foreground, background)]
    middle = _reached(foreground, 0.5)
    edge = _reached(background, MOST)
    above = float(densities[0][edge + 1 :].sum())
    return Separation((middle + 1) / BINS, (edge + 1) / BINS, above, float(np.minimum(*densities).sum()))


def _reached(counts: np.ndarray, share: float) -> int:
    """The first bin up to which at least this share lies."""
    return int(np.flatnonzero(counts.cumsum() >= share * counts.sum())[0])


def density_content(of: TablePlan, find: Callable[[Run], CountedRun | None]) -> Content:
    """The figure as far as its runs are finished and counted."""
    series = of.series()
    counts = {
        key: [one for run in runs if (one := find(run)) is not None and one.foreground is not None]
        for key, runs in series.items()
    }
    done = [found for own in counts.values() for found in own]
    images = ", ".join(sorted({str(found.num_images) for found in done})) or "no"
    return Content(
        _table(of, counts),
        _csv(counts),
        {key: _measured(_separations(own)) for key, own in counts.items()},
        [
            over_seeds(of.table.data.name),
            f"All (anchor, class) pairs of the first {images} images of the test split, by the final weights of the "
            f"rows of {of.table.manifest.name}. Foreground: the pairs that training calls positive; background: those "
            "that it calls negative. Each is a density of its own, of area 1, whatever their numbers, and in (b) the "
            "background's is divided by 10.",
            f"Scores are counted in {BINS} bins and told by their upper edges; all seeds are plotted together.",
        ],
        lambda figure: _draw(figure, of, counts),
        (9.6, 1.0 + 3.2 * len(counts)),
        "densities of foreground and background scores, a line of panels a series",
        [own[0] for key, own in series.items() if counts[key]],
        [found.record for found in done],
        of.settings([run for own in series.values() for run in own]),
        tested=True,
    )


def _separations(runs: Sequence[CountedRun]) -> list[Separation]:
    return [one for run in runs if (one := separation(run.foreground, run.background)) is not None]


def _measured(found: Sequence[Separation]) -> str:
    if not found:
        return "not run"
    return (
        f"{MOST:.0%} of the background is scored {mean_sd([one.background for one in found])} or less, half of the "
        f"foreground {mean_sd([one.foreground for one in found])} or less; "
        f"{mean_sd([100 * one.common for one in found], 1)} % of the area is common to both"
    )


def _table(of: TablePlan, counts: Counts) -> str:
    body = []
    for key, runs in counts.items():
        found = _separations(runs)
        columns = [
            ([one.foreground for one in found], 2), ([one.background for one in found], 2),
            ([100 * one.above for one in found], 1), ([100 * one.common for one in found], 1),
        ]  # fmt: skip
        cells = [mean_sd(values, digits) if values else "not run" for values, digits in columns]
        body.append([of.manifest.series[key].label, *cells, str(len(runs))])
    headers = [
        "series", "half of the foreground, up to", f"{MOST:.0%} of the background, up to", "foreground above that (%)",
        "area common to both (%)", "n",
    ]  # fmt: skip
    return tabulate(body, headers, tablefmt="github", disable_numparse=True, colalign=("left", *["right"] * 5))


def _csv(counts: Counts) -> str:
    """A line for each bin, all seeds together."""
    lines = [
        (key, f"{place / BINS:g}", scores.foreground[place], scores.background[place])
        for key, scores in ((key, _pooled(runs)) for key, runs in counts.items())
        for place in range(BINS)
    ]
    return as_csv(("series", "score_from", "foreground", "background"), lines)


def _pooled(runs: Sequence[CountedRun]) -> AnchorScores:
    square, line = np.zeros((BINS, BINS), np.int64), np.zeros(BINS, np.int64)
    pooled = AnchorScores(square, line, line)
    for run in runs:
        pooled = pooled.plus(AnchorScores(run.overlap, run.foreground, run.background))
    return pooled


def _draw(figure: Figure, of: TablePlan, counts: Counts) -> None:
    lines = figure.subplots(len(counts), len(DIVISORS), squeeze=False)
    for line, (key, runs) in zip(lines, counts.items(), strict=True):
        for axes, panel, divisor in zip(line, "ab", DIVISORS, strict=True):
            draw_densities(axes, _pooled(runs), log=False, divisor=divisor)
            axes.set_title(f"({panel}) {of.manifest.series[key].label}{'' if runs else ': not run'}")
