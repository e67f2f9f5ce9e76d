"""experiments/all-losses/README.md: what follows from the comparison of all losses, and what does not."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from tabulate import tabulate

from rankdet.files import write_text
from rankdet.overview.order_of_losses import (
    METRIC,
    agreement,
    key_of,
    listed,
    name_of,
    names_of,
    ranked,
    unbeaten,
    where,
)
from rankdet.results.cost_plot import cost_columns
from rankdet.results.describe import epochs, machine
from rankdet.results.publish import load_published, published_table
from rankdet.results.render import note, shown
from rankdet.results.separation import by_chance, fewest_seeds, pairs, separated
from rankdet.results.tables import Table
from rankdet.results.tuning import Tuning

PAPER = "all-losses"
HEAD = """# What the comparison of all losses says, and what not

Written by `make publish` from the committed records; not to be edited. The numbers and how they came about: {links}."""
RULE = (
    "Two losses are *told apart* where all runs of one lie above all runs of the other by {metric}. Two that do not "
    "differ would be told apart by chance in {chance:.1%} of cases with {seeds} seeds each: if none differed, in about "
    "{expected:.1f} of {pairs} pairs."
)
LIMITS = (
    "One small detector trained from scratch, a few hundred images, one protocol. With a pretrained backbone, more "
    "data or another detector the order may be another one. Nothing here confirms or refutes what a paper measured.",
    "A loss that learns fast leads after so few steps, and need not lead after more: AP-loss's Table 2 under "
    "mini_long, with four times the steps, shows how far leads last.",
    "Learning rate and box weight were searched with one seed on the validation split, the box weight between two "
    "values. Losses that train the boxes themselves have no box weight, and so half as many settings to choose from. "
    "What else a loss has to set was not searched: the notes under the tables say whose choice it is.",
    "aLRP and Parameterized AP loss train the boxes by GIoU, the others by smooth L1: what they gain or lose, above "
    "all at AP75 and AP90, may come of that and not of their ranking.",
    "aLRP's first epoch, with the fixed localisation weight 50, is far more of so short a training than of the "
    "paper's. On another drawn set constant weights from 1 to 15 came to more than its self-balancing: [aLRP's Table "
    "3](../alrp/table-3.mini.md).",
    "Seeds vary the first weights and the order of the images. The images and the settings are the same in all runs, "
    "so told apart means on these images, with these settings.",
    "Not told apart does not mean equal, and a mean that is higher without being told apart says nothing. A loss whose "
    "own runs lie far apart is hardly told from any.",
    "Times and memory are those of one machine and a small network; with a larger backbone the loss is a smaller part.",
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
    links = ", ".join(f"[{where(table)}]({table.plan.file_stem}.md)" for table in tables)
    parts = [HEAD.format(links=links)]
    for table in tables:
        parts += [f"## {where(table)}", _order(table), "\n".join(f"- {line}" for line in _facts(table))]
        if cost_columns(table.plan.manifest):
            parts.append(f"![accuracy against what a training step costs]({table.plan.file_stem}.cost.png)")
    agreed = [*agreement(tables), *(line for table in tables for line in _costs(table))]
    parts += ["## What can be concluded", "\n".join(f"- {line}" for line in agreed)]
    parts += ["## What cannot", "\n".join(f"- {line}" for line in [*_unsure(tables), *LIMITS])]
    return "\n\n".join(parts) + "\n"


def _order(table: Table) -> str:
    """The rows by their means, how many others each is told to lie above and below, and what is the matter with it."""
    rows = ranked(table)
    apart = separated(rows, METRIC)
    body = []
    for row in rows:
        above, below = (sum(key_of(pair[side]) == key_of(row) for pair in apart) for side in (0, 1))
        score = row.score(METRIC)
        assert score is not None
        body.append([name_of(row), shown(score), str(above), str(below), str(len(row.current)), note(row)])
    headers = ["loss", METRIC, "told to lie above", "told to lie below", "n", "note"]
    align = ("left", *["right"] * 4, "left")
    return tabulate(body, headers, tablefmt="github", disable_numparse=True, colalign=align)


def _facts(table: Table) -> Iterator[str]:
    """What was run, and which losses the search left doubtful."""
    rows, records = ranked(table), table.records
    planned = sum(len(row.planned.runs) for row in table.rows)
    images = sorted({record["num_images"]["train"] for record in records})
    tests = sorted({record["num_images"]["test"] for record in records})
    steps = sorted({record["steps"] for record in records})
    passes = sorted({f"{epochs(record):.3g}" for record in records})
    yield (
        f"{sum(len(row.current) for row in rows)} of {planned} runs: {listed(images)} images to learn from, "
        f"{listed(tests)} to test on, {listed(steps)} steps ({listed(passes)} epochs)."
    )
    every, apart = pairs(rows, METRIC), separated(rows, METRIC)
    if seeds := fewest_seeds(rows):
        chance = by_chance(seeds)
        yield f"{len(apart)} of {len(every)} pairs of losses are told apart. " + RULE.format(
            metric=METRIC, chance=chance, seeds=seeds, expected=chance * len(every), pairs=len(every)
        )
        yield f"No loss is told to lie above {names_of(unbeaten(rows))}."
    tunings = [tuning for (_, data), tuning in table.plan.tunings.items() if data in table.plan.data_names]
    for tuning in tunings:
        yield from _search(table, tuning)
    yield f"{METRIC} is in percent on the test images, mean ± sample standard deviation over the n seeds."
    yield f"Trainings: {machine(records)}"
    if table.retests:
        yield f"Costs: {machine(table.retests)}"


def _search(table: Table, tuning: Tuning) -> Iterator[str]:
    """Whose settings were searched, and which losses that left doubtful."""
    losses = {table.plan.manifest.rows[key_of(row)].loss: name_of(row) for row in ranked(table)}
    found = {loss: name for loss, name in losses.items() if loss in tuning.losses}
    others = listed([name for loss, name in losses.items() if loss not in found])
    yield (
        f"Settings were searched on {tuning.data} for {f'all but {others}, which have defaults' if others else 'all'}."
    )
    edges = [name for loss, name in found.items() if tuning.edges.get(loss)]
    if edges:
        yield f"Best at the edge of the grid, so that a better value may lie beyond: {listed(edges)}."
    fell = [
        f"{name} ({tuning.collapsed[loss]} of {tuning.fewer.get(loss, tuning.num_trials)})"
        for loss, name in found.items()
        if tuning.collapsed[loss]
    ]
    if fell:
        yield f"Settings of the search that ended below 1 AP: {listed(fell)}."


def _costs(table: Table) -> Iterator[str]:
    """The cheapest and the dearest loss of each cost."""
    printed = table.plan.manifest.tables[0]
    for column in cost_columns(table.plan.manifest):
        found = [(row, score) for row in ranked(table) if (score := row.score(column))]
        if len(found) > 1:
            found.sort(key=lambda one: one[1].mean)
            (cheap, least), (dear, most) = found[0], found[-1]
            every, apart = pairs(table.rows, column), separated(table.rows, column)
            yield (
                f"{where(table)}, {printed.columns[column]}: from {shown(least)} {printed.units[column]} "
                f"({name_of(cheap)}) to {shown(most)} ({name_of(dear)}), {most.mean / least.mean:.1f} times; "
                f"{len(apart)} of {len(every)} pairs are told apart."
            )


def _unsure(tables: Sequence[Table]) -> Iterator[str]:
    """How far runs of one loss lie apart."""
    for table in tables:
        spreads = [score.sd for row in ranked(table) if (score := row.score(METRIC)) and score.sd is not None]
        if spreads:
            yield (
                f"{where(table)}: the standard deviation of {METRIC} over the seeds is {median(spreads):.1f} for the "
                f"median loss, {max(spreads):.1f} for the worst. Differences of that size may be chance."
            )
