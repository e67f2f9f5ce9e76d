"""What a loss sees and what it returns: the only interface between detectors and losses."""

from typing import NamedTuple, Protocol

from torch import Tensor


class LossInputs(NamedTuple):
    """The outputs and targets of all images that one device holds: B images, A anchors each, K classes, P positives.

    A positive is an (image, anchor, class) triple; the P positives stand in order of appearance in labels.reshape(-1).
    """

    logits: Tensor  # float [B, A, C]: scores before sigmoid or softmax; C is what the loss asked for (num_channels)
    labels: Tensor  # int8 [B, A, K]: 1 positive, 0 negative, -1 takes no part (an ignored anchor is -1 in every class)
    positives: Tensor  # int64 [P]: flat indices into labels.reshape(-1), ascending
    pred_deltas: (
        Tensor  # float [P, 4]: the network's box output (dx, dy, log dw, log dh over their stds) at the positives
    )
    target_deltas: Tensor  # float [P, 4]: the same encoding of the matched ground truth
    pred_boxes: Tensor  # float [P, 4]: pred_deltas decoded, xyxy, pixels of the network's input
    target_boxes: Tensor  # float [P, 4]: matched ground-truth boxes, xyxy, pixels of the network's input


class LossOutput(NamedTuple):
    """A scalar to differentiate and its named parts, detached, for logging."""

    total: Tensor  # scalar
    parts: dict[str, Tensor]  # name -> detached scalar


class LossTerm(Protocol):
    """One summand of the training criterion: a classification loss, a box loss or a unified one."""

    def __call__(self, inputs: LossInputs) -> LossOutput:
        """The term's share of the criterion."""


class ClassificationLoss(LossTerm, Protocol):
    """A term that owns the score channels, and so says how many there are and what they mean.

    One that trains the boxes too says so by an attribute has_box_loss = True; a box loss beside it is an error then.
    """

    def num_channels(self, num_classes: int) -> int:
        """Score channels per anchor that the head must have."""

    def prior_bias(self, num_classes: int, prior: float) -> Tensor:
        """float [num_channels]: initial bias of the score layer; every object class starts with probability `prior`."""

    def probabilities(self, logits: Tensor) -> Tensor:
        """float [..., C] logits -> float [..., K] scores in [0, 1] used to rank detections at test time."""
