"""AP-loss Fig. 10: what a loss and a whole step cost as a training proceeds, read from the run's own log."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt

from rankdet.config import load
from rankdet.errors import UserError
from rankdet.files import as_csv, replacing

SPEED, SHARE = "speed/images_per_s", "speed/share_loss"


class Entry(NamedTuple):
    """Means over the steps since the entry before."""

    step: int
    loss_seconds: float  # of the loss and its backward pass, a step
    step_seconds: float


class Course(NamedTuple):
    """A run's entries, and what it is."""

    loss: str
    batch_size: int
    entries: list[Entry]


def read_course(run: Path) -> Course:
    """From config.yaml and log.jsonl of a run's directory. UserError where one is not there or tells no speed."""
    cfg = load(run / "config.yaml")
    path = run / "log.jsonl"
    if not path.is_file():
        raise UserError(f"{path}: no such file; --run takes the directory of a run that has been trained")
    entries = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            content = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}: line {number} is not JSON; give another run") from error
        if SPEED in content and SHARE in content:
            seconds = cfg.batch_size / content[SPEED]
            entries.append(Entry(content["step"], seconds * content[SHARE], seconds))
    if not entries:
        raise UserError(f"{path}: tells no step's time; give the directory of a run that has logged some steps")
    return Course(str(cfg.loss._target_).split(".")[-2], cfg.batch_size, entries)


def course_csv(entries: Sequence[Entry]) -> str:
    """A line per entry."""
    return as_csv(Entry._fields, entries)


def save_course(course: Course, path: Path) -> None:
    """Two curves against the step, as in the figure."""
    figure, axis = plt.subplots(figsize=(6.4, 4.2))
    steps = [entry.step for entry in course.entries]
    axis.plot(steps, [entry.step_seconds for entry in course.entries], color="#000000", label="whole step")
    axis.plot(steps, [entry.loss_seconds for entry in course.entries], color="#d62728", label=f"loss={course.loss}")
    axis.set(
        xlim=0, ylim=(0, 1.08 * max(entry.step_seconds for entry in course.entries)), xlabel="step", ylabel="seconds"
    )
    axis.set_title(f"AP-loss Fig. 10: time through training, {course.batch_size} images a step", fontsize=10)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    figure.tight_layout()
    with replacing(path) as partial:
        figure.savefig(partial, dpi=120, metadata={"Software": None})
    plt.close(figure)
