"""A table as cells, as Markdown that also reads in a terminal, and as tidy CSV."""

from collections import Counter
from collections.abc import Iterable, Sequence

from tabulate import tabulate

from rankdet.files import as_csv
from rankdet.results.describe import description, epochs
from rankdet.results.records import Record
from rankdet.results.registry import PrintedTable
from rankdet.results.retests import has_retests
from rankdet.results.tables import Score, Table, TableRow
from rankdet.results.tuning import LEAST_AP

WIDE = 4  # columns that ours and the paper's numbers fit side by side in; of more, each gets a line


def markdown(table: Table) -> str:
    """Heading, one table for each printed one, and under them what was measured and how."""
    plan = table.plan
    name = plan.manifest.name.replace("-", " ").capitalize()
    parts = [f"# {plan.manifest.paper}, {name}: protocol {plan.protocol} on {table.on}"]
    for printed in plan.manifest.tables:
        headers, body = cells(table, printed)
        align = ["left", *["right"] * (len(headers) - 2), "left"]
        parts.append(f"**{printed.id}** {printed.title}" if printed.is_printed else f"**{printed.title}**")
        parts.append(tabulate(body, headers, tablefmt="github", disable_numparse=True, colalign=align))
    parts.append("\n".join(f"- {line}" for line in description(table)))
    return "\n\n".join(parts) + "\n"


def cells(table: Table, printed: PrintedTable) -> tuple[list[str], list[list[str]]]:
    """A printed table's headers and lines: ours and the paper's side by side, or below each other if there are many.

    Ours alone where no paper prints it. The first column and the last one are text, the others numbers."""
    rows = [row for row in table.rows if row.planned.table is printed]
    metrics = list(printed.columns)
    if not printed.is_printed:
        return ["row", *metrics, "n", "note"], [_own_cells(row, metrics) for row in rows]
    if len(metrics) <= WIDE:
        headers = ["row", *(f"{metric} {whose}" for metric in metrics for whose in ("ours", "paper")), "n", "note"]
        return headers, [_cells(row, metrics) for row in rows]
    return ["row", *metrics, "n", "note"], [line for row in rows for line in _two_lines(row, metrics)]


def csv_text(table: Table) -> str:
    """One line per row; percentages unrounded; several values in a cell are separated by semicolons, in seed order."""
    metrics = list(dict.fromkeys(metric for printed in table.plan.manifest.tables for metric in printed.columns))
    lines = [_csv_line(table, row, metrics) for row in table.rows]
    return as_csv(list(lines[0]), (list(line.values()) for line in lines))


def shown(score: Score) -> str:
    """34.6 ± 0.8; without the spread for a single seed."""
    texts = [f"{number:.{score.digits}f}" for number in (score.mean, score.sd) if number is not None]
    return " ± ".join(texts)


def num_collapsed(records: Sequence[Record]) -> int:
    """How many runs ended below 1 AP, which a mean and its spread alone would hide."""
    aps = [record["metrics"].get("AP") for record in records]
    return sum(ap is not None and ap < LEAST_AP for ap in aps)


def note(row: TableRow) -> str:
    """Why there is no number, or what is the matter with it; empty if nothing is."""
    planned = row.planned
    if planned.why is not None:
        return planned.why
    notes = []
    if row.status == "not run":
        notes.append("not run")
    elif row.status not in ("stale", "waiting") and len(row.shown) < len(planned.runs):
        notes.append(f"{len(row.shown)} of {len(planned.runs)} seeds")
    reasons = dict.fromkeys(reason for found in row.matches for reason in found.stale)
    if row.status == "stale":
        notes.append(f"† stale: {'; '.join(reasons)}")
    elif reasons:
        notes.append(f"stale and left out: {'; '.join(reasons)}")
    untested = Counter(column for record in row.shown for column in record.content.get("untested", ()))
    if untested:
        left = [f"{column} ({len(row.shown) - count} of {len(row.shown)} seeds)" for column, count in untested.items()]
        notes.append(f"not tested: {', '.join(left)}")
    short = [record for record in row.shown if record["steps"] < record["planned_steps"]]
    notes += [f"stopped at step {record['steps']} of {record['planned_steps']}" for record in short]
    fell = num_collapsed(row.shown)
    notes += [f"{fell} of {len(row.shown)} seeds below 1 AP"] if fell else []
    notes += row.remarks
    if planned.same_run_as:
        notes.append(f"same runs as {planned.same_run_as}")
    return "; ".join(notes)


def _cells(row: TableRow, metrics: Sequence[str]) -> list[str]:
    label, *ours, seeds, text = _own_cells(row, metrics)
    cells = [label]
    for metric, number in zip(metrics, ours, strict=True):
        cells += [number, row.planned.table.as_printed(row.planned.printed, metric)]
    return [*cells, seeds, text]


def _own_cells(row: TableRow, metrics: Sequence[str]) -> list[str]:
    mark = " †" if row.status == "stale" else ""
    scores = [row.score(metric) for metric in metrics]
    ours = [shown(score) + mark if score else "-" for score in scores]
    return [row.planned.printed.label, *ours, str(len(row.shown)) if row.shown else "-", note(row)]


def _two_lines(row: TableRow, metrics: Sequence[str]) -> list[list[str]]:
    """The same cells, ours above the paper's, which alone there is of a row that it quotes."""
    label, *numbers, seeds, text = _cells(row, metrics)
    if row.planned.printed.quoted:
        return [[f"{label}, paper", *numbers[1::2], "", text]]
    return [[f"{label}, ours", *numbers[::2], seeds, text], [f"{label}, paper", *numbers[1::2], "", ""]]


def _csv_line(table: Table, row: TableRow, metrics: Sequence[str]) -> dict[str, object]:
    planned, records = row.planned, row.shown
    run = planned.runs[0] if planned.runs else None
    line: dict[str, object] = {
        "table": planned.table.id,
        "row": planned.printed.key,
        "label": planned.printed.label,
        "protocol": table.plan.protocol,
        "data": row.data or table.plan.data.name,
        "status": row.status,
        "note": note(row),
        "n": len(records),
        "seeds": _join(record["seed"] for record in records),
    }
    for metric in metrics:
        score = row.score(metric)
        line[f"{metric}_mean"] = score.mean if score else ""
        line[f"{metric}_sd"] = "" if score is None or score.sd is None else score.sd
        line[f"{metric}_seeds"] = _join(score.values) if score else ""
        if planned.table.is_printed:
            printed = planned.printed.values.get(metric)
            line[f"{metric}_printed"] = "" if printed is None else printed
    if has_retests(table.plan.manifest):
        tests = [content for record in records for content in record.content.get("retests", {}).values()]
        for field in ("suite_version", "suite_seed"):
            line[field] = _join(dict.fromkeys(content[field] for content in tests))
        line["test_commit"] = _join(dict.fromkeys(content["commit"] for content in tests))
        line["test_cpu_seconds"] = round(sum(content["cpu_seconds"] for content in tests), 1)
    return line | {
        "steps": _join(record["steps"] for record in records),
        "planned_steps": _join(record["planned_steps"] for record in records),
        "image_passes": _join(record["image_passes"] for record in records),
        "epochs": _join(f"{epochs(record):.4g}" for record in records),
        "train_seconds": _join(record["train_seconds"] for record in records),
        "cpu_seconds": _join(record["cpu_seconds"] for record in records),
        "stale": int(row.status == "stale"),
        "num_stale": sum(bool(found.stale) for found in row.matches),
        "hardware": _join(dict.fromkeys(record["hardware"] for record in records)),
        "commit": _join(dict.fromkeys(record["commit"] for record in records)),
        "config_hash": run.config_hash if run else "",
        "data_hash": _join(dict.fromkeys(record["data_hash"] for record in records)),
        "tuned": _join(run.tuned) if run else "",
    }


def _join(values: Iterable[object]) -> str:
    return ";".join(str(value) for value in values)
