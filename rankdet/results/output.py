"""A table's three files: Markdown, CSV and the plot."""

from pathlib import Path

from rankdet.files import replacing, write_text
from rankdet.results.plots import plot_table
from rankdet.results.render import csv_text, markdown
from rankdet.results.tables import Table


def save_table(table: Table, folder: Path) -> list[Path]:
    """Writes folder/<stem>.md, .csv and .png, the stem as in Plan.file_stem; returns their paths."""
    stem = table.plan.file_stem
    paths = [folder / f"{stem}{suffix}" for suffix in (".md", ".csv", ".png")]
    write_text(paths[0], f"{markdown(table)}\n![bars of the table above]({stem}.png)\n")
    write_text(paths[1], csv_text(table))
    with replacing(paths[2]) as partial:
        plot_table(table, partial)
    return paths
