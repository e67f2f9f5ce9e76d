"""What of a network learns at which multiple of the learning rate."""

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.nn import Parameter

from rankdet.errors import UserError


def parameter_groups(model: nn.Module, lr_factors: Sequence[Sequence[Any]]) -> list[Parameter] | list[dict[str, Any]]:
    """The parameters that take a gradient; with lr_factors in groups for an optimizer, each with its "lr_factor".

    lr_factors: pairs of a part of the network and a factor above 0. A part is a word between the dots of a parameter's
    name ("backbone", "sampling_offsets"); the first pair that fits a parameter holds, and 1 where none does. UserError
    for another kind of entry, and for a part that the network does not train.
    """
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not lr_factors:
        return list(trained.values())
    groups = [{"params": [], "lr_factor": factor} for _, factor in map(_checked, lr_factors)]
    rest: dict[str, Any] = {"params": [], "lr_factor": 1.0}
    parts = [part for part, _ in lr_factors]
    for name, parameter in trained.items():
        words = name.split(".")
        fitting = (group for part, group in zip(parts, groups, strict=True) if part in words)
        next(fitting, rest)["params"].append(parameter)
    for part in parts:
        if not any(part in name.split(".") for name in trained):
            raise UserError(f"lr_factors: the model trains no part named {part!r}; backbone would be one")
    return [group for group in (rest, *groups) if group["params"]]


def _checked(entry: Sequence[Any]) -> Sequence[Any]:
    valid = not isinstance(entry, str) and isinstance(entry, Sequence) and len(entry) == 2
    if not (valid and isinstance(entry[0], str) and isinstance(entry[1], int | float) and entry[1] > 0):
        raise UserError(f"lr_factors: {entry} is no pair of a part's name and a factor above 0, as [backbone, 0.1]")
    return entry
