"""Figures of where a quantity ends against the number of candidates an image, from a cold start or a warm one."""

from dataclasses import dataclass
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from tabulate import tabulate

from rankdet.figures.content import COLORS, Content, mean_sd, over_seeds, spread
from rankdet.figures.curves import FALLEN, LAST, Finder, LoggedRun, converged
from rankdet.figures.plan import COLD, FigurePlan, all_points, logged
from rankdet.files import as_csv
from rankdet.results.runs import Run


@dataclass(frozen=True)
class Spot:
    """A series at one number of candidates: its finished runs and whether they converged."""

    series: str
    count: int | None
    start: str
    runs: tuple[LoggedRun, ...]
    planned: tuple[Run, ...]
    converged: bool

    @property
    def finals(self) -> list[float]:
        """A value a seed."""
        return [run.final for run in self.runs]


def candidate_content(plan: FigurePlan, find: Finder) -> Content:
    """The figure as far as its runs are finished."""
    spots = _spots(plan, find)
    found = plan.candidates
    assert found is not None
    least = found.snapshot["paper" if plan.protocol == "paper" else "mini"][0]
    return Content(
        _table(plan, spots),
        _csv(plan, spots),
        {key: _measured([spot for spot in spots if spot.series == key]) for key in plan.manifest.series},
        [
            over_seeds(plan.data.name),
            f"Final {plan.quantity}: of the training batches, over an image's candidates; the mean over the last "
            f"{LAST:.0%} of a run's steps.",
            f"Converged: the mean final value lies below {FALLEN:g} of the value of the first logged steps from a cold "
            f"start. Where a cold start does not, a warm one goes on from the same series' weights at {least} "
            "candidates, the same seed's.",
            *_in_name_only(plan, spots, least),
            "The training of the network that ranks the candidates is not among the runs counted here.",
        ],
        lambda figure: _draw(figure, plan, spots),
        (7.2, 4.6),
        f"final {plan.quantity} against the number of candidates, a line a series",
        [spot.planned[0] for spot in spots if spot.runs],
        [run.record for spot in spots for run in spot.runs],
    )


def _spots(plan: FigurePlan, find: Finder) -> list[Spot]:
    spots: list[Spot] = []
    first: dict[tuple[str, int | None], float] = {}
    for point in all_points(plan, find):
        runs, place = logged(point, plan.quantity, find), (point.series.key, point.x)
        if runs and point.start == COLD:
            first[place] = fmean(run.first for run in runs)
        fell = bool(runs) and converged(runs, first[place])
        spots.append(Spot(point.series.key, point.x, point.start, tuple(runs), point.runs, fell))
    return spots


def _in_name_only(plan: FigurePlan, spots: list[Spot], least: int) -> list[str]:
    """Which series' warm starts go on from weights that had not come anywhere either."""
    warm = {spot.series for spot in spots if spot.start != COLD and spot.runs}
    return [
        f"{plan.manifest.series[spot.series].label}: the training at {least} candidates that warm starts go on from "
        f"had itself not converged ({mean_sd(spot.finals)}), so they are warm in name only."
        for spot in spots
        if spot.series in warm and (spot.count, spot.start) == (least, COLD) and spot.runs and not spot.converged
    ]


def _measured(spots: list[Spot]) -> str:
    cold = [spot for spot in spots if spot.start == COLD and spot.runs]
    if not cold:
        return "not run"
    text = ", ".join(f"{mean_sd(spot.finals)} at {named(spot.count)}" for spot in cold)
    text = f"from a cold start {text}"
    failed = [spot for spot in cold if not spot.converged]
    if failed:
        text += f"; not converged at {', '.join(named(spot.count) for spot in failed)}"
    warm = [spot for spot in spots if spot.start != COLD and spot.runs]
    if warm:
        marks = {True: "", False: " (not converged)"}
        ends = (f"{mean_sd(spot.finals)} at {named(spot.count)}{marks[spot.converged]}" for spot in warm)
        text += f"; from a warm start {', '.join(ends)}"
    return text


def _table(plan: FigurePlan, spots: list[Spot]) -> str:
    by_place = {(spot.series, spot.count, spot.start): spot for spot in spots}
    body = []
    for count in dict.fromkeys(spot.count for spot in spots):
        cells = []
        for key in plan.manifest.series:
            shown = []
            for start in dict.fromkeys(spot.start for spot in spots):
                spot = by_place.get((key, count, start))
                if spot is not None and spot.runs:
                    mark = "" if spot.converged else " (not converged)"
                    shown.append(f"{'' if start == COLD else 'warm '}{mean_sd(spot.finals)}{mark}")
            cells.append("; ".join(shown) or "not run")
        body.append([named(count), *cells])
    headers = ["candidates an image", *(one.label for one in plan.manifest.series.values())]
    return tabulate(body, headers, tablefmt="github", disable_numparse=True, colalign=("right",) * len(headers))


def _csv(plan: FigurePlan, spots: list[Spot]) -> str:
    value = f"final_{plan.quantity}"
    header = ("series", "candidates", "start", "converged", "n")
    lines = []
    for spot in spots:
        finals = [round(final, 6) for final in spot.finals]
        numbers = [round(fmean(finals), 6), round(spread(finals), 6) if len(finals) > 1 else ""] if finals else ["", ""]
        flag = int(spot.converged) if finals else ""
        seeds = ";".join(str(run.record["seed"]) for run in spot.runs)
        lines.append(
            [spot.series, named(spot.count), spot.start, flag, len(finals), *numbers, ";".join(map(str, finals)), seeds]
        )
    return as_csv((*header, f"{value}_mean", f"{value}_sd", f"{value}_seeds", "seeds"), lines)


def _draw(figure: Figure, plan: FigurePlan, spots: list[Spot]) -> None:
    axes = figure.add_subplot()
    counts = list(dict.fromkeys(spot.count for spot in spots))
    places = {count: place for place, count in enumerate(counts)}
    for i, key in enumerate(plan.manifest.series):
        _line(axes, [spot for spot in spots if spot.series == key and spot.runs], places, COLORS[i], 0.05 * (i - 1))
    axes.set_xticks(range(len(counts)), [named(count) for count in counts])
    axes.set(xlabel="candidates an image", ylabel=f"final {plan.curves.y_label}", ylim=(0, 1.05))
    axes.set_xlim(-0.3, len(counts) - 0.7)
    num_seeds = len(plan.trained.seeds)
    bars = "one seed" if num_seeds == 1 else f"{num_seeds} seeds, bars: sample standard deviation"
    axes.set_title(bars if any(spot.runs for spot in spots) else "not run", fontsize=9)
    labels = [one.label for one in plan.manifest.series.values()]
    handles = [Line2D([], [], color=COLORS[i], marker="o", label=label) for i, label in enumerate(labels)]
    handles.append(Line2D([], [], color="black", ls="", marker="x", label="cold start, not converged"))
    handles.append(Line2D([], [], color="black", ls="--", marker="o", mfc="white", label="from a warm start"))
    handles.append(Line2D([], [], color="black", ls="", marker="+", label="warm start, not converged"))
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncol=2, frameon=False)


def _line(axes: Axes, spots: list[Spot], places: dict[int | None, int], color: str, shift: float) -> None:
    """Solid through what a cold start reaches, on from there dashed through the warm starts; crosses: what failed."""
    fallen = [spot for spot in spots if spot.start == COLD and spot.converged]
    failed = [spot for spot in spots if spot.start == COLD and not spot.converged]
    warm = [spot for spot in spots if spot.start != COLD and spot.converged]
    cool = [spot for spot in spots if spot.start != COLD and not spot.converged]
    styles = ((fallen, "-", "o", color), (failed, "", "x", color), (warm, "", "o", "white"), (cool, "", "+", color))
    for shown, line, marker, face in styles:
        if shown:
            x, y = [places[spot.count] + shift for spot in shown], [fmean(spot.finals) for spot in shown]
            sd = [spread(spot.finals) for spot in shown]
            axes.errorbar(x, y, sd, color=color, ls=line, marker=marker, mfc=face, ms=6, capsize=3, lw=1.8)
    if warm:
        linked = sorted([*fallen[-1:], *warm], key=lambda spot: places[spot.count])
        x, y = [places[spot.count] + shift for spot in linked], [fmean(spot.finals) for spot in linked]
        axes.plot(x, y, color=color, ls="--", lw=1.4, zorder=1)


def named(count: int | None) -> str:
    """all, or the number."""
    return "all" if count is None else str(count)
