"""Publishing: small records of finished runs under experiments/records/, and the tables that follow from them alone."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rankdet.errors import UserError
from rankdet.files import write_text
from rankdet.results.datasets import DataChoice
from rankdet.results.manifest import load_manifest
from rankdet.results.output import save_table
from rankdet.results.plan import Plan, make_plan
from rankdet.results.reading import check_keys, read_json, read_yaml
from rankdet.results.records import Record, published_records, read_finished, superseded
from rankdet.results.registry import load_registry
from rankdet.results.retests import (
    FOLDER,
    Retest,
    file_hash,
    has_retests,
    planned_retests,
    published,
    read_finished_retest,
    with_retests,
)  # fmt: skip
from rankdet.results.runs import Run
from rankdet.results.submissions import with_returned_alone
from rankdet.results.tables import Table, collect


@dataclass(frozen=True)
class Published:
    """One line of experiments/published.yaml."""

    paper: str
    name: str  # of its manifest: table-2
    protocol: str
    data: DataChoice | None  # None: each row's own


def publish(root: Path) -> list[Path]:
    """Copies what is finished in runs/, then writes every published table; returns the tables' files.

    Tables come from the committed records and settings alone, so that an unchanged state changes no byte."""
    entries = load_published(root / "experiments" / "published.yaml", "table")
    paths: list[Path] = []
    for entry in entries:
        plan = _plan(entry, root)
        copy_tunings(plan, root / "experiments" / "tuning")
        for folder, runs in by_folder(plan, root).items():
            copy_records(runs, folder)
            retests = planned_retests(plan)
            copy_retests({run: retests[run] for run in runs}, folder)
        paths += save_table(_table(plan, root), root / "experiments" / entry.paper)
    return paths


def by_folder(plan: Plan, root: Path) -> dict[Path, list[Run]]:
    """Where the plan's records are published, one folder for each data set, and the runs whose they are."""
    folders: dict[Path, list[Run]] = {}
    for run in plan.runs():
        folders.setdefault(root / "experiments" / "records" / run.data / plan.protocol, []).append(run)
    return folders


def load_published(path: Path, what: str) -> list[Published]:
    """Reads and checks the list, and returns its tables or figures, which what says; UserError naming file and key."""
    raw = read_yaml(path)
    if not isinstance(raw, list):
        raise UserError(f"{path}: expected a list of tables")
    entries = []
    for item in raw:
        kind = "figure" if isinstance(item, dict) and "figure" in item else "table"
        item = check_keys(item, str(path), ("paper", kind, "protocol"), ("data", "source"))
        if kind == what:
            entries.append(Published(item["paper"], item[kind], item["protocol"], _data(item)))
    return entries


def _data(item: Mapping[str, str]) -> DataChoice | None:
    if "data" not in item:
        return None
    name = str(item["data"])
    return DataChoice(name, (f"data={item['source']}", f"data.root={name}") if "source" in item else (f"data={name}",))


def published_table(entry: Published, root: Path) -> Table:
    """One table of the list, from the committed records and settings alone."""
    return _table(_plan(entry, root), root)


def copy_tunings(plan: Plan, folder: Path) -> None:
    """Copies the tuned settings that the plan found for its own data, which may be fresh ones."""
    for (_, data), tuning in plan.tunings.items():
        if tuning.data == data:
            write_text(folder / tuning.path.name, tuning.path.read_text(encoding="utf-8"))


def copy_records(runs: Iterable[Run], folder: Path) -> None:
    """Writes <run name>-seed<k>.json for every finished run, and removes those of the same row that it replaces.

    A published record also says which overrides made it: a later version recognises its row by them."""
    for run in runs:
        if not run.finished:
            continue
        record = read_finished(run.directory)
        overrides = [item for item in run.overrides if not item.startswith("data.root=")]
        content = record.content | {"overrides": overrides, "tuned": list(run.tuned)}
        older = superseded(run, published_records(folder))
        write_text(folder / f"{run.name}-seed{run.seed}.json", canonical_json(content))
        for record in older:
            record.path.unlink()


def copy_retests(retests: Mapping[Run, Sequence[Retest]], folder: Path) -> None:
    """Adds the tests found in runs' directories to retests/<run name>-seed<k>.json, test name -> record.

    Of a training that is here, those of other weights go: it was done again. So do the files of trainings whose record
    is no longer there."""
    for run, wanted in retests.items():
        found = {retest.name: read_finished_retest(run.directory, retest) for retest in wanted if run.finished}
        path = folder / FOLDER / f"{run.name}-seed{run.seed}.json"
        before = read_json(path) if path.is_file() else {}
        tests = before | {name: content for name, content in found.items() if content is not None}
        weights = run.directory / "weights.pt"
        if run.finished and weights.is_file():
            own = file_hash(weights)
            tests = {name: content for name, content in tests.items() if content["weights_hash"] == own}
        if tests:
            write_text(path, canonical_json(tests))
        else:
            path.unlink(missing_ok=True)
    for path in (folder / FOLDER).glob("*.json"):
        if not (folder / path.name).is_file():
            path.unlink()


def canonical_json(content: dict[str, object]) -> str:
    """Sorted and indented: equal content is equal bytes, and a change shows as the lines it changed."""
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _plan(entry: Published, root: Path) -> Plan:
    registry = load_registry(root / "experiments" / "registry.yaml")
    manifest = load_manifest(root / "experiments" / entry.paper / f"{entry.name}.yaml", registry)
    return make_plan(manifest, entry.protocol, entry.data, root)


def _table(plan: Plan, root: Path) -> Table:
    records: list[Record] = [record for folder in by_folder(plan, root) for record in published_records(folder)]
    table = collect(plan, records)
    return with_returned_alone(with_retests(table, published) if has_retests(plan.manifest) else table)
