"""What a run tells while it runs: log.jsonl, TensorBoard, and a bar or lines on the screen. Rank 0 only."""

import json
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams
from tqdm import tqdm

from rankdet.errors import UserError
from rankdet.files import write_text
from rankdet.training.loop import StepReport


class RunLog:
    """The log of one run directory; a hook of the training loop.

    every: steps between entries. progress: "bar", "lines" or "auto" (a bar in a terminal). After a resume at `step`,
    entries beyond it are removed, so that a log reads as if the run had never been broken.
    """

    def __init__(self, directory: Path, step: int, total_steps: int, every: int, progress: str) -> None:
        if progress not in ("auto", "bar", "lines"):
            raise UserError(f"runtime.progress={progress}: must be auto, bar or lines")
        self.path = directory / "log.jsonl"
        self.total_steps, self.every, self.first_step = total_steps, every, step
        truncate_after(self.path, step)
        self.file = self.path.open("a")
        self.board = SummaryWriter(str(directory), purge_step=step + 1)
        self.sums: dict[str, Any] = {}
        self.count = self.images = 0
        self.begun = time.monotonic()
        bar = progress == "bar" or (progress == "auto" and sys.stderr.isatty())
        self.bar = tqdm(total=total_steps, initial=step, unit="step", dynamic_ncols=True, disable=not bar)

    def __enter__(self) -> "RunLog":
        """For `with`."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes its files."""
        self.bar.close()
        self.board.close()
        self.file.close()

    def __call__(self, report: StepReport) -> None:
        """Counts a step in; every `every` steps writes the means since the last entry."""
        for name, value in report.parts.items():
            self.sums[name] = self.sums.get(name, 0) + value
        self.count += 1
        self.images += report.images
        self.bar.update()
        if report.step % self.every and report.step != self.total_steps:
            return
        means = {name: float(value) / self.count for name, value in self.sums.items()}
        laps = report.stopwatch.totals()
        spent = sum(laps.values())
        speed = {"images_per_s": self.images / spent}  # of training: not of evaluation or checkpoints in between
        speed |= {f"share_{name}": seconds / spent for name, seconds in laps.items()}
        entry = {f"train/{k}": v for k, v in means.items()} | {
            "train/lr": report.lr,
            "train/grad_norm": float(report.grad_norm),
        }
        self.scalars(report.step, entry | {f"speed/{k}": v for k, v in speed.items()})
        self.say(report.step, "  ".join(f"{k} {v:.4f}" for k, v in means.items()), speed["images_per_s"])
        self.sums, self.count, self.images = {}, 0, 0

    def state(self) -> dict[str, Any]:
        """What was counted in since the last entry, for a checkpoint between two of them."""
        sums = {name: float(value) for name, value in self.sums.items()}
        return {"sums": sums, "count": self.count, "images": self.images}

    def restore(self, state: dict[str, Any]) -> None:
        """The inverse of state()."""
        self.sums, self.count, self.images = dict(state["sums"]), state["count"], state["images"]

    def say(self, step: int, text: str, images_per_s: float) -> None:
        """One line of progress: in the bar where there is one, else printed with the time left."""
        if not self.bar.disable:
            self.bar.set_postfix_str(text)
            return
        per_step = (time.monotonic() - self.begun) / (step - self.first_step)
        left = int((self.total_steps - step) * per_step)
        place = f"step {step:{len(str(self.total_steps))}}/{self.total_steps}"
        self.note(f"{place}  {text}  {images_per_s:.0f} images/s  {left // 60}:{left % 60:02d} left")

    def note(self, text: str) -> None:
        """A line for the reader of the screen or of log.txt."""
        tqdm.write(text, file=sys.stderr)

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """One entry of log.jsonl, and the same values in TensorBoard."""
        self.file.write(json.dumps({"step": step} | {k: round(v, 8) for k, v in values.items()}) + "\n")
        self.file.flush()
        for name, value in values.items():
            self.board.add_scalar(name, value, step)

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """image: uint8 [H, W, 3], RGB."""
        self.board.add_image(name, image, step, dataformats="HWC")

    def config(self, yaml: str) -> None:
        """The run's config as a page of TensorBoard's TEXT tab."""
        self.board.add_text("config", f"```yaml\n{yaml}```", self.first_step)

    def settings(self, config: dict[str, Any]) -> None:
        """The run's row in TensorBoard's HPARAMS tab, in the run's own event file (add_hparams would make another).

        Which columns there are is left to TensorBoard, or to make tensorboard: a run knows its own settings alone."""
        _, start, _ = hparams(plain_settings(config), {})
        self.board.file_writer.add_summary(start)

    def results(self, metrics: dict[str, float], step: int) -> None:
        """What that row ends with."""
        _, _, end = hparams({}, metrics)
        self.board.file_writer.add_summary(end)
        for name, value in metrics.items():
            self.board.add_scalar(name, value, step)


def plain_settings(config: dict[str, Any]) -> dict[str, bool | int | float | str]:
    """Nested settings by dotted names, as TensorBoard takes them: lists and null as text."""
    return {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in flatten(config).items()}


def truncate_after(path: Path, step: int) -> None:
    """Drops the entries of a JSONL log beyond `step`, and a last line that was cut off."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except json.JSONDecodeError:
            continue
    write_text(path, "".join(f"{line}\n" for line in kept))


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
