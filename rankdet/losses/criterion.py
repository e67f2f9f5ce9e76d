"""The training criterion: the terms that a run's configuration names, added up."""

from collections.abc import Sequence

import torch
from torch import nn

from rankdet.losses.inputs import ClassificationLoss, LossInputs, LossOutput
from rankdet.losses.scores import full_precision


class Criterion(nn.Module):
    """Sum of loss terms, computed in float32 whatever the network's precision.

    terms: modules that are LossTerms, exactly one of them a ClassificationLoss; ValueError otherwise. Each term applies
    its own weight. The total has a gradient path to logits and deltas for any input, objects or not, so that no process
    of a distributed job waits for a gradient that never comes.
    """

    def __init__(self, terms: Sequence[nn.Module]) -> None:
        super().__init__()
        self.terms = nn.ModuleList(terms)
        owners = [term for term in terms if hasattr(term, "num_channels")]
        if len(owners) != 1:
            names = [type(term).__name__ for term in terms]
            raise ValueError(f"terms must hold exactly one classification loss, got {len(owners)} in {names}")

    @property
    def classification(self) -> ClassificationLoss:
        """The term that owns the scores: it says how many channels the head has and what they mean."""
        return next(term for term in self.terms if hasattr(term, "num_channels"))

    def set_epoch_length(self, steps: int) -> None:
        """Tells the terms that count epochs how many steps one has."""
        for term in self.terms:
            if hasattr(term, "set_epoch_length"):
                term.set_epoch_length(steps)

    def forward(self, inputs: LossInputs) -> LossOutput:
        """The terms' totals added, their parts merged; ValueError if two terms use one part's name."""
        with torch.autocast(inputs.logits.device.type, enabled=False):
            inputs = LossInputs(*map(full_precision, inputs))
            total, parts = inputs.logits[:0].sum() + inputs.pred_deltas[:0].sum(), {}
            for term in self.terms:
                term_total, term_parts = term(inputs)
                if taken := parts.keys() & term_parts.keys():
                    raise ValueError(f"terms must name their parts differently, two of them report {sorted(taken)}")
                total = total + term_total
                parts.update(term_parts)
        return LossOutput(total, parts)
