"""The losses of the comparison in their order, and what of it is the same on every data set."""

from collections.abc import Iterator, Sequence
from itertools import combinations

from rankdet.results.describe_order import MAIN_METRICS
from rankdet.results.render import num_collapsed
from rankdet.results.separation import separated
from rankdet.results.tables import Table, TableRow

METRIC = MAIN_METRICS[0]


def ranked(table: Table) -> list[TableRow]:
    """The rows with current records, the highest mean first."""
    rows = [row for row in table.rows if row.current and row.score(METRIC)]
    return sorted(rows, key=lambda row: -row.score(METRIC).mean)


def unbeaten(rows: Sequence[TableRow]) -> list[TableRow]:
    """The rows that no other is told to lie above, among those with two runs or more."""
    beaten = {key_of(lower) for _, lower in separated(rows, METRIC)}
    return [row for row in rows if len(row.current) > 1 and key_of(row) not in beaten]


def where(table: Table) -> str:
    """Its data set and protocol."""
    return f"{table.plan.on}, {table.plan.protocol}"


def key_of(row: TableRow) -> str:
    """What tells it from the others, the same on every data set."""
    return row.planned.printed.key


def name_of(row: TableRow) -> str:
    """What it is called."""
    return row.planned.printed.label


def names_of(rows: Sequence[TableRow]) -> str:
    """What they are called."""
    return ", ".join(map(name_of, rows))


def listed(values: Sequence[object]) -> str:
    """Each once."""
    return ", ".join(dict.fromkeys(map(str, values)))


def agreement(tables: Sequence[Table]) -> Iterator[str]:
    """What holds on every data set."""
    told = [
        {(key_of(upper), key_of(lower)): (upper, lower) for upper, lower in separated(ranked(table), METRIC)}
        for table in tables
    ]
    if len(tables) == 1:
        yield "One data set has been published: whether anything holds on another one is not known."
        return
    same = set.intersection(*(set(pairs_) for pairs_ in told))
    against = [pair for one, other in combinations(told, 2) for pair in one if pair[::-1] in other]
    yield f"Told apart in the same order on all of {len(tables)} data sets: {len(same)} pairs."
    best = [
        row for row in ranked(tables[0]) if all(key_of(row) in {key_of(r) for r in unbeaten(ranked(t))} for t in tables)
    ]
    if best:
        yield f"On no data set is any loss told to lie above {names_of(best)}."
        yield from (f"Of these {line}" for table in tables for line in _collapsed(table, best))
    else:
        yield "Each loss is told to lie below another on some data set."
    lowest = [row for row in ranked(tables[0]) if key_of(row) in set.intersection(*({p[1] for p in t} for t in told))]
    if lowest:
        yield f"On each data set some loss is told to lie above {names_of(lowest)}."
    if against:
        names = [
            f"{name_of(told_[pair][0])} and {name_of(told_[pair][1])}"
            for told_ in told
            for pair in against
            if pair in told_
        ]
        yield f"Told apart in opposite orders on different data sets: {listed(names)}."
    for one, other in combinations(tables, 2):
        tau = kendall(ranked(one), ranked(other))
        if tau is not None:
            yield f"Kendall's tau between the orders of the means on {where(one)} and {where(other)}: {tau:.2f}."


def _collapsed(table: Table, of: Sequence[TableRow]) -> Iterator[str]:
    """Which losses had a run that learnt nothing: hardly any loss can be told to lie above one of these."""
    keys = set(map(key_of, of))
    fallen = [row for row in ranked(table) if key_of(row) in keys and num_collapsed(row.current)]
    if fallen:
        yield f"{names_of(fallen)} had runs below 1 AP on {where(table)}, and so could hardly be told from any."


def kendall(one: Sequence[TableRow], other: Sequence[TableRow]) -> float | None:
    """Of two orders, best first, over the rows that both have; None for less than two."""
    places = [key_of(row) for row in other]
    common = [places.index(key_of(row)) for row in one if key_of(row) in places]
    signs = [1 if a < b else -1 for a, b in combinations(common, 2)]
    return sum(signs) / len(signs) if signs else None
