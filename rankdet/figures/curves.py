"""What a run logged while it trained: where a quantity began, how it went, where it ended."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from rankdet.errors import UserError
from rankdet.files import write_text
from rankdet.report.training_curves import read_curves
from rankdet.results.publish import canonical_json
from rankdet.results.reading import read_json
from rankdet.results.records import Record, read_record
from rankdet.results.runs import Run

FOLDER = "curves"  # beside published records
LAST = 0.1  # of a run's steps: what its final value is the mean of
FALLEN = 0.9  # of its first value: a curve that ends below this has converged


@dataclass(frozen=True)
class LoggedRun:
    """A finished run with one logged quantity: values[i] is its mean over the steps after steps[i - 1], to steps[i]."""

    record: Record
    steps: tuple[int, ...]
    values: tuple[float, ...]

    @property
    def first(self) -> float:
        """The mean over the first logged steps."""
        return self.values[0]

    @property
    def final(self) -> float:
        """The mean over the last tenth of the steps, as far as the log tells them apart."""
        begin = (1 - LAST) * self.steps[-1]
        spans = [b - a for a, b in zip((0, *self.steps), self.steps, strict=False)]
        late = [(value, span) for step, value, span in zip(self.steps, self.values, spans, strict=True) if step > begin]
        return sum(value * span for value, span in late) / sum(span for _, span in late)


def converged(runs: Iterable[LoggedRun], first: float) -> bool:
    """Whether the runs end, on average, at least a tenth below `first`, where trainings from scratch begin."""
    return fmean(run.final for run in runs) < FALLEN * first


Finder = Callable[[Run, str], LoggedRun | None]  # of a run and the quantity's name


def local(run: Run, quantity: str) -> LoggedRun | None:
    """From the run's own directory; None where it is not finished. UserError where its log lacks the quantity."""
    if not run.finished:
        return None
    curves = [curve for panel in read_curves(run.directory / "log.jsonl").values() for curve in panel]
    found = next((curve for curve in curves if curve.name == quantity and curve.steps), None)
    if found is None:
        path = run.directory / "log.jsonl"
        raise UserError(f"{path}: nothing is logged as {quantity!r}; remove the run, so that it is trained again")
    return LoggedRun(read_record(run.directory / "record.json"), tuple(found.steps), tuple(found.values))


def published_in(folder: Path) -> Finder:
    """Reads what publish_curves wrote; folder: experiments/records/<data>/<protocol>/."""

    def find(run: Run, quantity: str) -> LoggedRun | None:
        path = _path(folder, run)
        if not path.is_file():
            return None
        content = read_json(path)
        curve = content["curves"].get(quantity)
        return LoggedRun(Record(path, content), tuple(curve["steps"]), tuple(curve["values"])) if curve else None

    return find


def publish_curves(runs: Iterable[Run], quantities: Sequence[str], folder: Path, find: Finder = local) -> None:
    """Writes <folder>/curves/<run name>-seed<k>.json for every finished run: its record and the quantities' curves.

    Curves that another figure published of the run stay."""
    for run in runs:
        found = {quantity: curve for quantity in quantities if (curve := find(run, quantity)) is not None}
        if not found:
            continue
        path = _path(folder, run)
        curves = read_json(path)["curves"] if path.is_file() else {}
        for quantity, curve in found.items():
            curves[quantity] = {"steps": list(curve.steps), "values": list(curve.values)}
        overrides = [item for item in run.overrides if not item.startswith("data.root=")]
        record = next(iter(found.values())).record
        content = record.content | {"overrides": overrides, "tuned": list(run.tuned), "curves": curves}
        write_text(path, canonical_json(content))


def _path(folder: Path, run: Run) -> Path:
    return folder / FOLDER / f"{run.name}-seed{run.seed}.json"
