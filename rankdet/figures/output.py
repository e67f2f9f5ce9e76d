"""A figure's files: Markdown, the points as CSV, and the plot as PNG and SVG."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from tabulate import tabulate

from rankdet.figures.content import Content
from rankdet.figures.manifest import FigureManifest
from rankdet.figures.plan import FigurePlan
from rankdet.files import replacing, write_text
from rankdet.results.datasets import MINI
from rankdet.results.describe import protocol_line, run_facts
from rankdet.results.plan import Plan

LOOK = {
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.2, "font.size": 10,
    "axes.axisbelow": True, "svg.hashsalt": "rankdet",
}  # fmt: skip


def markdown(manifest: FigureManifest, content: Content, plan: FigurePlan | Plan, settings: list[str]) -> str:
    """Heading, the points, the paper's words beside ours, and how the numbers came about. settings: on the tuning."""
    name, data = manifest.name.replace("-", " ").capitalize(), plan.data.name
    beside = [[one.label, one.fact, content.measured[key]] for key, one in manifest.series.items()]
    lines = [f"Ours: mean ± sample standard deviation over n seeds, on {data}.", *content.rules]
    if content.records:
        lines.append(protocol_line(plan.protocol, content.runs, content.records))
        lines += run_facts([run.train_split for run in content.runs], content.records, manifest.kind == "rows")
    lines += [*manifest.notes, *settings]
    if plan.protocol in MINI:
        lines += manifest.mini_notes
        lines.append(
            "What the paper says holds for other data, a larger pretrained detector and far longer training. Nothing "
            "here confirms or refutes it."
        )
    parts = [
        f"# {manifest.paper}, {name}: protocol {plan.protocol} on {data}",
        f"{manifest.title}.",
        content.table,
        tabulate(beside, ["series", "the paper's text", "measured here"], tablefmt="github", disable_numparse=True),
        "\n".join(f"- {line}" for line in lines),
    ]
    return "\n\n".join(parts) + "\n"


def save_figure(
    manifest: FigureManifest, content: Content, plan: FigurePlan | Plan, settings: list[str], folder: Path
) -> list[Path]:
    """Writes folder/<stem>.md, .csv, .png and .svg, each whole or not at all; equal content, equal bytes.

    The stem is the plan's, with the figure's name for the table's where its points are a table's rows."""
    stem = plan.file_stem.replace(plan.manifest.name, manifest.name, 1)
    paths = [folder / f"{stem}{suffix}" for suffix in (".md", ".csv", ".png", ".svg")]
    text = markdown(manifest, content, plan, settings)
    write_text(paths[0], f"{text}\n![{content.alt}]({stem}.png)\n")
    write_text(paths[1], content.csv)
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=content.size, layout="constrained")
        figure.suptitle(f"{manifest.paper} {manifest.name.replace('-', ' ')}: {plan.protocol} on {plan.data.name}")
        content.draw(figure)
        with replacing(paths[2]) as partial:
            figure.savefig(partial, format="png", dpi=120, metadata={"Software": None})
        with replacing(paths[3]) as partial:
            figure.savefig(partial, format="svg", metadata={"Date": None, "Creator": None})
    return paths
