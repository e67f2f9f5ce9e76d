"""Where a run stands, from its directory alone: done, running, failed, or waiting."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rankdet.overview.cost import work
from rankdet.results.reading import read_json
from rankdet.results.runs import Run
from rankdet.training.lock import is_taken

DONE, RUNNING, FAILED, WAITING = "done", "running", "failed", "waiting"
STATES = (DONE, RUNNING, FAILED, WAITING)
# What a log tells, after the last line of a training that went on, where a mistake, a loss that is not finite, or an
# exception ended it; without any the training was broken off. Other lines may follow: of the exception, of torchrun.
FAULT = re.compile(r"error: |[\w.]*(Error|Exception)(:|$)")
WENT_ON = re.compile(r"run |step +\d+/\d|stopped by |.*: another process is training")
LAST_BYTES = 16_384
RECENT = 5  # entries of the log that a run's speed is taken from


@dataclass(frozen=True)
class Standing:
    """A run and its state. step: the last one in the log; seconds: that its steps still take, both None if unknown.

    says: what ended a failed run, a line of its log."""

    run: Run
    state: str
    step: int | None = None
    steps: int | None = None
    seconds: float | None = None
    says: str | None = None


def standing(run: Run, root: Path) -> Standing:
    """Looks at the run's directory; it is done where there is a record, and running where another process has it."""
    if run.finished:
        return Standing(run, DONE)
    length = work(run, root)
    entries = _entries(run.directory / "log.jsonl")
    step = max((entry["step"] for entry in entries), default=None)
    rates = [entry["speed/images_per_s"] for entry in entries if "speed/images_per_s" in entry][-RECENT:]
    seconds = None
    if length.steps is not None and step is not None and rates and fmean(rates) > 0:
        seconds = max(0, length.steps - step) * length.batch_size / fmean(rates)
    if is_taken(run.directory):
        return Standing(run, RUNNING, step, length.steps, seconds)
    line = _fault(run.directory / "log.txt")
    if line is not None:
        return Standing(run, FAILED, step, length.steps, None, line)
    return Standing(run, WAITING, step, length.steps, None)


def seconds_left(standings: Sequence[Standing], root: Path, jobs: int) -> float | None:
    """Until all that is running or waiting is trained, `jobs` at a time, at the pace of the finished runs.

    Their seconds an image: those of the same detector where there are any, else of all. None without a finished run, or
    where a length is unknown."""
    paces: dict[str, list[float]] = {}
    for each in standings:
        if each.state == DONE:
            record = read_json(each.run.directory / "record.json")
            paces.setdefault(each.run.detector, []).append(record["train_seconds"] / record["image_passes"])
    every = [pace for some in paces.values() for pace in some]
    left = 0.0
    for each in standings:
        if each.state == RUNNING and each.seconds is not None:
            left += each.seconds
        elif each.state in (RUNNING, WAITING):
            passes = work(each.run, root).image_passes
            if passes is None or not every or each.steps is None:
                return None
            left += fmean(paces.get(each.run.detector, every)) * passes * (1 - (each.step or 0) / each.steps)
    return left / jobs


def _entries(path: Path) -> list[dict[str, Any]]:
    """The last entries of a log; a line that is being written is left out."""
    entries = []
    for line in _tail(path).splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict) and "step" in entry:
            entries.append(entry)
    return entries


def _fault(path: Path) -> str | None:
    """The line that tells what ended the training which a log is of; None where nothing does."""
    found = None
    for line in re.split(r"[\r\n]+", _tail(path)):
        if WENT_ON.match(line):
            found = None
        elif FAULT.match(line):
            found = line.strip()
    return found


def _tail(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LAST_BYTES))
        return file.read().decode(errors="replace")
