"""What theta stands for: the control points of each function, and the gradient scale, of each stage of a detector."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rankdet.losses.curves import control_points

FUNCTIONS = ("h2", "i2", "i3", "i1", "h1")  # in the order of ParameterizedAPLoss's control points
FORMS = ("separate", "shared", "fixed")
LINE = (1 / 5, 1 / 5, 1 / 4, 1 / 4, 1 / 3, 1 / 3, 1 / 2, 1 / 2)  # theta whose points lie evenly on the identity line
UNSCALED = 1 / 2  # theta of the gradient scale 1
MARGIN = 0.01  # theta is kept so far from 0 and 1, where two control points would meet
DIGITS = 9  # of what is written down and trained by: four thetas at 1 - MARGIN leave 1e-8


class Shape(NamedTuple):
    """The searched settings of one ParameterizedAPLoss."""

    control_points: tuple[tuple[float, ...], ...]  # five rows of four x, y pairs, rounded to DIGITS
    gradient_scale: float


@dataclass(frozen=True)
class Space:
    """What is searched. stages: where the losses stand in a config, ("loss",) or ("rpn.loss", "loss").

    functions: "separate" has parameters for each of the five functions, "shared" one set for all, "fixed" none, so that
    all are the identity line. scale: whether the gradient scale of each stage is searched, too; else it is 1.
    ValueError for other functions, and where nothing would be searched.
    """

    stages: tuple[str, ...]
    functions: str
    scale: bool

    def __post_init__(self) -> None:
        if self.functions not in FORMS:
            raise ValueError(f"functions must be one of {', '.join(FORMS)}, got {self.functions!r}")
        if self.functions == "fixed" and not self.scale:
            raise ValueError("with functions fixed and no scale there is nothing to search")

    @property
    def size(self) -> int:
        """D, the number of coordinates of theta: 41 a stage where all is searched."""
        return len(self.stages) * self._per_stage

    def start(self) -> Tensor:
        """float64 [D]: theta of the identity line and of gradient scale 1, where the search begins (as released)."""
        one = [*LINE * self._rows, *[UNSCALED] * self.scale]
        return torch.tensor(one * len(self.stages), dtype=torch.float64)

    def names(self) -> list[str]:
        """The D coordinates' names: "h2 x1", "all y4", "scale", after the stage's where there are several."""
        rows = {"separate": FUNCTIONS, "shared": ("all",), "fixed": ()}[self.functions]
        one = [f"{row} {axis}{point}" for row in rows for point in range(1, 5) for axis in "xy"]
        one += ["scale"] * self.scale
        return [f"{stage} {name}" if len(self.stages) > 1 else name for stage in self.stages for name in one]

    def shapes(self, theta: Tensor) -> dict[str, Shape]:
        """Stage -> its settings by theta [D] in [0, 1]."""
        theta = theta.double().clamp(MARGIN, 1 - MARGIN)
        return {
            stage: self._shape(theta[place * self._per_stage : (place + 1) * self._per_stage])
            for place, stage in enumerate(self.stages)
        }

    @property
    def _rows(self) -> int:
        return {"separate": len(FUNCTIONS), "shared": 1, "fixed": 0}[self.functions]

    @property
    def _per_stage(self) -> int:
        return len(LINE) * self._rows + self.scale

    def _shape(self, theta: Tensor) -> Shape:
        rows = theta[: len(LINE) * self._rows].reshape(-1, len(LINE))
        if self.functions == "fixed":
            rows = torch.tensor([LINE], dtype=torch.float64)
        points = control_points(rows)[:, 2:-2].expand(len(FUNCTIONS), -1)
        scale = 10 ** (2 * theta[-1].item() - 1) if self.scale else 1.0
        return Shape(
            tuple(tuple(round(value, DIGITS) for value in row) for row in points.tolist()), round(scale, DIGITS)
        )


def overrides(shapes: dict[str, Shape]) -> tuple[str, ...]:
    """The settings of a training with these functions."""
    settings = []
    for stage, shape in shapes.items():
        settings.append(f"{stage}.control_points={as_list(shape.control_points)}")
        settings.append(f"{stage}.gradient_scale={shape.gradient_scale!r}")
    return tuple(settings)


def as_list(rows: Sequence[Sequence[float]]) -> str:
    """Rows of numbers as Hydra and YAML read them, without blanks."""
    return f"[{','.join('[' + ','.join(map(repr, row)) + ']' for row in rows)}]"
