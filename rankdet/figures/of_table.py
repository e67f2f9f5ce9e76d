"""The runs of a table's rows, for figures that are drawn from them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rankdet.errors import UserError
from rankdet.figures.content import Edition
from rankdet.figures.manifest import FigureManifest
from rankdet.figures.specs import RowPoints, RowRuns
from rankdet.results.datasets import MINI, DataChoice
from rankdet.results.describe_tuning import tuning_lines
from rankdet.results.manifest import load_manifest
from rankdet.results.plan import Plan, PlannedRow, make_plan
from rankdet.results.registry import load_registry
from rankdet.results.runs import Run, make_runs, merge_overrides


@dataclass(frozen=True)
class TablePlan:
    """A figure's manifest with the plan of the table that it names."""

    manifest: FigureManifest
    table: Plan
    root: Path

    @property
    def edition(self) -> Edition:
        """The table's, with the figure's name for its own."""
        stem = self.table.file_stem.replace(self.table.manifest.name, self.manifest.name, 1)
        return Edition(stem, self.table.protocol, self.table.data.name)

    @property
    def records(self) -> Path:
        """Where the runs' records are published."""
        return self.root / "experiments" / "records" / self.table.data.name / self.table.protocol

    def row(self, name: str, where: str) -> PlannedRow:
        """UserError naming the manifest where the table has no such row, or none with runs."""
        for row in self.table.rows:
            if row.printed.key == name and row.runs:
                return row
        raise UserError(f"{self.manifest.path}: {where}: {name!r} is no row with runs of the table")

    def series(self) -> dict[str, tuple[Run, ...]]:
        """Series -> its row's runs, those of the table itself where the manifest asks for nothing else."""
        return {
            key: self.runs(one.rows[0], f"series.{key}.row", one.label) for key, one in self.manifest.series.items()
        }

    def runs(self, name: str, where: str, label: str) -> tuple[Run, ...]:
        """One row's, a seed each."""
        spec = self.manifest.spec
        assert isinstance(spec, RowRuns)
        runs = self.row(name, where).runs
        extra = spec.extra["mini" if self.table.protocol in MINI else "paper"]
        if not extra:
            return runs
        own = tuple(item for item in self.table.args if item in runs[0].overrides)  # the user's come last
        overrides = merge_overrides(runs[0].overrides, extra, own)
        return make_runs(label, overrides, tuple(run.seed for run in runs), self.root, runs[0].tuned)

    def settings(self, runs: Sequence[Run]) -> list[str]:
        """What the table says of the settings of these runs."""
        return tuning_lines(self.table, list(runs)) if self.table.protocol in MINI else []


@dataclass
class OfTable:
    """A figure of any kind that is drawn from a table's rows."""

    of: TablePlan

    @property
    def edition(self) -> Edition:
        """The table's."""
        return self.of.edition


def plan_of_table(
    manifest: FigureManifest, protocol: str, data: DataChoice | None, root: Path, args: tuple[str, ...] = ()
) -> TablePlan:
    """The plan of the table that the manifest names; UserError as for the table itself."""
    assert isinstance(manifest.spec, RowPoints | RowRuns)
    registry = load_registry(root / "experiments" / "registry.yaml")
    table = load_manifest(manifest.path.with_name(f"{manifest.spec.table}.yaml"), registry)
    return TablePlan(manifest, make_plan(table, protocol, data, root, args), root)


def first_seed_first(series: dict[str, tuple[Run, ...]]) -> list[Run]:
    """All runs, the first seed of every series before the second."""
    return [run for of_seed in zip(*series.values(), strict=True) for run in of_seed]
