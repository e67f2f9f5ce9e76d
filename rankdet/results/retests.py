"""Trainings tested again: which test a cell of a table asks for, where its record lies, and what makes one stale."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from rankdet.errors import UserError
from rankdet.results.manifest import Cell, Manifest
from rankdet.results.plan import Plan
from rankdet.results.reading import check_keys, read_json
from rankdet.results.records import Match, Record
from rankdet.results.registry import PrintedRow
from rankdet.results.returned import with_returned
from rankdet.results.runs import Run
from rankdet.results.tables import Table, TableRow
from rankdet.robustness.conditions import ORIGINAL, SUITE_VERSION

FOLDER = "retests"  # in a run's directory, and beside published records
FIELDS = (
    "condition", "overrides", "config_hash", "seed", "data_hash", "weights_hash", "suite_version", "suite_seed",
    "split", "num_images", "threads", "seconds", "cpu_seconds", "commit", "dirty", "torch", "hardware", "date",
    "metrics",
)  # fmt: skip


@dataclass(frozen=True)
class Retest:
    """A test of finished weights: a condition of rankdet/robustness/conditions.py, and settings of the test."""

    condition: str
    overrides: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What its record is called: black_patch, or original-score_threshold-0.1."""
        settings = (
            re.sub(r"[^\w.-]+", "-", item.partition("=")[0].rpartition(".")[2] + "=" + item.partition("=")[2])
            for item in self.overrides
        )
        return "-".join([self.condition, *settings])

    @property
    def is_own(self) -> bool:
        """Whether it is the test that every training ends with: the training's record has it."""
        return self.condition == ORIGINAL and not self.overrides

    def path(self, run: Path) -> Path:
        """Its record in a run's directory."""
        return run / FOLDER / f"{self.name}.json"

    def detections(self, run: Path) -> Path:
        """What it found on a split whose objects an evaluation server keeps."""
        return run / FOLDER / "detections" / f"{self.name}.json"


Tests = dict[Run, list[Retest]]
Content = dict[str, Any]  # of a retest's record
Finder = Callable[[Record, Retest], Content | None]


def cell(plan: Plan, printed: PrintedRow, column: str) -> tuple[Retest, str]:
    """The test behind a cell of a row with runs, and which of its metrics is shown there."""
    where = plan.manifest.columns.get(column, Cell(ORIGINAL, column))
    row = plan.manifest.rows[printed.key]
    return Retest(row.condition or where.condition, row.test_under(plan.protocol)), where.metric_on(printed.dataset)


def has_retests(manifest: Manifest) -> bool:
    """Whether any cell needs more than the trainings' own records."""
    rows = manifest.rows.values()
    return bool(manifest.columns) or any(row.test or row.mini_test or row.paper_test or row.condition for row in rows)


def planned_retests(plan: Plan) -> Tests:
    """Each run's tests beyond its own, in the order of rows and columns; runs in the order of Plan.runs()."""
    wanted: dict[Path, dict[Retest, None]] = {}
    for row in plan.rows:
        for run in row.runs:
            tests = [cell(plan, row.printed, column)[0] for column in row.table.columns]
            wanted.setdefault(run.directory, {}).update({test: None for test in tests if not test.is_own})
    return {run: list(wanted.get(run.directory, ())) for run in plan.runs()}


def read_retest(path: Path) -> Content | None:
    """A record, None where there is none; UserError naming the file where it is no JSON or lacks a field."""
    return checked(read_json(path), path) if path.is_file() else None


def checked(content: object, path: Path) -> Content:
    """content, if it is a retest's record with all fields; others are kept."""
    known = content if isinstance(content, dict) else ()
    return dict(check_keys(content, str(path), FIELDS, [key for key in known if key not in FIELDS]))


def left(run: Run, retests: list[Retest]) -> list[Retest]:
    """Those of a finished run's tests that are not done, or were done on other weights or by another suite."""
    record = read_json(run.directory / "record.json")
    weights = file_hash(run.directory / "weights.pt")
    missing = []
    for retest in retests:
        content = read_retest(retest.path(run.directory))
        if content is None or content["weights_hash"] != weights or staleness(content, record):
            missing.append(retest)
    return missing


def outstanding(retests: Tests) -> Tests:
    """What is left to do of finished runs' tests; runs without any are left out."""
    todo = {run: left(run, wanted) for run, wanted in retests.items() if wanted and run.finished}
    return {run: missing for run, missing in todo.items() if missing}


def file_hash(path: Path) -> str:
    """16 hex digits of a run's weights; UserError where the file is not there."""
    if not path.is_file():
        raise UserError(f"{path}: not there; remove the run's record.json to train it again")
    return sha256(path.read_bytes()).hexdigest()[:16]


def staleness(content: Content, training: Record | Content) -> tuple[str, ...]:
    """Why a retest's record is not one of today's test of this training; empty if it is."""
    reasons = []
    if content["suite_version"] != SUITE_VERSION:
        reasons.append(f"tested by version {content['suite_version']} of the suite, now {SUITE_VERSION}")
    if any(content[key] != training[key] for key in ("config_hash", "seed", "data_hash")):
        reasons.append("tested with other weights or data")
    return tuple(reasons)


def with_retests(table: Table, find: Finder) -> Table:
    """The table with the cells' tests in the place of the trainings' own: metrics go by column.

    Each record also has `retests`, the records behind them, and `untested`, the columns without one. A stale test makes
    its row's seed stale.
    """
    return Table(table.plan, tuple(_row(table, row, find) for row in table.rows))


def _row(table: Table, row: TableRow, find: Finder) -> TableRow:
    if not row.planned.runs:
        return row
    tests = {column: cell(table.plan, row.planned.printed, column) for column in row.planned.table.columns}
    return TableRow(row.planned, tuple(_match(found, tests, find) for found in row.matches))


def _match(found: Match, tests: dict[str, tuple[Retest, str]], find: Finder) -> Match:
    training = found.record
    metrics: dict[str, float | None] = {}
    retests: dict[str, Content] = {}
    untested = []
    for column, (retest, metric) in tests.items():
        content = training.content if retest.is_own else find(training, retest)
        metrics[column] = content["metrics"].get(metric) if content else None
        if content is None:
            untested.append(column)
        elif not retest.is_own:
            retests[retest.name] = content
    reasons = dict.fromkeys(reason for content in retests.values() for reason in staleness(content, training))
    content = training.content | {"metrics": metrics, "retests": retests, "untested": untested}
    return Match(Record(training.path, content), (*found.stale, *reasons))


def local(record: Record, retest: Retest) -> Content | None:
    """The test's record in the directory of the run whose record.json this is."""
    return read_finished_retest(record.path.parent, retest)


def read_finished_retest(directory: Path, retest: Retest) -> Content | None:
    """A test's record in a run's directory, with what an evaluation server returned for it, if anything."""
    content = read_retest(retest.path(directory))
    return None if content is None else with_returned(content, retest.detections(directory))


def published(record: Record, retest: Retest) -> Content | None:
    """The test's record beside the published record of its training."""
    path = record.path.parent / FOLDER / record.path.name
    content = read_json(path).get(retest.name) if path.is_file() else None
    return None if content is None else checked(content, path)
