"""Our numbers beside the printed ones: rows with mean, spread and status, and how their order compares."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, stdev
from typing import Any

from rankdet.results.plan import Plan, PlannedRow
from rankdet.results.records import Match, Record, flag_other_data, match
from rankdet.results.runs import Reads, Run


@dataclass(frozen=True)
class Score:
    """One metric of one row over its seeds, in the column's unit. sd: sample standard deviation, None for one seed.

    digits: decimals to show."""

    values: tuple[float, ...]
    mean: float
    sd: float | None
    digits: int = 1


@dataclass(frozen=True)
class TableRow:
    """A printed row with the records found for its runs, one match per seed where there is one."""

    planned: PlannedRow
    matches: tuple[Match, ...]
    waiting: int = 0  # finished runs without their numbers, which an evaluation server has yet to return
    remarks: tuple[str, ...] = ()  # to be shown beside it

    @property
    def current(self) -> list[Record]:
        """The records that hold today."""
        return [found.record for found in self.matches if not found.stale]

    @property
    def shown(self) -> list[Record]:
        """Those behind the row's numbers: the current ones; only where there are none, the stale ones."""
        return self.current or [found.record for found in self.matches]

    @property
    def detector(self) -> str | None:
        """Of its runs; None where there are none to do."""
        return self.planned.runs[0].detector if self.planned.runs else None

    @property
    def data(self) -> str | None:
        """What its runs are trained and tested on; None where there are none to do."""
        return self.planned.runs[0].data if self.planned.runs else None

    @property
    def status(self) -> str:
        """done | partial (seeds are missing) | stale | waiting | not run | not done (planned.why)."""
        if self.planned.why is not None:
            return "not done"
        if not self.matches:
            return "waiting" if self.waiting else "not run"
        if not self.current:
            return "stale"
        return "done" if len(self.current) == len(self.planned.runs) else "partial"

    def score(self, metric: str) -> Score | None:
        """The metric over the shown records; None where there are none, or one of them lacks it."""
        fractions = [record["metrics"].get(metric) for record in self.shown]
        if not fractions or any(fraction is None for fraction in fractions):
            return None
        scale = 100 if self.planned.table.in_percent(metric) else 1
        values = tuple(scale * fraction for fraction in fractions)
        sd = stdev(values) if len(values) > 1 else None
        return Score(values, fmean(values), sd, self.planned.table.digits(metric))


@dataclass(frozen=True)
class Table:
    """All rows of a manifest's tables, in the paper's order."""

    plan: Plan
    rows: tuple[TableRow, ...]

    @property
    def runs(self) -> list[Run]:
        """Those of the rows with records, so of what the table tells; of all rows where none has any."""
        rows = [row for row in self.rows if row.shown] or self.rows
        return [run for row in rows for run in row.planned.runs]

    @property
    def on(self) -> str:
        """What these runs are trained and tested on, for a sentence."""
        return ", ".join(dict.fromkeys(run.data for run in self.runs)) or self.plan.on

    @property
    def records(self) -> list[Record]:
        """Every record behind a shown number, once."""
        return list({record.path: record for row in self.rows for record in row.shown}.values())

    @property
    def retests(self) -> list[Mapping[str, Any]]:
        """The records of all tests of these trainings' weights."""
        return [test for record in self.records for test in record.content.get("retests", {}).values()]


@dataclass(frozen=True)
class Ordering:
    """How one printed table's order of rows by one metric compares with ours, for one detector and data set.

    Pairs that the paper ties are left out. detector, data: whose rows these are, None where the table has no other's.
    as_printed: pairs whose means we order as the paper does. separated: pairs, of rows with two runs or more, where
    every run of one lies above every run of the other; separated_as_printed: those of them in the paper's order.
    taus: at each seed that all rows have, Kendall's tau: the pairs' mean of 1 (as printed), -1 (reversed), 0 (equal).
    """

    table: str
    detector: str | None
    data: str | None
    num_rows: int
    num_pairs: int
    as_printed: int
    separated: int
    separated_as_printed: int
    taus: tuple[float, ...]


def collect(plan: Plan, records: Sequence[Record], data_hashes: Mapping[Reads, str] | None = None) -> Table:
    """Finds each planned run's record. data_hashes: of the data as they are now, if known, by Run.reads."""
    runs = list(dict.fromkeys(run for row in plan.rows for run in row.runs))
    found: dict[Run, Match | None] = {}
    for reads in dict.fromkeys(run.reads for run in runs):
        alike = [run for run in runs if run.reads == reads]
        flagged = flag_other_data([match(run, records) for run in alike], (data_hashes or {}).get(reads))
        found.update(zip(alike, flagged, strict=True))
    matches = [tuple(item for run in row.runs if (item := found[run]) is not None) for row in plan.rows]
    return Table(plan, tuple(TableRow(row, some) for row, some in zip(plan.rows, matches, strict=True)))


def orderings(table: Table, metric: str) -> list[Ordering]:
    """One for each printed table, detector and data set of which at least two rows have current records and differ in
    their printed values."""
    result = []
    for printed in table.plan.manifest.tables:
        current = [row for row in table.rows if row.planned.table is printed and row.current]
        several_detectors = len({row.detector for row in current}) > 1
        several_sets = len({row.data for row in current}) > 1
        rows = [row for row in current if row.score(metric) and row.planned.printed.values.get(metric) is not None]
        for detector, data in dict.fromkeys((row.detector, row.data) for row in rows):
            own = [row for row in rows if (row.detector, row.data) == (detector, data)]
            if len({_printed(row, metric) for row in own}) > 1:
                where = (detector if several_detectors else None, data if several_sets else None)
                result.append(_ordering(printed.id, *where, own, metric))
    return result


def _ordering(table_id: str, detector: str | None, data: str | None, rows: Sequence[TableRow], metric: str) -> Ordering:
    by_seed = {row.planned.printed.key: _by_seed(row, metric) for row in rows}
    pairs = [_upper_first(a, b, metric) for a, b in combinations(rows, 2) if _printed(a, metric) != _printed(b, metric)]
    pairs = [(by_seed[a.planned.printed.key], by_seed[b.planned.printed.key]) for a, b in pairs]
    common = set.intersection(*(set(values) for values in by_seed.values()))
    repeated = [(high.values(), low.values()) for high, low in pairs if min(len(high), len(low)) > 1]
    above = sum(min(high) > max(low) for high, low in repeated)
    below = sum(max(high) < min(low) for high, low in repeated)
    return Ordering(
        table=table_id,
        detector=detector,
        data=data,
        num_rows=len(rows),
        num_pairs=len(pairs),
        as_printed=sum(fmean(high.values()) > fmean(low.values()) for high, low in pairs),
        separated=above + below,
        separated_as_printed=above,
        taus=tuple(fmean(_sign(high[seed] - low[seed]) for high, low in pairs) for seed in sorted(common) if pairs),
    )


def _upper_first(a: TableRow, b: TableRow, metric: str) -> tuple[TableRow, TableRow]:
    return (a, b) if _printed(a, metric) > _printed(b, metric) else (b, a)


def _printed(row: TableRow, metric: str) -> float:
    value = row.planned.printed.values[metric]
    assert value is not None
    return value


def _by_seed(row: TableRow, metric: str) -> dict[int, float]:
    return {record["seed"]: record["metrics"][metric] for record in row.current}


def _sign(difference: float) -> int:
    return (difference > 0) - (difference < 0)
