"""From a manifest to runs: every row's overrides, and the directory each run lies in."""

from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from omegaconf import OmegaConf

from rankdet.config import compose, config_hash, detector_name, option_of, run_directory
from rankdet.errors import UserError
from rankdet.results.datasets import MAIN, MINI, DataChoice, PrintedSet, stand_ins, unquoted
from rankdet.results.manifest import Manifest, ManifestRow
from rankdet.results.registry import PrintedRow, PrintedTable
from rankdet.results.tuning import RETINANET, TUNED_KEYS, Tuning, find_tuning

MISSING = object()
RECORD = "record.json"
Reads = tuple[str, str, str]  # a data set's name, the split that is learnt from, the split that is tested on


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
    test_split: str = "test"

    @property
    def name(self) -> str:
        """<model>-<loss>-<hash>: the part of the directory that seeds share."""
        return self.directory.parent.name

    @property
    def data(self) -> str:
        """The name of the data set that it is trained and tested on."""
        return self.directory.parents[2].name

    @property
    def reads(self) -> Reads:
        """Data set and splits: runs that agree in them are learnt from and tested on the same images."""
        return self.data, self.train_split, self.test_split

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
    """A manifest under one protocol, with the user's own overrides (args) on top.

    data: what stands for the table's main data set. whole: whether each row is on its own data set; otherwise those on
    others than the main one are left out. tunings: (detector, data set) -> tuned settings, where there are any."""

    manifest: Manifest
    protocol: str
    data: DataChoice
    args: tuple[str, ...]
    tunings: dict[tuple[str, str], Tuning]
    rows: tuple[PlannedRow, ...]
    whole: bool = False

    @property
    def file_stem(self) -> str:
        """table-2.mini; on data that stand for the main data set alone: table-2.bccd, table-2.bccd.mini_long; with
        args their hash, too."""
        parts = [self.manifest.name]
        parts += [] if self.whole else [self.data.name]
        parts += [self.protocol] if self.whole or self.protocol != "mini" else []
        parts += [f"args-{sha256(chr(0).join(self.args).encode()).hexdigest()[:8]}"] if self.args else []
        return ".".join(parts)

    @property
    def data_names(self) -> tuple[str, ...]:
        """What the rows' runs are trained and tested on; the main one where there are no runs."""
        return tuple(dict.fromkeys(run.data for row in self.rows for run in row.runs)) or (self.data.name,)

    @property
    def on(self) -> str:
        """The same, for a sentence."""
        return ", ".join(self.data_names)

    def runs(self) -> list[Run]:
        """Each run once; the first seed of all rows before the second, so that a broken-off table is a fair one."""
        distinct = {run.directory: run for row in self.rows for run in row.runs}
        return sorted(distinct.values(), key=lambda run: self.manifest.seeds.index(run.seed))


def make_plan(
    manifest: Manifest, protocol: str, data: DataChoice | None, root: Path, args: tuple[str, ...] = ()
) -> Plan:
    """Composes every row's config. data: what DATA= asked for, see stand_ins; None: each row's own data set.

    root: the checkout, where runs/ and experiments/ lie. Nothing of the data is read."""
    if protocol not in (*MINI, "paper"):
        raise UserError(f"PROTOCOL={protocol}: no such protocol; there are {', '.join(MINI)} and paper")
    for item in args:
        if item.partition("=")[0] in ("seed", "experiment", "protocol", "data", "data.root", "loss"):
            raise UserError(f"ARGS: {item!r} is chosen by the table; see PROTOCOL=, DATA=, and the manifest's seeds")
    chosen = stand_ins(manifest.datasets.values(), protocol, data)
    tunings: dict[tuple[str, str], Tuning] = {}
    concerned: set[str] = set()
    runs: dict[tuple[str, str], tuple[Run, ...]] = {}
    rows = []
    for table, printed in manifest.printed():
        entry = manifest.rows.get(printed.key)
        why = _why_not(entry, protocol)
        if why is None and printed.dataset not in chosen:
            assert data is not None
            stands_for = manifest.datasets[next(iter(chosen))].title
            why = f"on {manifest.datasets[printed.dataset].title}; DATA={data.name} stands for {stands_for}"
        if entry is not None and why is None:
            first = entry.trained_as, printed.dataset
            if first not in runs:
                own = tuple(item for item in args if _concerns(entry, item))
                concerned.update(own)
                on = chosen[printed.dataset], manifest.datasets[printed.dataset]
                runs[first] = _runs(manifest, entry, protocol, *on, tunings, own, root)
        planned = runs[entry.trained_as, printed.dataset] if entry is not None and why is None else ()
        rows.append(PlannedRow(table, printed, planned, why, entry.same_run_as if entry else None))
    for item in args:
        if runs and item not in concerned:
            raise UserError(f"ARGS: {item!r}: no loss of this table has that setting")
    whole = chosen == stand_ins(manifest.datasets.values(), protocol, None)
    main = chosen.get(MAIN) or next(iter(chosen.values()))
    return Plan(manifest, protocol, main, args, tunings, tuple(rows), whole)


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
    printed_set: PrintedSet,
    tunings: dict[tuple[str, str], Tuning],
    args: tuple[str, ...],
    root: Path,
) -> tuple[Run, ...]:
    """Adds to tunings what it looks up."""
    shared = manifest.under(protocol)
    head = (
        f"experiment={manifest.experiment}",
        f"protocol={protocol}",
        *data.overrides,
        *printed_set.settings_under(protocol),
    )
    by_hand = merge_overrides(shared, row.under(protocol), args)
    found = _tuned_settings(detector_of((*head, *by_hand)), row.loss, data, tunings, root) if protocol in MINI else ()
    overrides = merge_overrides(head, shared, found, row.under(protocol), args)
    tuned = tuple(item for item in found if item.partition("=")[0] not in {own.partition("=")[0] for own in by_hand})
    return make_runs(row.trained_as, overrides, manifest.seeds, root, tuned)


def _tuned_settings(
    detector: str, loss: str, data: DataChoice, tunings: dict[tuple[str, str], Tuning], root: Path
) -> tuple[str, ...]:
    where = detector, data.name
    if where not in tunings:
        tuning = find_tuning(root, data.name, detector)
        if tuning is None:
            return ()
        tunings[where] = tuning
    settings = tunings[where].losses.get(loss, {})
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
    folder, digest, version, *rest = _composed(overrides, seeds[0])
    return tuple(
        Run(overrides, seed, root / folder / f"seed{seed}", digest, version, label, tuned, *rest) for seed in seeds
    )


@lru_cache(maxsize=1024)
def _composed(overrides: tuple[str, ...], seed: int) -> tuple[Path, str, int, str, str, str]:
    """What a run's config says of it: folder of its seeds, hash, protocol version, split, detector, test split."""
    cfg = compose([*overrides, f"seed={seed}"])
    version, split = int(cfg.protocol.version), str(cfg.splits.train)
    return run_directory(cfg).parent, config_hash(cfg), version, split, detector_name(cfg), str(cfg.splits.test)


def merge_overrides(*parts: tuple[str, ...]) -> tuple[str, ...]:
    """All parts in order; a key's later value takes the place of its earlier one (Hydra refuses doubles)."""
    merged: dict[str, str] = {}
    for item in (item for part in parts for item in part):
        key = item.partition("=")[0]
        merged[key] = item
    return tuple(merged.values())
