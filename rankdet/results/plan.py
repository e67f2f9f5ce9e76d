"""From a manifest to runs: which trainings stand behind every row."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from omegaconf import OmegaConf

from rankdet.config import option_of
from rankdet.errors import UserError
from rankdet.results.datasets import MAIN, MINI, DataChoice, stand_ins
from rankdet.results.manifest import Manifest, ManifestRow
from rankdet.results.registry import PrintedRow, PrintedTable
from rankdet.results.runs import Run, detector_of, make_runs, merge_overrides, of_args, start_from
from rankdet.results.tuning import TUNED_KEYS, Tuning, find_tuning
from rankdet.search.lookup import searched

MISSING = object()


@dataclass(frozen=True)
class PlannedRow:
    """A printed row and the runs behind ours; no runs: why says so. server: the evaluation server that measures it."""

    table: PrintedTable
    printed: PrintedRow
    runs: tuple[Run, ...]
    why: str | None
    same_run_as: str | None
    server: str | None = None


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
        return ".".join([*parts, *of_args(self.args)])

    @property
    def data_names(self) -> tuple[str, ...]:
        """What the rows' runs are trained and tested on; the main one where there are no runs."""
        return tuple(dict.fromkeys(run.data for row in self.rows for run in row.runs)) or (self.data.name,)

    @property
    def on(self) -> str:
        """The same, for a sentence."""
        return ", ".join(self.data_names)

    def runs(self) -> list[Run]:
        """Each run once, after those that it starts from; the first seed of all rows before the second, so that a
        broken-off table is a fair one."""
        distinct: dict[Path, Run] = {}
        for run in (run for row in self.rows for run in row.runs):
            distinct |= {one.directory: one for one in [*run.before(), run]}
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
    planner = _Planner(protocol, args, root)
    runs: dict[tuple[str, str], tuple[Run, ...]] = {}
    rows = []
    for table, printed in manifest.printed():
        entry = manifest.rows.get(printed.key)
        why = planner.why_not(entry)
        if why is None and printed.dataset not in chosen:
            assert data is not None
            stands_for = manifest.datasets[next(iter(chosen))].title
            why = f"on {manifest.datasets[printed.dataset].title}; DATA={data.name} stands for {stands_for}"
        if entry is not None and why is None:
            first = entry.trained_as, printed.dataset
            if first not in runs:
                runs[first] = planner.runs(manifest, entry, printed.dataset, chosen[printed.dataset], manifest.seeds)
        planned = runs[entry.trained_as, printed.dataset] if entry is not None and why is None else ()
        server = _server(manifest, printed, protocol, chosen) if planned else None
        rows.append(PlannedRow(table, printed, planned, why, entry.same_run_as if entry else None, server))
    for item in args:
        if runs and item not in planner.concerned:
            raise UserError(f"ARGS: {item!r}: no loss of this table has that setting")
    whole = chosen == stand_ins(manifest.datasets.values(), protocol, None)
    main = chosen.get(MAIN) or next(iter(chosen.values()))
    return Plan(manifest, protocol, main, args, planner.tunings, tuple(rows), whole)


def _server(manifest: Manifest, printed: PrintedRow, protocol: str, chosen: Mapping[str, DataChoice]) -> str | None:
    """Who measures a row's detections, where its test split is one without objects."""
    one = manifest.datasets[printed.dataset]
    return one.server if protocol == "paper" and chosen[printed.dataset] == one.paper else None


def _concerns(row: ManifestRow, item: str) -> bool:
    """Whether an override is for this row: loss.<key> is for the rows whose loss has that key, the others for all."""
    group, _, key = item.partition("=")[0].partition(".")
    if group != "loss":
        return True
    return OmegaConf.select(OmegaConf.create(option_of("loss", row.loss)), key, default=MISSING) is not MISSING


@dataclass
class _Planner:
    """Rows' runs under one protocol. tunings, functions: what was looked up for them, the latter by the search that
    found them; concerned: those of args that any took."""

    protocol: str
    args: tuple[str, ...]
    root: Path
    tunings: dict[tuple[str, str], Tuning] = field(default_factory=dict)
    functions: dict[str, tuple[str, ...]] = field(default_factory=dict)
    concerned: set[str] = field(default_factory=set)

    def why_not(self, row: ManifestRow | None) -> str | None:
        """Why there are no runs behind a printed row; None: there are."""
        if row is None:
            return "quoted by the paper from elsewhere"
        if self.protocol in MINI and row.reason is not None:
            return row.reason
        if self.protocol not in MINI and not row.paper:
            return "not in the paper protocol yet"
        if row.searched_by is not None and not self._functions(row.searched_by):
            found_under = "" if self.protocol in MINI else f" PROTOCOL={self.protocol}"
            return f"its functions are to be searched first: make search-pap SEARCH={row.searched_by}{found_under}"
        return None

    def runs(
        self, manifest: Manifest, row: ManifestRow, printed_set: str, data: DataChoice, seeds: tuple[int, ...]
    ) -> tuple[Run, ...]:
        """A seed each. data: what stands for printed_set."""
        own = tuple(item for item in self.args if _concerns(row, item))
        self.concerned.update(own)
        shared, special = manifest.under(self.protocol), row.under(self.protocol)
        head = (f"experiment={manifest.experiment}", f"protocol={self.protocol}", *data.overrides)
        head += manifest.datasets[printed_set].settings_under(self.protocol)
        functions = () if row.searched_by is None else self._functions(row.searched_by)
        by_hand = merge_overrides(shared, special, functions, own)
        found = self._tuned(detector_of((*head, *by_hand)), row.loss, data)
        overrides = merge_overrides(head, shared, found, special, functions, own)
        fixed = {item.partition("=")[0] for item in by_hand}
        tuned = tuple(item for item in found if item.partition("=")[0] not in fixed)
        runs = make_runs(row.trained_as, overrides, seeds, self.root, tuned)
        if row.start_from is None:
            return runs
        first = self._first(manifest, row.start_from, seeds)
        return tuple(start_from(run, before, self.root) for run, before in zip(runs, first, strict=True))

    def _first(self, manifest: Manifest, address: str, seeds: tuple[int, ...]) -> tuple[Run, ...]:
        """The runs of a row of another manifest, on that row's own data set, with these seeds."""
        name, _, key = address.partition("#")
        other = manifest.sources[name]
        printed_set = other.dataset_of(key)
        data = other.datasets[printed_set].own(self.protocol)
        runs = self.runs(other, other.rows[key], printed_set, data, seeds)
        return tuple(replace(run, label=address) for run in runs)

    def _functions(self, search: str) -> tuple[str, ...]:
        if search not in self.functions:
            self.functions[search] = searched(search, self.protocol, self.root)
        return self.functions[search]

    def _tuned(self, detector: str, loss: str, data: DataChoice) -> tuple[str, ...]:
        if self.protocol not in MINI:
            return ()
        where = detector, data.name
        if where not in self.tunings:
            tuning = find_tuning(self.root, data.name, detector)
            if tuning is None:
                return ()
            self.tunings[where] = tuning
        settings = self.tunings[where].losses.get(loss, {})
        return tuple(f"{key}={settings[key]}" for key in TUNED_KEYS if key in settings)
