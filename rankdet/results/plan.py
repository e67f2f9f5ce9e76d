"""From a manifest to runs: every row's overrides, the directory each run lies in, and the command that trains it."""

import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from omegaconf import OmegaConf

from rankdet.config import CONFIG_DIR, compose, config_hash, run_directory
from rankdet.data.layout import detect_source
from rankdet.errors import UserError
from rankdet.results.manifest import Manifest, ManifestRow
from rankdet.results.registry import PrintedRow, PrintedTable
from rankdet.results.tuning import TUNED_KEYS, Tuning, find_tuning

MISSING = object()
MINI = ("mini", "mini_long")
RECORD = "record.json"


@dataclass(frozen=True)
class DataChoice:
    """What DATA= asked for, as overrides. name is what run directories and tables call it."""

    name: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Run:
    """One training: seed and overrides determine it, config_hash is over everything but the seed."""

    overrides: tuple[str, ...]
    seed: int
    directory: Path
    config_hash: str
    protocol_version: int
    label: str  # what it is called while it runs: its row, its setting
    tuned: tuple[str, ...]  # those of the overrides that were found by tuning
    train_split: str

    @property
    def name(self) -> str:
        """<model>-<loss>-<hash>: the part of the directory that seeds share."""
        return self.directory.parent.name

    @property
    def data_root(self) -> str | None:
        """The folder of the data, None where the overrides leave it to the config."""
        found = [item for item in self.overrides if item.startswith("data.root=")]
        return unquoted(found[0].removeprefix("data.root=")) if found else None

    @property
    def finished(self) -> bool:
        """Whether its record is there, which a run writes last."""
        return (self.directory / RECORD).is_file()


@dataclass(frozen=True)
class PlannedRow:
    """A printed row and the runs behind ours; no runs: why says so."""

    table: PrintedTable
    printed: PrintedRow
    runs: tuple[Run, ...]
    why: str | None
    same_run_as: str | None


@dataclass(frozen=True)
class Plan:
    """A manifest under one protocol, on one data set, with the user's own overrides (args) on top."""

    manifest: Manifest
    protocol: str
    data: DataChoice
    args: tuple[str, ...]
    tuning: Tuning | None
    rows: tuple[PlannedRow, ...]

    @property
    def file_stem(self) -> str:
        """table-2.mini, table-2.mini_long; other data: table-2.bccd, table-2.bccd.mini_long; with args: their hash."""
        parts = [self.manifest.name]
        parts += [] if self.data.name == "shapes" else [self.data.name]
        parts += [self.protocol] if self.data.name == "shapes" or self.protocol != "mini" else []
        parts += [f"args-{sha256(chr(0).join(self.args).encode()).hexdigest()[:8]}"] if self.args else []
        return ".".join(parts)

    def runs(self) -> list[Run]:
        """Each run once; the first seed of all rows before the second, so that a broken-off table is a fair one."""
        distinct = {run.directory: run for row in self.rows for run in row.runs}
        return sorted(distinct.values(), key=lambda run: self.manifest.seeds.index(run.seed))


def choose_data(data: str) -> DataChoice:
    """DATA=shapes, voc0712 or another set of configs/data, or a folder in VOC or COCO layout, as overrides.

    UserError for anything else.
    """
    sets = sorted({path.stem for path in (CONFIG_DIR / "data").glob("*.yaml")} - {"voc", "coco"})
    if data in sets:
        return DataChoice(data, (f"data={data}",))
    folder = Path(data).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"DATA={data}: no such folder; give one in Pascal VOC or COCO layout, or one of {', '.join(sets)}"
        )
    folder = folder.resolve()
    if folder.name in sets:
        raise UserError(f"DATA={data}: runs and tables would bear the name of data={folder.name}; rename the folder")
    return DataChoice(folder.name, (f"data={detect_source(folder)}", f"data.root={quoted(str(folder))}"))


def quoted(text: str) -> str:
    """text as Hydra's grammar wants it: in quotes where it holds a comma, a blank, = or the like."""
    if re.fullmatch(r"[\w./-]+", text, re.ASCII):
        return text
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def unquoted(text: str) -> str:
    """The inverse of quoted."""
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith("'") else text


def make_plan(manifest: Manifest, protocol: str, data: DataChoice, root: Path, args: tuple[str, ...] = ()) -> Plan:
    """Composes every row's config. root: the checkout, where runs/ and experiments/ lie."""
    if protocol not in (*MINI, "paper"):
        raise UserError(f"PROTOCOL={protocol}: no such protocol; there are {', '.join(MINI)} and paper")
    if protocol == "paper" and data.name == "shapes":
        raise UserError("PROTOCOL=paper: the drawn set is for mini; give DATA=path/to/VOC")
    for item in args:
        if item.partition("=")[0] in ("seed", "experiment", "protocol", "data", "data.root", "loss"):
            raise UserError(f"ARGS: {item!r} is chosen by the table; see PROTOCOL=, DATA=, and the manifest's seeds")
    tuning = find_tuning(root, data.name) if protocol in MINI else None
    concerned: set[str] = set()
    runs: dict[str, tuple[Run, ...]] = {}
    rows = []
    for table, printed in manifest.printed():
        entry = manifest.rows.get(printed.key)
        why = _why_not(entry, protocol)
        if entry is not None and why is None:
            first = entry.trained_as
            if first not in runs:
                own = tuple(item for item in args if _concerns(entry, item))
                concerned.update(own)
                runs[first] = _runs(manifest, entry, protocol, data, tuning, own, root)
        planned = runs[entry.trained_as] if entry is not None and why is None else ()
        rows.append(PlannedRow(table, printed, planned, why, entry.same_run_as if entry else None))
    for item in args:
        if runs and item not in concerned:
            raise UserError(f"ARGS: {item!r}: no loss of this table has that setting")
    return Plan(manifest, protocol, data, args, tuning, tuple(rows))


def _concerns(row: ManifestRow, item: str) -> bool:
    """Whether an override is for this row: loss.<key> is for the rows whose loss has that key, the others for all."""
    key = item.partition("=")[0]
    return (
        not key.startswith("loss.")
        or OmegaConf.select(compose([f"loss={row.loss}"]), key, default=MISSING) is not MISSING
    )


def _why_not(entry: ManifestRow | None, protocol: str) -> str | None:
    if entry is None:
        return "quoted by the paper from elsewhere"
    if protocol in MINI:
        return entry.reason
    return None if entry.paper else "not in the paper protocol yet"


def _runs(
    manifest: Manifest,
    row: ManifestRow,
    protocol: str,
    data: DataChoice,
    tuning: Tuning | None,
    args: tuple[str, ...],
    root: Path,
) -> tuple[Run, ...]:
    shared = manifest.mini_overrides if protocol in MINI else ()
    settings = tuning.losses.get(row.loss, {}) if tuning else {}
    found = tuple(f"{key}={settings[key]}" for key in TUNED_KEYS if key in settings)
    head = (f"experiment={manifest.experiment}", f"protocol={protocol}", *data.overrides)
    overrides = merge_overrides(head, shared, found, row.overrides, args)
    by_hand = merge_overrides(shared, row.overrides, args)
    tuned = tuple(item for item in found if item.partition("=")[0] not in {own.partition("=")[0] for own in by_hand})
    return make_runs(row.trained_as, overrides, manifest.seeds, root, tuned)


def make_runs(
    label: str, overrides: tuple[str, ...], seeds: tuple[int, ...], root: Path, tuned: tuple[str, ...] = ()
) -> tuple[Run, ...]:
    """The runs of one config, a seed each. tuned: which of the overrides tuning found."""
    cfg = compose([*overrides, f"seed={seeds[0]}"])
    parent = root / run_directory(cfg).parent
    shared = (config_hash(cfg), int(cfg.protocol.version), label, tuned, str(cfg.splits.train))
    return tuple(Run(overrides, seed, parent / f"seed{seed}", *shared) for seed in seeds)


def merge_overrides(*parts: tuple[str, ...]) -> tuple[str, ...]:
    """All parts in order; a key's later value takes the place of its earlier one (Hydra refuses doubles)."""
    merged: dict[str, str] = {}
    for item in (item for part in parts for item in part):
        key = item.partition("=")[0]
        merged[key] = item
    return tuple(merged.values())
