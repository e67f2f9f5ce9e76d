"""The text under a table: what was run, on what, at what cost, and how far the numbers carry."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from rankdet.config import compose
from rankdet.results.records import Record
from rankdet.results.tables import Ordering, Table, orderings
from rankdet.robustness.conditions import CONDITIONS

Recorded = Record | Mapping[str, Any]

PROTOCOLS = {
    "mini": "a quarter-width RetinaNet from scratch, minutes on a CPU",
    "mini_long": "the mini protocol with four times the steps",
    "paper": "the paper's training, tested at a shorter side of {} with the aspect ratio kept",
}


def description(table: Table) -> list[str]:
    """One sentence or two per point, without list marks."""
    plan, records = table.plan, table.records
    lines = [
        f"Ours: mean ± sample standard deviation over n seeds, in percent, on {plan.data.name}. Rows bear the paper's "
        "names, and its numbers are as printed, on its own data."
    ]
    if records:
        lines += [_protocol(table), _data(table), _seeds(table), _budget(table), _machine(records), _commits(records)]
    lines += _retests(table)
    lines += plan.manifest.notes
    if plan.args:
        lines.append(f"Own overrides in every row whose loss has them: {' '.join(plan.args)}.")
    if plan.protocol in ("mini", "mini_long"):
        if plan.manifest.mini_overrides:
            lines.append(f"In every row under mini: {' '.join(plan.manifest.mini_overrides)}.")
        lines += [*plan.manifest.mini_notes, *_tuning(table)]
        lines.append(
            "The paper's numbers come from other data, a larger pretrained detector and far longer training. Heights "
            "do not compare, and nothing here confirms or refutes them: only the order of the rows is set against the "
            "paper's, for this data, this budget and these seeds."
        )
    lines += _order(table)
    return lines


def _protocol(table: Table) -> str:
    versions = _list(record["protocol_version"] for record in table.records)
    what = PROTOCOLS[table.plan.protocol]
    if table.plan.protocol == "paper":
        what = what.format(compose(["protocol=paper"]).test_input.shorter)
    return f"Protocol: {table.plan.protocol}, version {versions} ({what})."


def _data(table: Table) -> str:
    trained = _list(run.train_split for row in table.rows for run in row.planned.runs)
    tested = _list(record["split"] for record in table.records)
    images = [record["num_images"] for record in table.records]
    hashes = [record["data_hash"].split("-") for record in table.records]
    return (
        f"Data: {table.plan.data.name}; trained on {trained} ({_range(n['train'] for n in images)} images, annotations "
        f"hashed to {_list(h[0] for h in hashes)}), reported on {tested} ({_range(n['test'] for n in images)} images, "
        f"{_list(h[1] for h in hashes)})."
    )


def _seeds(table: Table) -> str:
    return f"Seeds: {_list(sorted(record['seed'] for record in table.records))}."


def _budget(table: Table) -> str:
    records = table.records
    wall = [record["train_seconds"] for record in records]
    cpu = sum(record["cpu_seconds"] for record in records)
    return (
        f"Budget of a run: {_range(record['steps'] for record in records)} steps, "
        f"{_range(record['image_passes'] for record in records)} images seen, {min(wall):.0f} to {max(wall):.0f} s of "
        f"training. All {len(records)} runs: {cpu / 60:.0f} CPU minutes of training."
    )


def _machine(records: Sequence[Recorded]) -> str:
    hardware = _list((record["hardware"] for record in records), "; ")
    threads = _list(record["threads"] for record in records)
    torch = _list(record["torch"] for record in records)
    return f"Hardware: {hardware}; torch {torch}, threads per run: {threads}."


def _commits(records: Sequence[Recorded]) -> str:
    commits = _list(
        f"{record['commit'] or 'unknown'}{' (with uncommitted changes)' if record['dirty'] else ''}"
        for record in records
    )
    return f"Code: commit {commits}; runs of {_list(sorted({record['date'] for record in records}))}."


def _retests(table: Table) -> list[str]:
    """What the tests behind the columns are, and what they took."""
    columns = table.plan.manifest.columns
    lines = [f"{key}: {cell.metric}; {CONDITIONS[cell.condition]}." for key, cell in columns.items()]
    tests = [content for record in table.records for content in record.content.get("retests", {}).values()]
    if not tests:
        return lines
    versions, seeds = (_list(content[field] for content in tests) for field in ("suite_version", "suite_seed"))
    minutes = sum(content["cpu_seconds"] for content in tests) / 60
    lines.append(
        f"Tests of the trained weights: {len(tests)}, {minutes:.0f} CPU minutes in all; version {versions} of the "
        f"suite, its random choices from seed {seeds}, the same for all rows and seeds. {_machine(tests)} "
        f"{_commits(tests)}"
    )
    return lines


def _tuning(table: Table) -> list[str]:
    plan, tuning = table.plan, table.plan.tuning
    if tuning is None:
        return ["Learning rate and box weight are the configuration's defaults: nothing was tuned (make tune does)."]
    seeds = _list(tuning.seeds)
    where = f"protocol {tuning.protocol} version {tuning.protocol_version}, seed {seeds}"
    lines = [
        f"Tuned per loss on {tuning.data}, split val, the same {tuning.num_trials} settings for each ({where}): "
        + "; ".join(f"{loss}: {_settings(best)}" for loss, best in sorted(_used(table).items()))
        + "."
    ]
    if tuning.data != plan.data.name:
        lines.append(
            f"These settings were tuned on {tuning.data}, not on {plan.data.name}; make tune DATA=... searches here."
        )
    used = sorted(_used(table))
    edges = [f"{' and '.join(tuning.edges[loss])} for {loss}" for loss in used if tuning.edges.get(loss)]
    if edges:
        lines.append(f"At the edge of the grid, so that a better value may lie beyond: {', '.join(edges)}.")
    collapsed = [f"{tuning.collapsed[loss]} with {loss}" for loss in used if tuning.collapsed.get(loss)]
    if collapsed:
        lines.append(f"Of the {tuning.num_trials} settings of a loss, these ended below 1 AP: {', '.join(collapsed)}.")
    versions = {run.protocol_version for row in table.rows for run in row.planned.runs}
    if plan.protocol == tuning.protocol and versions != {tuning.protocol_version}:
        lines.append(f"The settings are stale: tuned under version {tuning.protocol_version} of the protocol.")
    return lines


def _used(table: Table) -> dict[str, tuple[str, ...]]:
    """loss -> the tuned overrides that its rows took over."""
    used: dict[str, tuple[str, ...]] = {}
    for row in table.rows:
        for run in row.planned.runs:
            loss = next(item for item in run.overrides if item.startswith("loss=")).removeprefix("loss=")
            used[loss] = run.tuned
    return used


def _settings(tuned: tuple[str, ...]) -> str:
    return ", ".join(item.replace("=", " ") for item in tuned) or "none, defaults"


def _order(table: Table) -> list[str]:
    metrics = dict.fromkeys(metric for printed in table.plan.manifest.tables for metric in printed.columns)
    found = {metric: orderings(table, metric) for metric in (["AP"] if "AP" in metrics else metrics)}
    lines = [_ordering_line(item, metric) for metric, items in found.items() for item in items]
    if not lines:
        return []
    if any(row.status in ("partial", "stale", "not run") for row in table.rows):
        lines.append("Some runs are missing or stale; the order above is that of the current ones.")
    return lines


def _ordering_line(item: Ordering, metric: str) -> str:
    """Counts and one correlation with its spread, for one printed table."""
    pairs = "1 pair" if item.num_pairs == 1 else f"{item.num_pairs} pairs"
    text = f"Order by {metric}, {item.table}: our means put {item.as_printed} of {pairs} of rows in the paper's order. "
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


def _list(values: Iterable[object], separator: str = ", ") -> str:
    return separator.join(dict.fromkeys(str(value) for value in values))


def _range(values: Iterable[int]) -> str:
    low, *_, high = sorted({*values}) * 2
    return f"{low}" if low == high else f"{low} to {high}"
