"""A figure's files: Markdown, the points as CSV, and the plot as PNG and SVG."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from PIL import Image
from tabulate import tabulate

from rankdet.figures.content import Content, Edition
from rankdet.figures.manifest import FigureManifest
from rankdet.files import replacing, write_text
from rankdet.results.datasets import MINI
from rankdet.results.describe import protocol_line, run_facts

LOOK = {
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.2, "font.size": 10,
    "axes.axisbelow": True, "svg.hashsalt": "rankdet",
}  # fmt: skip


def markdown(manifest: FigureManifest, content: Content, edition: Edition) -> str:
    """Heading, the points, the paper's words beside ours, and how the numbers came about."""
    head = f"{manifest.paper}, {manifest.name.replace('-', ' ').capitalize()}"
    beside = [[one.label, one.fact, content.measured[key]] for key, one in manifest.series.items()]
    lines = [*content.rules]
    if content.records and edition.protocol and edition.data:
        lines.append(protocol_line(edition.protocol, content.runs, content.records))
        lines += run_facts([run.train_split for run in content.runs], content.records, content.tested)
    lines += [*manifest.notes, *content.settings]
    if edition.protocol in MINI:
        lines += manifest.mini_notes
        lines.append(
            "What the paper says holds for other data, a larger pretrained detector and far longer training. Nothing "
            "here confirms or refutes it."
        )
    parts = [
        f"# {head}: protocol {edition.protocol} on {edition.data}" if edition.protocol else f"# {head}",
        f"{manifest.title}.",
        content.table,
        tabulate(beside, ["series", "the paper's text", "measured here"], tablefmt="github", disable_numparse=True),
        "\n".join(f"- {line}" for line in lines),
    ]
    return "\n\n".join(parts) + "\n"


def save_figure(manifest: FigureManifest, content: Content, edition: Edition, folder: Path) -> list[Path]:
    """Writes folder/<stem>.md, .csv, .png and, but for images, .svg, each whole or not at all; equal content, equal
    bytes."""
    stem = edition.stem
    suffixes = (".md", ".csv", ".png") if content.images else (".md", ".csv", ".png", ".svg")
    paths = [folder / f"{stem}{suffix}" for suffix in suffixes]
    write_text(paths[0], f"{markdown(manifest, content, edition)}\n![{content.alt}]({stem}.png)\n")
    write_text(paths[1], content.csv)
    title = f"{manifest.paper} {manifest.name.replace('-', ' ')}"
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=content.size, layout="constrained")
        figure.suptitle(f"{title}: {edition.protocol} on {edition.data}" if edition.protocol else title)
        content.draw(figure)
        with replacing(paths[2]) as partial:
            figure.savefig(partial, format="png", dpi=120, metadata={"Software": None})
            if content.images:  # a fifth of the bytes; median cut would make one colour of several classes'
                with Image.open(partial) as picture:
                    few = picture.convert("RGB").quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
                few.save(partial, optimize=True)
        if not content.images:
            with replacing(paths[3]) as partial:
                figure.savefig(partial, format="svg", metadata={"Date": None, "Creator": None})
    return paths
