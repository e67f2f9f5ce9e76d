"""One output of a detector and how it learns: a single-stage detector has one, Faster R-CNN two, DETR one a layer."""

from dataclasses import dataclass

from torch import Tensor

from rankdet.data.records import Target
from rankdet.losses.criterion import Criterion
from rankdet.losses.inputs import LossInputs, LossOutput
from rankdet.losses.sampling import Sampler
from rankdet.matching.assign import Matcher, PredictionMatcher, build_loss_inputs
from rankdet.matching.boxes import Coder
from rankdet.models.output import DetectorOutput


@dataclass
class Stage:
    """What the anchors of an output are matched with, and the criterion that its scores and boxes are trained by."""

    criterion: Criterion
    matcher: Matcher | PredictionMatcher
    coder: Coder
    num_classes: int  # 1: object or not, whatever the data's classes
    sampler: Sampler | None = None
    weight: float = 1.0  # factor on the loss and its gradients
    name: str = ""  # put before the names of its parts in the log

    def assign(self, output: DetectorOutput, targets: list[Target]) -> LossInputs:
        """Matches anchors with objects, and leaves out the negatives that the sampler does not keep."""
        inputs = self.match(output, targets)
        return self.sampler(inputs) if self.sampler else inputs

    def match(self, output: DetectorOutput, targets: list[Target]) -> LossInputs:
        """The same with all negatives."""
        return build_loss_inputs(output, targets, self.matcher, self.coder, self.num_classes, self.probabilities)

    def loss(self, inputs: LossInputs) -> LossOutput:
        """The criterion, weighted; its parts as the criterion reports them, named for this stage."""
        total, parts = self.criterion(inputs)
        return LossOutput(total * self.weight, {f"{self.name}{part}": value for part, value in parts.items()})

    def probabilities(self, logits: Tensor) -> Tensor:
        """float [..., C] -> float [..., K] scores in [0, 1], as the loss means its logits."""
        return self.criterion.classification.probabilities(logits)
