"""Accuracy against what a training step costs, a point a row, of tables that tell both."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from rankdet.results.describe_order import MAIN_METRICS
from rankdet.results.manifest import Manifest
from rankdet.results.tables import Table, TableRow
from rankdet.robustness.conditions import TRAINING_STEP

MARKERS = "osD^v"
LEGEND = 3.2  # inches, right of the panels


def cost_columns(manifest: Manifest) -> list[str]:
    """The columns that tell what a training step costs."""
    return [key for key, cell in manifest.columns.items() if cell.condition == TRAINING_STEP]


def plot_costs(table: Table, path: Path) -> None:
    """Writes a PNG: a panel for each cost, means with sample standard deviations. Equal tables, equal bytes."""
    plan, metric = table.plan, MAIN_METRICS[0]
    columns = cost_columns(plan.manifest)
    size = (4.4 * len(columns) + LEGEND, 5.0)
    figure, panels = plt.subplots(1, len(columns), figsize=size, sharey=True, squeeze=False)
    for axes, column in zip(panels[0], columns, strict=True):
        rows = [row for row in table.rows if row.score(column) and row.score(metric)]
        _panel(axes, table.rows, column, metric)
        if not rows:
            axes.text(0.5, 0.5, "not run", ha="center", transform=axes.transAxes)
    panels[0][0].set_ylabel(f"{metric} (%)")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="center right", frameon=False, fontsize=9)
    figure.suptitle(f"{plan.manifest.tables[0].title}: accuracy and cost ({plan.protocol}, {plan.on})")
    figure.tight_layout(rect=(0, 0, 1 - LEGEND / figure.get_figwidth(), 1))
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)


def _panel(axes: Axes, rows: Sequence[TableRow], column: str, metric: str) -> None:
    colors = plt.get_cmap("tab10")
    for place, row in enumerate(rows):
        cost, accuracy = row.score(column), row.score(metric)
        found = (
            ([cost.mean], [accuracy.mean], [accuracy.sd or 0.0], [cost.sd or 0.0]) if cost and accuracy else ([],) * 4
        )
        axes.errorbar(
            *found, fmt=MARKERS[place // 10 + place % 3], color=colors(place % 10), ms=7, mec="white", capsize=2,
            elinewidth=1, label=row.planned.printed.label,
        )  # fmt: skip
    unit = rows[0].planned.table.units[column] if rows else ""
    axes.set_xlabel(f"{rows[0].planned.table.columns[column]} ({unit})" if rows else column)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
