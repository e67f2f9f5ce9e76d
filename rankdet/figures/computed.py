"""Figures that need no training: small exact computations with the package's own functions, and their drawing."""

from dataclasses import dataclass
from pathlib import Path

from rankdet.errors import UserError
from rankdet.figures import (
    accuracy_and_ap,
    harmonic_gradients,
    harmonic_iou_family,
    hyperparameters,
    label_replication,
    scores_and_boxes,
    searched_functions,
    step_functions,
)
from rankdet.figures.content import Content, Edition
from rankdet.figures.manifest import FigureManifest
from rankdet.figures.specs import Computed
from rankdet.figures.work import Work
from rankdet.results.registry import load_registry

PICTURES = {  # each is given the printed tables that its manifest names
    "step-functions": step_functions.content,
    "accuracy-and-ap": accuracy_and_ap.content,
    "label-replication": label_replication.content,
    "hyperparameters": hyperparameters.content,
    "scores-and-boxes": scores_and_boxes.content,
    "harmonic-offsets": harmonic_gradients.of_offsets,
    "harmonic-scores": harmonic_gradients.of_scores,
    "harmonic-iou-family": harmonic_iou_family.content,
    "searched-functions": searched_functions.content,
}


@dataclass(frozen=True)
class ComputedFigure:
    """A figure of the kind computed."""

    manifest: FigureManifest
    root: Path

    @property
    def edition(self) -> Edition:
        """There is one."""
        return Edition(self.manifest.name)

    def make(self, work: Work) -> None:
        """There is nothing to do beforehand."""

    def publish(self) -> bool:
        """There is nothing to copy."""
        return True

    def content(self, published: bool) -> Content:
        """Computed now. UserError where there is no such picture, or the manifest's series are not what it tells."""
        spec, path = self.manifest.spec, self.manifest.path
        assert isinstance(spec, Computed)
        if spec.picture not in PICTURES:
            raise UserError(f"{path}: picture: {spec.picture!r} is not one of {', '.join(PICTURES)}")
        registry = load_registry(self.root / "experiments" / "registry.yaml")
        content = PICTURES[spec.picture](*(registry.table(table) for table in spec.tables))
        if set(self.manifest.series) != set(content.measured):
            raise UserError(f"{path}: series: {spec.picture} tells of {', '.join(content.measured)}, each once")
        return content
