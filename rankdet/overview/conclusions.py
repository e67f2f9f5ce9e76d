"""experiments/all-losses/README.md: what follows from the comparison of all losses, and what does not."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from math import comb
from pathlib import Path
from statistics import median

from tabulate import tabulate

from rankdet.files import write_text
from rankdet.results.cost_plot import cost_columns
from rankdet.results.describe import MAIN_METRICS, epochs
from rankdet.results.publish import load_published, published_table
from rankdet.results.render import shown
from rankdet.results.separation import Pair, pairs, separated
from rankdet.results.tables import Table, TableRow

PAPER = "all-losses"
METRIC = MAIN_METRICS[0]
HEAD = """# What the comparison of all losses says, and what not

Written by `make publish` from the committed records; not to be edited. The numbers and how they came about: {links}."""
RULE = (
    "Two losses are *told apart* where all runs of one lie above all runs of the other by {metric}. Two losses that do "
    "not differ would be told apart by chance in {chance:.1%} of cases with {seeds} seeds each, so in about "
    "{expected:.1f} of {pairs} pairs."
)
LIMITS = (
    "One small detector trained from scratch, a few hundred images, one protocol. With a pretrained backbone, more "
    "data or another detector the order may be another one. Nothing here confirms or refutes what a paper measured.",
    "A loss that learns fast leads after so few steps, and need not lead after more: AP-loss's Table 2 under "
    "mini_long, with four times the steps, shows how far leads last.",
    "Learning rate and box weight were searched with one seed on the validation split; what else a loss has to set, "
    "such as steps, margins and factors, is as its authors chose it for COCO or VOC.",
    "Not told apart does not mean equal, and a mean that is higher without being told apart says nothing.",
    "Times and memory are those of this machine and this small network; with a larger one the loss is a smaller part.",
)


def write_conclusions(root: Path) -> list[Path]:
    """The page's path, written if anything of the comparison has been published."""
    entries = load_published(root / "experiments" / "published.yaml", "table")
    tables = [published_table(entry, root) for entry in entries if entry.paper == PAPER]
    tables = [table for table in tables if ranked(table)]
    if not tables:
        return []
    path = root / "experiments" / PAPER / "README.md"
    write_text(path, conclusions(tables))
    return [path]


def conclusions(tables: Sequence[Table]) -> str:
    """The page. tables: of one manifest, a data set and protocol each, all with current records."""
    links = ", ".join(f"[{_where(table)}]({table.plan.file_stem}.md)" for table in tables)
    parts = [HEAD.format(links=links)]
    for table in tables:
        parts += [f"## {_where(table)}", _order(table), "\n".join(f"- {line}" for line in _facts(table))]
        if cost_columns(table.plan.manifest):
            parts.append(f"![accuracy against what a training step costs]({table.plan.file_stem}.cost.png)")
    agreed = [*_agreement(tables), *(line for table in tables for line in _costs(table))]
    parts += ["## What can be concluded", "\n".join(f"- {line}" for line in agreed)]
    parts += ["## What cannot", "\n".join(f"- {line}" for line in [*_unsure(tables), *LIMITS])]
    return "\n\n".join(parts) + "\n"


def ranked(table: Table) -> list[TableRow]:
    """The rows with current records, the highest mean first."""
    rows = [row for row in table.rows if row.current and row.score(METRIC)]
    return sorted(rows, key=lambda row: -row.score(METRIC).mean)


def unbeaten(rows: Sequence[TableRow]) -> list[TableRow]:
    """The rows that no other is told to lie above, among those with two runs or more."""
    beaten = {_key(lower) for _, lower in separated(rows, METRIC)}
    return [row for row in rows if len(row.current) > 1 and _key(row) not in beaten]


def _where(table: Table) -> str:
    return f"{table.plan.on}, {table.plan.protocol}"


def _key(row: TableRow) -> str:
    return row.planned.printed.key


def _name(row: TableRow) -> str:
    return row.planned.printed.label


def _names(rows: Sequence[TableRow]) -> str:
    return ", ".join(map(_name, rows))


def _order(table: Table) -> str:
    """The rows by their means, and how many others each is told to lie above and below."""
    rows = ranked(table)
    apart = separated(rows, METRIC)
    body = []
    for row in rows:
        above, below = (sum(_key(pair[side]) == _key(row) for pair in apart) for side in (0, 1))
        score = row.score(METRIC)
        assert score is not None
        body.append([_name(row), shown(score), str(above), str(below), str(len(row.current))])
    headers = ["loss", METRIC, "told to lie above", "told to lie below", "n"]
    return tabulate(body, headers, tablefmt="github", disable_numparse=True, colalign=("left", *["right"] * 4))


def _facts(table: Table) -> Iterator[str]:
    """What was run, and which losses the search left doubtful."""
    rows, records = ranked(table), table.records
    planned = sum(len(row.planned.runs) for row in table.rows)
    images = sorted({record["num_images"]["train"] for record in records})
    tests = sorted({record["num_images"]["test"] for record in records})
    steps = sorted({record["steps"] for record in records})
    passes = sorted({f"{epochs(record):.3g}" for record in records})
    yield (
        f"{sum(len(row.current) for row in rows)} of {planned} runs: {_list(images)} images to learn from, "
        f"{_list(tests)} to test on, {_list(steps)} steps ({_list(passes)} epochs)."
    )
    every, apart = pairs(rows, METRIC), separated(rows, METRIC)
    seeds = min((len(row.current) for row in rows if len(row.current) > 1), default=0)
    if seeds:
        chance = 2 / comb(2 * seeds, seeds)
        yield f"{len(apart)} of {len(every)} pairs of losses are told apart. " + RULE.format(
            metric=METRIC, chance=chance, seeds=seeds, expected=chance * len(every), pairs=len(every)
        )
        yield f"No loss is told to lie above {_names(unbeaten(rows))}."
    tunings = [tuning for (_, data), tuning in table.plan.tunings.items() if data in table.plan.data_names]
    for tuning in tunings:
        found = [loss for row in rows if (loss := table.plan.manifest.rows[_key(row)].loss) in tuning.losses]
        yield f"Settings were searched for {len(found)} of {len(rows)} losses, on {tuning.data}; others have defaults."
        edges = [loss for loss in found if tuning.edges.get(loss)]
        if edges:
            yield f"Best at the edge of the grid, so that a better value may lie beyond: {_list(edges)}."
        fell = [
            f"{loss} ({tuning.collapsed[loss]} of {tuning.fewer.get(loss, tuning.num_trials)})"
            for loss in found
            if tuning.collapsed[loss]
        ]
        if fell:
            yield f"Settings of the search that ended below 1 AP: {_list(fell)}."


def _agreement(tables: Sequence[Table]) -> Iterator[str]:
    """What holds on every data set."""
    told = [{(_key(upper), _key(lower)): (upper, lower) for upper, lower in _apart(table)} for table in tables]
    if len(tables) == 1:
        yield "One data set has been published: whether anything holds on another one is not known."
        return
    same = set.intersection(*(set(pairs_) for pairs_ in told))
    against = [pair for one, other in combinations(told, 2) for pair in one if pair[::-1] in other]
    yield f"Told apart in the same order on all of {len(tables)} data sets: {len(same)} pairs."
    best = [
        row for row in ranked(tables[0]) if all(_key(row) in {_key(r) for r in unbeaten(ranked(t))} for t in tables)
    ]
    if best:
        yield f"On no data set is any loss told to lie above {_names(best)}."
    else:
        yield "Each loss is told to lie below another on some data set."
    lowest = [row for row in ranked(tables[0]) if _key(row) in set.intersection(*({p[1] for p in t} for t in told))]
    if lowest:
        yield f"On each data set some loss is told to lie above {_names(lowest)}."
    if against:
        names = [
            f"{_name(told_[pair][0])} and {_name(told_[pair][1])}"
            for told_ in told
            for pair in against
            if pair in told_
        ]
        yield f"Told apart in opposite orders on different data sets: {_list(names)}."
    for one, other in combinations(tables, 2):
        tau = kendall(ranked(one), ranked(other))
        if tau is not None:
            yield f"Kendall's tau between the orders of the means on {_where(one)} and {_where(other)}: {tau:.2f}."


def _apart(table: Table) -> list[Pair]:
    return separated(ranked(table), METRIC)


def kendall(one: Sequence[TableRow], other: Sequence[TableRow]) -> float | None:
    """Of two orders, best first, over the rows that both have; None for less than two."""
    places = [_key(row) for row in other]
    common = [places.index(_key(row)) for row in one if _key(row) in places]
    signs = [1 if a < b else -1 for a, b in combinations(common, 2)]
    return sum(signs) / len(signs) if signs else None


def _costs(table: Table) -> Iterator[str]:
    """The cheapest and the dearest loss of each cost."""
    for column in cost_columns(table.plan.manifest):
        found = sorted((score.mean, _name(row)) for row in ranked(table) if (score := row.score(column)))
        if len(found) > 1:
            (least, cheap), (most, dear) = found[0], found[-1]
            printed = table.plan.manifest.tables[0]
            yield (
                f"{_where(table)}, {printed.columns[column]}: from {least:.1f} {printed.units[column]} ({cheap}) to "
                f"{most:.1f} ({dear}), {most / least:.2f} times."
            )


def _unsure(tables: Sequence[Table]) -> Iterator[str]:
    """How far runs of one loss lie apart."""
    for table in tables:
        spreads = [score.sd for row in ranked(table) if (score := row.score(METRIC)) and score.sd is not None]
        if spreads:
            yield (
                f"{_where(table)}: the standard deviation of {METRIC} over the seeds is {median(spreads):.1f} for the "
                f"median loss, {max(spreads):.1f} for the worst. Differences of that size may be chance."
            )


def _list(values: Sequence[object]) -> str:
    return ", ".join(dict.fromkeys(map(str, values)))
