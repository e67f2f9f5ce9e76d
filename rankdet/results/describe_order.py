"""The sentences under a table about the order of its rows, and how far it can be told."""

from statistics import fmean, stdev

from rankdet.results.describe_tuning import title
from rankdet.results.separation import by_chance, fewest_seeds, pairs, separated
from rankdet.results.tables import Ordering, Table, TableRow, orderings

MAIN_METRICS = ("AP", "mAP50", "AP50")  # rows are ordered by the first that is printed of them; without these, by all
IMAGES = "± is over trainings alone: the images are the same in all."


def order_lines(table: Table) -> list[str]:
    """None where the rows are no printed ones in turn, or too few have runs."""
    if not table.plan.manifest.ordered:
        return []
    lines = _against_the_paper(table) if table.plan.manifest.of_paper else _separation_lines(table)
    if not lines:
        return []
    lines += _doubts(table)
    if any(row.status in ("partial", "stale", "waiting") for row in table.rows):
        return [*lines, "Some runs are missing or stale; the order above is that of the current ones."]
    if any(row.status == "not run" for row in table.rows):
        return [*lines, "Rows that were not run are no part of that order."]
    return lines


def counted(number: int, what: str) -> str:
    """3 runs, 1 run."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def _against_the_paper(table: Table) -> list[str]:
    metrics = dict.fromkeys(metric for printed in table.plan.manifest.tables for metric in printed.columns)
    main = [metric for metric in MAIN_METRICS if metric in metrics]
    lines: dict[tuple[object, ...], str] = {}
    for metric in main or metrics:
        for item in orderings(table, metric):
            group = (item.table, item.detector, item.data, *([] if main else [metric]))
            lines.setdefault(group, _ordering_line(item, metric))
    return [*lines.values()]


def _separation_lines(table: Table) -> list[str]:
    """For each detector: rows of several differ by more than what is compared."""
    metric = MAIN_METRICS[0]
    lines = []
    for detector in dict.fromkeys(row.detector for row in table.rows if row.current):
        rows = [row for row in table.rows if row.detector == detector]
        every, apart = (len(find(rows, metric)) for find in (pairs, separated))
        several = f", {title(detector)}" if detector and len({row.detector for row in table.rows}) > 1 else ""
        lines.append(
            f"Order by {metric}{several}: in {apart} of {every} pairs of rows all runs of one lie above all of the "
            "other."
        )
    return lines


def _ordering_line(item: Ordering, metric: str) -> str:
    """Counts and one correlation with its spread, for one printed table."""
    pairs = counted(item.num_pairs, "pair")
    where = ", ".join([item.table, *([title(item.detector)] if item.detector else []), *filter(None, [item.data])])
    text = f"Order by {metric}, {where}: our means put {item.as_printed} of {pairs} of rows in the paper's order. "
    if item.separated:
        text += (
            f"In {item.separated} all runs of one row lie above all of the other, "
            f"{item.separated_as_printed} of them as in the paper."
        )
    else:
        text += "In none do all runs of one row lie above all of the other."
    if not item.taus or item.num_rows < 3:
        return text
    spread = f" ± {stdev(item.taus):.2f}" if len(item.taus) > 1 else ""
    return f"{text} Kendall's tau with the paper, seed by seed: {fmean(item.taus):.2f}{spread} (n = {len(item.taus)})."


def _doubts(table: Table) -> list[str]:
    """How easily rows come apart by chance, and whether they are trainings of their own at all."""
    rows = [row for row in table.rows if row.current]
    trainings = {_trainings(row) for row in rows}
    lines = []
    if len(trainings) < len(rows):
        lines.append(
            f"The {len(rows)} rows with numbers stand on {counted(len(trainings), 'training')} a seed: "
            "those that share one are tests of the same weights, and their order is no further evidence."
        )
    if seeds := fewest_seeds(rows):
        lines.append(
            f"With {seeds} seeds each, all runs of one of two rows that do not differ lie above all of the other by "
            f"chance in {by_chance(seeds):.1%} of cases. {IMAGES}"
        )
    return lines


def _trainings(row: TableRow) -> frozenset[object]:
    return frozenset(run.directory for run in row.planned.runs)
