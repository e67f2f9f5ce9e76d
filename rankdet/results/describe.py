"""The text under a table: what was run, on what, at what cost, and how far the numbers carry."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from omegaconf import DictConfig

from rankdet.config import CONFIG_DIR, compose
from rankdet.data.draw import OBJECTS
from rankdet.results.datasets import MAIN
from rankdet.results.describe_order import counted, order_lines
from rankdet.results.describe_tuning import title, tuning_lines
from rankdet.results.manifest import Cell, Manifest
from rankdet.results.records import Record
from rankdet.results.runs import Run, telling
from rankdet.results.tables import Table
from rankdet.robustness.conditions import CONDITIONS

Recorded = Record | Mapping[str, Any]

BARE = {"correlation": "", "not stated": "", "ms": " (ms)", "MiB": " (MiB)"}  # units of columns that are no percentages
PRINTED = "Rows bear the paper's names, and its numbers are as printed, on its own data."
OTHERWISE = (
    "The paper's numbers come from other data, a larger pretrained detector and far longer training. Heights do not "
    "compare, and nothing here confirms or refutes them"
)
ORDERED = ": only the order of the rows is set against the paper's, for this data, this budget and these seeds."
OWN_ONLY = (
    "A small detector, little data and a short training from scratch: the numbers hold for this data, this budget and "
    "these seeds, and need not for others."
)
PROTOCOLS = {
    "mini": "a quarter-width {} from scratch, minutes on a CPU",
    "mini_long": "the mini protocol with four times the steps",
    "paper": "the paper's training, tested at a shorter side of {} with the aspect ratio kept",
}


def description(table: Table) -> list[str]:
    """One sentence or two per point, without list marks."""
    plan, records = table.plan, table.records
    bare = [f"{key}{BARE[unit]}" for one in plan.manifest.tables for key, unit in one.units.items() if unit in BARE]
    units = f"in percent but for {', '.join(bare)}" if bare else "in percent"
    lines = [
        f"Ours: mean ± sample standard deviation over n seeds, {units}, on {table.on}. "
        + (PRINTED if plan.manifest.of_paper else "The table is our own: no paper prints it.")
    ]
    falling = dict.fromkeys(column for printed in plan.manifest.tables for column in printed.falling)
    lines += [f"Less is better: {', '.join(falling)}."] if falling else []
    if records:
        shown_runs = [row.planned.runs[0] for row in table.rows if row.shown]
        trained = [run.train_split for run in table.runs]
        lines += [protocol_line(plan.protocol, shown_runs, records), *run_facts(trained, records)]
    lines += [*_stand_ins(table), *_retests(table)]
    lines += [*_servers(table), *plan.manifest.notes]
    if plan.protocol == "paper" and plan.manifest.paper_overrides:
        lines.append(f"In every row: {' '.join(plan.manifest.paper_overrides)}.")
    if own := telling(plan.args):
        lines.append(f"Own overrides in every row whose loss has them: {' '.join(own)}.")
    if plan.protocol in ("mini", "mini_long"):
        if plan.manifest.mini_overrides:
            lines.append(f"In every row under mini: {' '.join(plan.manifest.mini_overrides)}.")
        lines += [*plan.manifest.mini_notes, *tuning_lines(plan, table.runs)]
        otherwise = OTHERWISE + (ORDERED if plan.manifest.ordered else ".")
        lines.append(otherwise if plan.manifest.of_paper else OWN_ONLY)
    return [*lines, *order_lines(table)]


def _stand_ins(table: Table) -> list[str]:
    """Which data set stands for which, where that is not the one that stands for most tables'."""
    sets = table.plan.manifest.datasets
    rows = [(row.planned.printed.dataset, row.data) for row in table.rows if row.shown or not table.records]
    chosen = {key: data for key, data in rows if data and key in sets}
    if not set(chosen) - {MAIN}:
        return []
    return [f"Data sets: {'; '.join(f'{data} stands for {sets[key].title}' for key, data in chosen.items())}."]


def _servers(table: Table) -> list[str]:
    """What the numbers of rows are whose objects are not at hand."""
    sets = table.plan.manifest.datasets
    titles = dict.fromkeys(sets[row.planned.printed.dataset].title for row in table.rows if row.planned.server)
    if not titles:
        return []
    return [
        f"Rows on {' and '.join(titles)} show what the evaluation server returned that keeps the objects, for the "
        "seeds that were submitted."
    ]


def protocol_line(protocol: str, runs: Sequence[Run], records: Sequence[Record]) -> str:
    """What the protocol is, for runs of which records are there."""
    versions = _list(record["protocol_version"] for record in records)
    what = PROTOCOLS[protocol]
    if protocol == "paper":
        views = {(run.detector, _view(run)) for run in runs}
        what = what.format(" or ".join(str(side) for side in sorted({side for _, side in views if side})))
        stretched = sorted(title(detector) for detector, side in views if not side)
        what += "".join(f"; {name}: test_input=stretch" for name in stretched)
    else:
        what = what.format(" or ".join(dict.fromkeys(title(run.detector) for run in runs)))
    return f"Protocol: {protocol}, version {versions} ({what})."


def _view(run: Run) -> int | None:
    """The shorter side in pixels that a run of the paper protocol is tested at; None where images are stretched."""
    keys = ("experiment", "test_input", "test_input.shorter", "data.image_size")
    test_input = _test_input(tuple(item for item in run.overrides if item.partition("=")[0] in keys))
    return int(test_input.shorter) if test_input else None


@lru_cache(maxsize=64)
def _test_input(overrides: tuple[str, ...]) -> DictConfig:
    return compose(["protocol=paper", *overrides]).test_input


def run_facts(trained: Iterable[str], records: Sequence[Record], tested: bool = True) -> list[str]:
    """Data, seeds, budget, hardware and code of records. trained: the splits that were learnt from.

    tested: whether what is reported comes from the test split."""
    splits = _list(trained)
    data = {name: [record for record in records if record["data_name"] == name] for name in _names(records)}
    cpu = [record["cpu_seconds"] for record in records]
    return [
        *(_data_facts(name, splits, alike, tested) for name, alike in data.items()),
        f"Seeds: {_list(sorted(record['seed'] for record in records))}.",
        f"Budget of a run: {_range(record['steps'] for record in records)} steps, "
        f"{_range(record['image_passes'] for record in records)} images seen "
        f"({_epochs(records)}), {_range(round(seconds) for seconds in cpu)} CPU seconds of training. "
        f"All {counted(len(records), 'run')}: {sum(cpu) / 60:.0f} CPU minutes.",
        machine(records),
        _commits(records),
    ]


def _names(records: Sequence[Record]) -> list[str]:
    return list(dict.fromkeys(record["data_name"] for record in records))


def _data_facts(name: str, splits: str, records: Sequence[Record], tested: bool) -> str:
    images = [record["num_images"] for record in records]
    hashes = [record["data_hash"].split("-") for record in records]
    test = (
        f", reported on {_list(record['split'] for record in records)} ({_range(n['test'] for n in images)} images, "
        f"{_list(h[1] for h in hashes)})"
    )
    return (
        f"Data: {name}{_drawn(name)}; trained on {splits} ({_range(n['train'] for n in images)} images, annotations "
        f"hashed to {_list(h[0] for h in hashes)}){test if tested else ''}."
    )


@lru_cache(maxsize=16)
def _drawn(name: str) -> str:
    """What a drawn set shows."""
    if not name.startswith("shapes") or not (CONFIG_DIR / "data" / f"{name}.yaml").is_file():
        return ""
    smallest, largest = compose([f"data={name}"]).data.source.sizes
    return f" ({len(OBJECTS)} kinds of drawn shapes, {smallest:g} to {largest:g} pixels across)"


def epochs(record: Recorded) -> float:
    """How often a run has seen its training images."""
    return record["image_passes"] / record["num_images"]["train"]


def _epochs(records: Sequence[Recorded]) -> str:
    done = sorted({float(f"{epochs(record):.3g}") for record in records})
    count = f"{done[0]:g}" if len(done) == 1 else f"{done[0]:g} to {done[-1]:g}"
    return f"{count} epoch{'' if count == '1' else 's'}"


def machine(records: Sequence[Recorded]) -> str:
    """What the records' runs or tests ran on."""
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
    manifest = table.plan.manifest
    columns: dict[str, list[str]] = {}
    for key, cell in manifest.columns.items():
        if "/" not in cell.metric:  # a class's number, as its column says
            columns.setdefault(cell.condition, []).append(f"{key}: {_metric(cell, manifest)}; ")
    lines = [f"{''.join(told)}{CONDITIONS[condition]}." for condition, told in columns.items()]
    lines += [
        f"{printed.label}: {CONDITIONS[row.condition]}."
        for _, printed in manifest.printed()
        if (row := manifest.rows.get(printed.key)) and row.condition
    ]
    tests = table.retests
    if not tests:
        return lines
    versions, seeds = (_list(content[field] for content in tests) for field in ("suite_version", "suite_seed"))
    seconds = sum(content["cpu_seconds"] for content in tests)
    took = f"{seconds / 60:.0f} CPU minutes" if seconds >= 60 else f"{seconds:.0f} CPU seconds"
    lines.append(
        f"Tests of the trained weights: {len(tests)}, {took} in all; version {versions} of the "
        f"suite, its random choices from seed {seeds}, the same for all rows and seeds. {machine(tests)} "
        f"{_commits(tests)}"
    )
    return lines


def _metric(cell: Cell, manifest: Manifest) -> str:
    if not cell.by_set:
        return cell.metric
    return ", ".join(f"{cell.metric_on(key)} on {one.title}" for key, one in manifest.datasets.items())


def _list(values: Iterable[object], separator: str = ", ") -> str:
    return separator.join(dict.fromkeys(str(value) for value in values))


def _range(values: Iterable[int]) -> str:
    low, *_, high = sorted({*values}) * 2
    return f"{low}" if low == high else f"{low} to {high}"
