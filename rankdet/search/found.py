"""What a search found: its best sample and its policy's last mean, written as files that a training takes at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rankdet.files import write_text
from rankdet.search.parameters import FUNCTIONS, Shape
from rankdet.search.rounds import Round
from rankdet.search.settings import Search

BASES = {"loss": "parameterized_ap", "rpn": "pap"}  # group -> the option of it that the file builds on


@dataclass(frozen=True)
class Found:
    """Functions with a name, "best" or "mean", and a line on where they come from."""

    name: str
    theta: Tensor
    origin: str


def findings(search: Search, start: float, rounds: Sequence[Round]) -> list[Found]:
    """The sample of the highest reward (of equal ones the first), and, of a policy that moved, its mean at the end."""
    index, place = best_sample(rounds)
    reward = rounds[index].rewards[place]
    aps = f"AP {reward:.2%} on held-out images, the identity line {start:.2%}"
    origin = f"round {index + 1}, sample {place + 1}: {aps}"
    found = [Found("best", torch.tensor(rounds[index].theta[place], dtype=torch.float64), origin)]
    if search.method != "random":
        mean = torch.tensor(rounds[-1].mu_after, dtype=torch.float64).sigmoid()
        found.append(Found("mean", mean, f"the policy's mean after {len(rounds)} of {search.rounds} rounds"))
    return found


def best_sample(rounds: Sequence[Round]) -> tuple[int, int]:
    """(round, sample) of the highest reward, of equal ones the first."""
    places = [(index, place) for index, one in enumerate(rounds) for place in range(len(one.rewards))]
    return max(places, key=lambda at: (rounds[at[0]].rewards[at[1]], -at[0], -at[1]))


def save(search: Search, found: Found, directory: Path) -> list[Path]:
    """Writes directory/<name>/loss.yaml, and rpn.yaml where there are two stages; returns the paths."""
    paths = []
    for stage, shape in search.space.shapes(found.theta).items():
        group = stage.partition(".")[0]
        path = directory / found.name / f"{group}.yaml"
        write_text(path, as_yaml(search, found, group, shape))
        paths.append(path)
    return paths


def as_yaml(search: Search, found: Found, group: str, shape: Shape) -> str:
    """A file of the config group, to be given by its path or moved to configs/<group>/."""
    nested = "  " if group != "loss" else ""
    rows = zip(FUNCTIONS, shape.control_points, strict=True)
    points = [f"{nested}  - [{', '.join(map(repr, row))}]   # {name}" for name, row in rows]
    lines = [
        f"# Parameterized AP loss as searched: {search.name}, protocol {search.protocol}, on {search.data.name}, seed "
        f"{search.seed}.",
        f"# {found.origin[0].upper()}{found.origin[1:]}.",
        f"defaults: [{BASES[group]}]",
        *(["loss:"] if nested else []),
        f"{nested}control_points:",
        *points,
        f"{nested}gradient_scale: {shape.gradient_scale!r}",
    ]
    return "\n".join(lines) + "\n"
