"""Learning rate and length of a training, as functions of the step."""

import math
from dataclasses import dataclass

from rankdet.errors import UserError


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, then steps down at milestones (AP-loss, Sec. 4.1.2).

    length, milestones and monitor_every are counted in `unit`: "images" seen or "epochs". lr holds for lr_batch images
    a step and is scaled linearly with the batch (Sec. 4.2.1), the number of images seen staying the same.
    """

    lr: float
    lr_batch: int
    unit: str
    length: float
    milestones: list[float]
    gamma: float
    warmup_steps: int
    warmup_from: float
    monitor_every: float

    def __post_init__(self) -> None:
        """Refuses what could only be a slip."""
        if self.unit not in ("images", "epochs"):
            raise UserError(f"schedule.unit={self.unit}: must be images or epochs")
        for name in ("lr", "lr_batch", "length"):
            if not getattr(self, name) > 0:
                raise UserError(f"schedule.{name}={getattr(self, name)}: must be positive")
        if list(self.milestones) != sorted(self.milestones) or any(m > self.length for m in self.milestones):
            raise UserError(
                f"schedule.milestones={list(self.milestones)}: must ascend and not exceed length {self.length}"
            )

    def steps(self, amount: float, num_images: int, batch_size: int) -> int:
        """How many steps `amount` units are, for num_images images an epoch."""
        images = amount * (num_images if self.unit == "epochs" else 1)
        return max(1, math.ceil(images / batch_size))

    def for_run(self, num_images: int, batch_size: int) -> "StepSchedule":
        """The schedule in steps."""
        return StepSchedule(
            lr=self.lr * batch_size / self.lr_batch,
            total_steps=self.steps(self.length, num_images, batch_size),
            milestones=tuple(self.steps(m, num_images, batch_size) for m in self.milestones),
            gamma=self.gamma,
            warmup_steps=self.warmup_steps,
            warmup_from=self.warmup_from,
            monitor_steps=self.steps(self.monitor_every, num_images, batch_size),
        )


@dataclass(frozen=True)
class StepSchedule:
    """A Schedule in steps; called with a step (from 0) it gives that step's learning rate."""

    lr: float
    total_steps: int
    milestones: tuple[int, ...]
    gamma: float
    warmup_steps: int
    warmup_from: float
    monitor_steps: int

    def __call__(self, step: int) -> float:
        """The learning rate of `step`."""
        warmup = 1.0
        if step < self.warmup_steps:
            warmup = self.warmup_from + (1 - self.warmup_from) * step / self.warmup_steps
        return self.lr * warmup * self.gamma ** sum(step >= m for m in self.milestones)
