"""Figures from committed records: what they are drawn from is copied, and the files follow from that alone."""

from pathlib import Path

from rankdet.figures.content import Reproduction
from rankdet.figures.kinds import reproduction, standing_alone
from rankdet.figures.manifest import FigureManifest, figure_manifests, load_figure
from rankdet.figures.output import save_figure
from rankdet.results.publish import load_published


def publish_figures(root: Path) -> list[Path]:
    """Copies what is finished in runs/, then writes every published figure; returns the figures' files.

    Published are those of the list, and all that need neither a protocol nor data. An unchanged state changes no
    byte."""
    experiments = root / "experiments"
    paths: list[Path] = []
    for entry in load_published(experiments / "published.yaml", "figure"):
        manifest = load_figure(experiments / entry.paper / f"{entry.name}.yaml")
        paths += _publish(manifest, reproduction(manifest, entry.protocol, entry.data, root))
    for path in figure_manifests(experiments):
        if path.parent.name == "tuning":  # grids, which are named after their figures
            continue
        manifest = load_figure(path)
        figure = standing_alone(manifest, root)
        if figure is not None:
            paths += _publish(manifest, figure)
    return paths


def _publish(manifest: FigureManifest, figure: Reproduction) -> list[Path]:
    if not figure.publish():
        return []
    return save_figure(manifest, figure.content(published=True), figure.edition, manifest.path.parent)
