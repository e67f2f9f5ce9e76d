"""Which program makes a figure of which kind."""

from pathlib import Path

from rankdet.figures.against_rows import RowFigure
from rankdet.figures.content import Reproduction
from rankdet.figures.manifest import FigureManifest
from rankdet.figures.of_table import plan_of_table
from rankdet.figures.plan import make_figure_plan
from rankdet.figures.specs import RowPoints, Trained
from rankdet.figures.trained import TrainedFigure
from rankdet.results.plan import DataChoice


def reproduction(
    manifest: FigureManifest, protocol: str, data: DataChoice, root: Path, args: tuple[str, ...] = ()
) -> Reproduction:
    """The figure under a protocol, on data, with the user's own overrides on top.

    UserError where these do not fit the manifest."""
    if isinstance(manifest.spec, Trained):
        return TrainedFigure(make_figure_plan(manifest, protocol, data, root, args))
    of_kind = {RowPoints: RowFigure}
    return of_kind[type(manifest.spec)](plan_of_table(manifest, protocol, data, root, args))
