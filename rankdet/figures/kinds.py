"""Which program makes a figure of which kind."""

from pathlib import Path

from rankdet.figures.against_batch import BenchmarkFigure
from rankdet.figures.against_overlap import AnchorFigure
from rankdet.figures.against_rows import RowFigure
from rankdet.figures.against_snapshots import SnapshotFigure
from rankdet.figures.components import ComponentFigure
from rankdet.figures.computed import ComputedFigure
from rankdet.figures.content import Reproduction
from rankdet.figures.detections import DetectionFigure
from rankdet.figures.manifest import FigureManifest
from rankdet.figures.of_table import plan_of_table
from rankdet.figures.plan import make_figure_plan
from rankdet.figures.score_densities import DensityFigure
from rankdet.figures.specs import Trained
from rankdet.figures.through_training import CourseFigure
from rankdet.figures.trained import TrainedFigure
from rankdet.results.datasets import MINI, DataChoice, choose_data

OF_TABLE = {
    "rows": RowFigure, "snapshots": SnapshotFigure, "anchors": AnchorFigure, "pictures": DetectionFigure,
    "course": CourseFigure, "components": ComponentFigure, "densities": DensityFigure,
}  # fmt: skip
ALONE = {
    "benchmark": BenchmarkFigure,
    "computed": ComputedFigure,
}  # no part for protocol and data


def reproduction(
    manifest: FigureManifest, protocol: str, data: DataChoice | None, root: Path, args: tuple[str, ...] = ()
) -> Reproduction:
    """The figure under a protocol, with the user's own overrides on top. data: None: its own.

    UserError where these do not fit the manifest."""
    alone = standing_alone(manifest, root)
    if alone is not None:
        return alone
    if isinstance(manifest.spec, Trained):
        own = choose_data(manifest.spec.data["mini" if protocol in MINI else "paper"])
        return TrainedFigure(make_figure_plan(manifest, protocol, data or own, root, args))
    return OF_TABLE[manifest.kind](plan_of_table(manifest, protocol, data, root, args))


def standing_alone(manifest: FigureManifest, root: Path) -> Reproduction | None:
    """The figure, if it needs neither protocol nor data."""
    return ALONE[manifest.kind](manifest, root) if manifest.kind in ALONE else None
