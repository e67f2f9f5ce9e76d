"""Made-up plans and records for the tests of the results, and one run that is really trained."""

import json
from pathlib import Path
from zlib import crc32

import tiny

from rankdet import train
from rankdet.config import compose, run_directory
from rankdet.results.datasets import DataChoice
from rankdet.results.manifest import Manifest, ManifestRow
from rankdet.results.plan import Plan, PlannedRow
from rankdet.results.registry import PrintedRow, PrintedTable
from rankdet.results.runs import Run

REPO = Path(__file__).resolve().parents[1]


def printed_row(key, ap, ap50=None):
    values = {"AP": ap, "AP50": ap50}
    return PrintedRow(key, f"Row {key}", False, "voc", None, None, values, None)


def printed_table(*rows, id="paper/table-9"):
    columns = {"AP": "AP", "AP50": "AP50"}
    return PrintedTable(id, "Made up", "measured", columns, {row.key: row for row in rows})


def make_run(root, key, seed=0, config_hash=None, version=1, tuned=(), extra=(), detector="retinanet"):
    config_hash = config_hash or f"{crc32(key.encode()):08x}"
    overrides = ("experiment=ap_table_2", f"loss={key}", *extra, *tuned)
    directory = Path(root) / "runs" / "made" / "mini" / f"net-{key}-{config_hash}" / f"seed{seed}"
    return Run(overrides, seed, directory, config_hash, version, key, tuple(tuned), "trainval", detector)


def make_plan(root, table, seeds=(0, 1, 2), why=None, args=(), tunings=None, **run_options):
    """One row of runs per printed row; why: key -> reason why not."""
    why = why or {}
    rows, entries = [], {}
    for key, printed in table.rows.items():
        runs = () if key in why else tuple(make_run(root, key, seed, **run_options) for seed in seeds)
        rows.append(PlannedRow(table, printed, runs, why.get(key), None))
        entries[key] = ManifestRow(key, (f"loss={key}",), key not in why, False, why.get(key), None)
    manifest = Manifest(Path("table-9.yaml"), "paper", "table-9", (table,), "e", tuple(seeds), (), (), entries)
    return Plan(manifest, "mini", DataChoice("made", ("data=made",)), tuple(args), tunings or {}, tuple(rows))


def record_content(run, ap, **changes):
    """What a run of this kind records; ap in 0..1."""
    content = {
        "config_hash": run.config_hash, "data_name": "made", "data_hash": "aaaa-bbbb", "protocol_name": "mini",
        "protocol_version": run.protocol_version, "seed": run.seed, "split": "test", "steps": 500, "planned_steps": 500,
        "image_passes": 4000, "num_images": {"train": 40, "test": 20},
        "threads": 1, "train_seconds": 40.0, "cpu_seconds": 39.0, "commit": "abc123",
        "dirty": False, "torch": "2.15.0", "hardware": "A CPU, 2 cores", "date": "2026-01-02",
        "metrics": {"AP": ap, "AP50": ap * 2},
    }  # fmt: skip
    return content | changes


def write_record(run, ap, **changes):
    run.directory.mkdir(parents=True, exist_ok=True)
    (run.directory / "record.json").write_text(json.dumps(record_content(run, ap, **changes)))


def trained_run(folder):
    """A run of 4 steps in `folder`, trained and finished, as a plan would have it."""
    arguments = tiny.overrides(folder, "schedule.length=16", "schedule.milestones=[]", "splits.monitor=null")
    done = tiny.call(train.main, arguments)
    assert done.code == 0, done.err
    return Run((), 0, run_directory(compose(arguments)), "aaaaaaaa", 1, "tiny", (), "train")
