"""Rows that an evaluation server measures: their archives, where these go, and their numbers in a table."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rankdet.build import open_source
from rankdet.config import load
from rankdet.errors import UserError
from rankdet.evaluation.results import load_results
from rankdet.evaluation.submission.archive import archive_path, write_archive
from rankdet.evaluation.submission.images import info_of
from rankdet.files import relative
from rankdet.results.plan import Plan, PlannedRow
from rankdet.results.records import Match
from rankdet.results.retests import Content, Retest, cell
from rankdet.results.returned import detections_hash, read_returned, returned_path
from rankdet.results.runs import Run
from rankdet.results.tables import Table, TableRow

UPLOAD = {
    "voc": "http://host.robots.ox.ac.uk:8080 as VOC2012, comp4",
    "coco": "https://cocodataset.org/#upload as test-dev 2017, bbox",
}
FEW = 4  # columns that a command is shown with


@dataclass(frozen=True)
class Submission:
    """A finished run's detections on a split whose objects a server keeps, as one row's test made them."""

    row: PlannedRow
    run: Run
    retest: Retest

    @property
    def server(self) -> str:
        """voc or coco."""
        assert self.row.server is not None
        return self.row.server

    @property
    def detections(self) -> Path:
        """Where they lie."""
        if self.retest.is_own:
            return self.run.directory / "evaluation" / self.run.test_split / "detections.json"
        return self.retest.detections(self.run.directory)

    @property
    def name(self) -> str:
        """Of the archive: other detections have another, and rows that share a run share its archive."""
        test = [] if self.retest.is_own else [re.sub(r"[^A-Za-z0-9_]+", "-", self.retest.name)]
        return "-".join([self.run.name, f"seed{self.run.seed}", *test, detections_hash(self.detections)[:8]])

    @property
    def answered(self) -> bool:
        """Whether the server's numbers for these very detections have been entered."""
        path = returned_path(self.detections)
        return path.is_file() and read_returned(path)["detections_hash"] == detections_hash(self.detections)


def submission(plan: Plan, row: PlannedRow, run: Run) -> Submission:
    """Of one run of a row that a server measures."""
    return Submission(row, run, cell(plan, row.printed, next(iter(row.table.columns)))[0])


def outstanding(plan: Plan) -> list[Submission]:
    """Of the finished tests those that no numbers have been entered for, each once, in the order of rows and seeds."""
    every = [submission(plan, row, run) for row in plan.rows if row.server for run in row.runs if run.finished]
    distinct = {one.detections: one for one in reversed(every) if one.detections.is_file()}
    return [one for one in every if distinct.get(one.detections) is one and not one.answered]


def submit(plan: Plan, root: Path) -> Iterator[str]:
    """Writes the archives that are not there yet; yields for each where it goes and how its numbers come back."""
    for one in outstanding(plan):
        path = archive_path(one.server, root / "runs" / "submissions", one.name)
        if not path.is_file():
            split = open_source(load(one.run.directory / "config.yaml")).read(one.run.test_split)
            write_archive(one.server, load_results(one.detections), info_of(split), path)
        yield f"submit {relative(path, root)} to {UPLOAD[one.server]}; then {enter_command(plan, one)}"


def enter_command(plan: Plan, one: Submission) -> str:
    """The command that takes the numbers."""
    columns = [column for column in one.row.table.columns if one.row.printed.values.get(column) is not None]
    shown = [*(f"{column}=..." for column in columns[:FEW]), *(["..."] if len(columns) > FEW else [])]
    manifest = plan.manifest
    paper = [] if manifest.paper == "ap-loss" else [f"PAPER={manifest.paper}"]
    own = [f'ARGS="{shlex.join(plan.args)}"'] if plan.args else []
    table = f"TABLE={manifest.name.removeprefix('table-')}"
    words = ["make", "enter-result", *paper, table, f"ROW={one.row.printed.key}", f"SEED={one.run.seed}"]
    return " ".join([*words, *own, *shown])


def find_submission(plan: Plan, key: str, seed: int) -> Submission:
    """What can be submitted for a row and seed; UserError where there is no such row, seed or finished test."""
    rows = {row.printed.key: row for row in plan.rows if row.server}
    if key not in rows:
        there = ", ".join(rows) or "none"
        raise UserError(f"ROW={key}: no row of {plan.manifest.name} that a server measures; these are {there}")
    runs = {run.seed: run for run in rows[key].runs}
    if seed not in runs:
        raise UserError(f"SEED={seed}: the row has the seeds {', '.join(map(str, runs))}")
    one = submission(plan, rows[key], runs[seed])
    if not one.run.finished or not one.detections.is_file():
        raise UserError(f"{one.detections}: not there; the run has to be trained and tested before it is submitted")
    return one


def with_returned_alone(table: Table) -> Table:
    """The table whose rows that a server measures show the seeds with its numbers; the others wait."""
    return Table(table.plan, tuple(_row(table.plan, row) if row.planned.server else row for row in table.rows))


def _row(plan: Plan, row: TableRow) -> TableRow:
    retest = cell(plan, row.planned.printed, next(iter(row.planned.table.columns)))[0]
    notes = [_returned(found, retest) for found in row.matches]
    kept = tuple(found for found, note in zip(row.matches, notes, strict=True) if note and note["current"])
    dates = dict.fromkeys(note["date"] for note in notes if note and note["current"])
    remarks = [f"as the server returned it on {', '.join(dates)}"] if dates else []
    older = dict.fromkeys(note["date"] for note in notes if note and not note["current"])
    remarks += [f"what the server returned on {date} was for older detections; submit again" for date in older]
    waiting = len(row.matches) - len(kept)
    remarks += [f"{waiting} of {len(row.planned.runs)} seeds wait for the server's numbers"] if waiting else []
    return replace(row, matches=kept, waiting=waiting, remarks=tuple(remarks))


def _returned(found: Match, retest: Retest) -> Content | None:
    """What the record of the row's test says about the server's numbers."""
    content = found.record.content
    test = content if retest.is_own else content.get("retests", {}).get(retest.name, {})
    return test.get("returned")
