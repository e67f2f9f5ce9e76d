"""A table's three files: Markdown, CSV and the plot."""

from collections.abc import Callable
from pathlib import Path

from rankdet.files import replacing, write_text
from rankdet.results.plots import plot_table
from rankdet.results.render import csv_text, markdown
from rankdet.results.tables import Table


def save_table(table: Table, folder: Path) -> list[Path]:
    """Writes folder/<stem>.md, .csv and .png, the stem as in Plan.file_stem; returns their paths."""
    text = f"{markdown(table)}\n![bars of the table above]({table.plan.file_stem}.png)\n"
    return save_three(folder, table.plan.file_stem, text, csv_text(table), lambda path: plot_table(table, path))


def save_three(folder: Path, stem: str, text: str, csv: str, plot: Callable[[Path], None]) -> list[Path]:
    """Writes folder/<stem>.md, .csv and .png, each whole or not at all; returns their paths. plot writes to a path."""
    paths = [folder / f"{stem}{suffix}" for suffix in (".md", ".csv", ".png")]
    write_text(paths[0], text)
    write_text(paths[1], csv)
    with replacing(paths[2]) as partial:
        plot(partial)
    return paths
