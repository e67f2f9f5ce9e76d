"""A table's files: Markdown, CSV, the plot, and LaTeX."""

from collections.abc import Callable
from pathlib import Path

from rankdet.files import replacing, write_text
from rankdet.results.cost_plot import cost_columns, plot_costs
from rankdet.results.latex import latex
from rankdet.results.plots import plot_table
from rankdet.results.render import csv_text, markdown
from rankdet.results.tables import Table


def save_table(table: Table, folder: Path) -> list[Path]:
    """Writes folder/<stem>.md, .csv, .png and .tex, the stem as in Plan.file_stem, and .cost.png for a table that tells
    what training steps cost; returns their paths."""
    stem = table.plan.file_stem
    cost = folder / f"{stem}.cost.png"
    text = f"{markdown(table)}\n![bars of the table above]({stem}.png)\n"
    costs = cost_columns(table.plan.manifest)
    if costs:
        text += f"\n![accuracy against {' and '.join(costs)}]({cost.name})\n"
    paths = save_three(folder, stem, text, csv_text(table), lambda path: plot_table(table, path))
    write_text(folder / f"{stem}.tex", latex(table))
    if costs:
        with replacing(cost) as partial:
            plot_costs(table, partial)
    return [*paths, folder / f"{stem}.tex", *([cost] if costs else [])]


def save_three(folder: Path, stem: str, text: str, csv: str, plot: Callable[[Path], None]) -> list[Path]:
    """Writes folder/<stem>.md, .csv and .png, each whole or not at all; returns their paths. plot writes to a path."""
    paths = [folder / f"{stem}{suffix}" for suffix in (".md", ".csv", ".png")]
    write_text(paths[0], text)
    write_text(paths[1], csv)
    with replacing(paths[2]) as partial:
        plot(partial)
    return paths
