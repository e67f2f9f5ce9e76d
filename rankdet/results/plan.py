"""From a manifest to runs: every row's overrides, the directory each run lies in, and the command that trains it."""

import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from rankdet.config import CONFIG_DIR, compose, config_hash, detector_name, option_of, run_directory
from rankdet.data.layout import detect_source
from rankdet.errors import UserError
from rankdet.results.manifest import Manifest, ManifestRow
from rankdet.results.registry import PrintedRow, PrintedTable
from rankdet.results.tuning import RETINANET, TUNED_KEYS, Tuning, find_tuning

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
    detector: str = RETINANET

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
    """A manifest under one protocol, on one data set, with the user's own overrides (args) on top.

    tunings: detector -> its tuned settings, for the detectors of rows that have any."""

    manifest: Manifest
    protocol: str
    data: DataChoice
    args: tuple[str, ...]
    tunings: dict[str, Tuning]
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
    tunings: dict[str, Tuning] = {}
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
                runs[first] = _runs(manifest, entry, protocol, data, tunings, own, root)
        planned = runs[entry.trained_as] if entry is not None and why is None else ()
        rows.append(PlannedRow(table, printed, planned, why, entry.same_run_as if entry else None))
    for item in args:
        if runs and item not in concerned:
            raise UserError(f"ARGS: {item!r}: no loss of this table has that setting")
    return Plan(manifest, protocol, data, args, tunings, tuple(rows))


def _concerns(row: ManifestRow, item: str) -> bool:
    """Whether an override is for this row: loss.<key> is for the rows whose loss has that key, the others for all."""
    group, _, key = item.partition("=")[0].partition(".")
    if group != "loss":
        return True
    return OmegaConf.select(OmegaConf.create(option_of("loss", row.loss)), key, default=MISSING) is not MISSING


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
    tunings: dict[str, Tuning],
    args: tuple[str, ...],
    root: Path,
) -> tuple[Run, ...]:
    """Adds to tunings what it looks up."""
    shared = manifest.under(protocol)
    head = (f"experiment={manifest.experiment}", f"protocol={protocol}", *data.overrides)
    by_hand = merge_overrides(shared, row.under(protocol), args)
    found = _tuned_settings(detector_of((*head, *by_hand)), row.loss, data, tunings, root) if protocol in MINI else ()
    overrides = merge_overrides(head, shared, found, row.under(protocol), args)
    tuned = tuple(item for item in found if item.partition("=")[0] not in {own.partition("=")[0] for own in by_hand})
    return make_runs(row.trained_as, overrides, manifest.seeds, root, tuned)


def _tuned_settings(
    detector: str, loss: str, data: DataChoice, tunings: dict[str, Tuning], root: Path
) -> tuple[str, ...]:
    if detector not in tunings:
        tuning = find_tuning(root, data.name, detector)
        if tuning is None:
            return ()
        tunings[detector] = tuning
    settings = tunings[detector].losses.get(loss, {})
    return tuple(f"{key}={settings[key]}" for key in TUNED_KEYS if key in settings)


def detector_of(overrides: tuple[str, ...]) -> str:
    """The detector that overrides choose, by the name it has in run directories."""
    return _detector_of(tuple(item for item in overrides if item.partition("=")[0] in ("protocol", "model")))


@lru_cache(maxsize=64)
def _detector_of(overrides: tuple[str, ...]) -> str:
    return detector_name(compose(list(overrides)))


def make_runs(
    label: str, overrides: tuple[str, ...], seeds: tuple[int, ...], root: Path, tuned: tuple[str, ...] = ()
) -> tuple[Run, ...]:
    """The runs of one config, a seed each. tuned: which of the overrides tuning found."""
    folder, digest, version, split, detector = _composed(overrides)
    return tuple(
        Run(overrides, seed, root / folder / f"seed{seed}", digest, version, label, tuned, split, detector)
        for seed in seeds
    )


@lru_cache(maxsize=1024)
def config_of(overrides: tuple[str, ...]) -> DictConfig:
    """The config of a run but for its seed; do not write into it."""
    return compose([*overrides])


@lru_cache(maxsize=1024)
def _composed(overrides: tuple[str, ...]) -> tuple[Path, str, int, str, str]:
    """What a run's config says of it: the folder of its seeds, hash, protocol version, split, detector."""
    cfg = config_of(overrides)
    version, split = int(cfg.protocol.version), str(cfg.splits.train)
    return run_directory(cfg).parent, config_hash(cfg), version, split, detector_name(cfg)


def merge_overrides(*parts: tuple[str, ...]) -> tuple[str, ...]:
    """All parts in order; a key's later value takes the place of its earlier one (Hydra refuses doubles)."""
    merged: dict[str, str] = {}
    for item in (item for part in parts for item in part):
        key = item.partition("=")[0]
        merged[key] = item
    return tuple(merged.values())
