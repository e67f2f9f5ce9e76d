"""A search as pictures: rewards and policy round by round, and functions with their control points."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rankdet.files import replacing
from rankdet.search.parameters import FUNCTIONS, Shape
from rankdet.search.rounds import Round
from rankdet.search.settings import Search

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")  # Okabe and Ito's
EDGE = "#777777"
TITLES = {"h2": "H2", "i2": "I2", "i3": "I3", "i1": "I1", "h1": "H1"}  # as in the formula


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG, whole or not at all, and closes the figure. Equal figures, equal bytes."""
    with replacing(path) as partial:
        figure.savefig(partial, dpi=110, metadata={"Software": None})
    plt.close(figure)


def progress(search: Search, start: float, rounds: Sequence[Round]) -> Figure:
    """Rewards by round above, below them the policy's mean of each coordinate with its spread, function by function."""
    groups: dict[str, list[int]] = {}
    for place, name in enumerate(search.space.names()):
        function, _, coordinate = name.rpartition(" ")
        groups.setdefault(name if coordinate == "scale" else function, []).append(place)
    columns = min(len(groups), 6)
    down = -(-len(groups) // columns)
    figure = plt.figure(figsize=(max(8.0, 2.3 * columns), 3.6 + 2.2 * down), layout="constrained")
    grid = figure.add_gridspec(1 + down, columns, height_ratios=[1.6, *[1.0] * down])
    _rewards(figure.add_subplot(grid[0, :]), start, rounds, search.rounds)
    for number, (name, places) in enumerate(groups.items()):
        axes = figure.add_subplot(grid[1 + number // columns, number % columns])
        names = [search.space.names()[place].rpartition(" ")[2] for place in places]
        _coordinates(axes, rounds, places, names, search.rounds, legend=number == 0)
        axes.set_title(f"theta of {name}", fontsize=9)
    figure.suptitle(
        f"{search.name} ({search.protocol}, {search.data.name}, seed {search.seed}): rewards, and the policy"
    )
    return figure


def _rewards(axes: Axes, start: float, rounds: Sequence[Round], total: int) -> None:
    axes.axhline(100 * start, color=EDGE, ls="--", lw=1, label="the identity line")
    most = 100 * start
    if rounds:
        rewards = 100 * np.array([one.rewards for one in rounds])
        most = max(most, rewards.max())
        x = np.arange(1, len(rounds) + 1)
        each = np.repeat(x, rewards.shape[1])
        axes.scatter(each, rewards, s=16, facecolor="none", edgecolor=COLORS[0], label="a sample")
        axes.plot(x, rewards.mean(1), color=COLORS[1], lw=1.5, marker=".", label="mean of the round")
        best = np.maximum.accumulate(rewards.max(1))
        axes.step(x, best, where="mid", color=COLORS[2], lw=1.2, label="best so far")
    _over_rounds(axes, total)
    axes.set_ylim(0, 1.08 * most or 1.0)
    axes.set_xlabel("round")
    axes.set_ylabel("reward: held-out AP (%)")
    axes.legend(frameon=False, fontsize=8, ncols=4, loc="lower left", bbox_to_anchor=(0, 1))


def _coordinates(
    axes: Axes, rounds: Sequence[Round], places: Sequence[int], names: Sequence[str], total: int, legend: bool
) -> None:
    mean = np.array([one.policy.mean.numpy() for one in rounds])
    sigma = np.array([one.sigma for one in rounds])
    x = np.arange(1, len(rounds) + 1)
    for number, (place, name) in enumerate(zip(places, names, strict=True)):
        color, style = COLORS[number // 2 % len(COLORS)], "--" if name.startswith("y") else "-"
        if rounds:
            axes.plot(x, mean[:, place], color=color, ls=style, lw=1.2, marker=".", ms=4, label=name)
            axes.fill_between(x, mean[:, place] - sigma, mean[:, place] + sigma, color=color, alpha=0.07, lw=0)
    if rounds and legend:
        axes.legend(frameon=False, fontsize=7, ncols=2, handlelength=1.6, loc="upper left")
    _over_rounds(axes, total)
    axes.set_ylim(0, 1)
    axes.tick_params(labelsize=7)


def _over_rounds(axes: Axes, total: int) -> None:
    """All rounds, also those to come, by whole numbers."""
    axes.set_xlim(0.5, total + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))


def functions(shapes: dict[str, Shape], title: str) -> Figure:
    """The five functions of each stage with their control points, as the supplement's Fig. 1."""
    figure = plt.figure(figsize=(4.6 * len(shapes) + 0.4, 4.6), layout="constrained")
    for axes, (stage, shape) in zip(np.ravel(figure.subplots(1, len(shapes))), shapes.items(), strict=True):
        draw_functions(axes, shape)
        name = f"{'RPN' if stage.startswith('rpn') else 'RoI head'}, " if len(shapes) > 1 else ""
        axes.set_title(f"{name}gradient scale {shape.gradient_scale:.3g}", fontsize=10)
    figure.suptitle(title)
    return figure


def draw_functions(axes: Axes, shape: Shape) -> None:
    """One stage's onto axes; functions that are all the same are drawn once."""
    rows = dict(zip(FUNCTIONS, shape.control_points, strict=True))
    if len(set(rows.values())) == 1:
        rows = {"all": rows["h1"]}
    axes.plot([0, 1], [0, 1], color=EDGE, lw=0.8, ls=":", label="identity")
    for color, (name, row) in zip(COLORS, rows.items(), strict=False):
        points = np.array([0.0, 0.0, *row, 1.0, 1.0])
        axes.plot(points[0::2], points[1::2], color=color, lw=1.4, label=TITLES.get(name, "all five"))
        axes.plot(row[0::2], row[1::2], ls="", marker="o", ms=4.5, color=color)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal")
    axes.set_xlabel("score difference / 2 + 1/2 (H), (GIoU + 1) / 2 (I)")
    axes.legend(frameon=False, fontsize=8, loc="upper left")
