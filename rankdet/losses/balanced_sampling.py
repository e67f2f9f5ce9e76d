"""So many anchors an image at random, up to a share of them positive: an RPN's (Faster R-CNN, NeurIPS 2015)."""

import torch

from rankdet.losses.inputs import LossInputs
from rankdet.losses.sampling import highest


class BalancedSampler:
    """Keeps num_samples (>= 1) anchors of each image, of which up to positive_fraction (in (0, 1]) are positive:
    Faster R-CNN, Sec. 3.1.3.

    Where there are fewer positives, negatives fill up; where there are fewer of these too, fewer anchors are kept.
    Drawn from the device's own generator, all positives of an image alike, and all negatives. The rest takes no part:
    of the positives neither the scores nor the boxes. ValueError for numbers out of range.
    """

    def __init__(self, num_samples: int = 256, positive_fraction: float = 0.5) -> None:
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {num_samples}")
        if not 0 < positive_fraction <= 1:
            raise ValueError(f"positive_fraction must be above 0 and at most 1, got {positive_fraction}")
        self.num_samples, self.max_positives = num_samples, int(num_samples * positive_fraction)

    def __call__(self, inputs: LossInputs) -> LossInputs:
        """The inputs with the labels (int8 [B, A, K]) of the anchors that are left out set to -1."""
        labels = inputs.labels
        positive = (labels == 1).any(2)
        negative = ~positive & (labels == 0).any(2)
        values = torch.rand(positive.shape, device=labels.device)
        num_positives = positive.sum(1).clamp(max=self.max_positives)
        num_negatives = torch.minimum(self.num_samples - num_positives, negative.sum(1))
        kept = highest(values, positive, num_positives) | highest(values, negative, num_negatives)
        labels = labels.masked_fill(~kept[..., None], -1)
        rows = labels.reshape(-1)[inputs.positives] == 1
        of_positives = ("positives", "pred_deltas", "target_deltas", "pred_boxes", "target_boxes")
        return inputs._replace(labels=labels, **{name: getattr(inputs, name)[rows] for name in of_positives})
