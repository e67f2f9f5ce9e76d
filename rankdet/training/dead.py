"""Notices a training that is dead: a part of its loss sits at 1 and moves no more."""

from rankdet.training.loop import StepReport

NEAR = 1e-6  # of 1


class DeadRun(Exception):
    """A part of the loss sat at 1 for too long: an outcome, not a fault of the program."""


class DeathWatch:
    """A hook: DeadRun as soon as a part of the loss has been 1 for `patience` steps in a row.

    Parameterized AP loss stays at 1 where its functions count nothing any more, as after too large a step (its search's
    authors end such runs, too). Weights that a loss reports among its parts do not count. A GPU is waited for.
    """

    def __init__(self, patience: int) -> None:
        """patience: at least 1."""
        self.patience = patience
        self.steps: dict[str, int] = {}  # part -> steps in a row at 1, for checkpoints

    def __call__(self, report: StepReport) -> None:
        """Counts a step in."""
        for name, value in report.parts.items():
            if name.endswith("weight"):
                continue
            self.steps[name] = self.steps.get(name, 0) + 1 if abs(float(value) - 1) <= NEAR else 0
            if self.steps[name] >= self.patience:
                raise DeadRun(f"step {report.step}: {name} has been 1 for {self.patience} steps; the run is dead")
