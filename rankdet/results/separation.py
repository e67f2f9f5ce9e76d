"""Which rows of a table its seeds tell apart: every run of one lies above every run of the other."""

from collections.abc import Sequence
from itertools import combinations
from math import comb

from rankdet.results.tables import TableRow

Pair = tuple[TableRow, TableRow]


def pairs(rows: Sequence[TableRow], metric: str) -> list[Pair]:
    """All pairs of rows with two current records or more that have the metric, in the table's order."""
    repeated = [row for row in rows if len(row.current) > 1 and row.score(metric) is not None]
    return list(combinations(repeated, 2))


def separated(rows: Sequence[TableRow], metric: str) -> list[Pair]:
    """Of these pairs those that are told apart, the row with the larger values first."""
    found = []
    for one, other in pairs(rows, metric):
        for upper, lower in ((one, other), (other, one)):
            if above(values(upper, metric), values(lower, metric)):
                found.append((upper, lower))
    return found


def above(upper: Sequence[float], lower: Sequence[float]) -> bool:
    """Whether all runs of one lie above all of the other."""
    return min(upper) > max(lower)


def fewest_seeds(rows: Sequence[TableRow]) -> int:
    """Of the rows with two current records or more; 0 where there are none."""
    return min((len(row.current) for row in rows if len(row.current) > 1), default=0)


def by_chance(seeds: int) -> float:
    """How often two rows that do not differ, of as many runs each, are told apart."""
    return 2 / comb(2 * seeds, seeds)


def values(row: TableRow, metric: str) -> tuple[float, ...]:
    """One a seed; the row has a score in the metric."""
    score = row.score(metric)
    assert score is not None
    return score.values
