"""From a figure's manifest to its trainings: which there are, and which have to wait for others."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from rankdet.errors import UserError
from rankdet.figures.curves import Finder, LoggedRun, converged
from rankdet.figures.manifest import FigureManifest, Series
from rankdet.figures.outcome import Outcome, find_outcome
from rankdet.figures.specs import Balance, Candidates, Curves, Trained
from rankdet.results.datasets import MINI, DataChoice
from rankdet.results.runs import Run, make_runs, merge_overrides, of_args, start_from, weights_path

COLD, WARM = "cold", "warm"


@dataclass(frozen=True)
class Point:
    """A series' runs at one place. x: number of candidates, None for all and in plots against the step."""

    series: Series
    x: int | None
    start: str  # COLD: from scratch or ImageNet's weights, WARM: from the snapshot
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class FigurePlan:
    """A manifest of trainings under one protocol, on one data set, with the user's own overrides (args) on top."""

    manifest: FigureManifest
    protocol: str
    data: DataChoice
    args: tuple[str, ...]
    root: Path
    tuned: Outcome | None

    @property
    def trained(self) -> Trained:
        """The manifest's part on trainings."""
        assert isinstance(self.manifest.spec, Trained)
        return self.manifest.spec

    @property
    def candidates(self) -> Candidates | None:
        """Its part on numbers of candidates, if it has one."""
        return self.manifest.spec if isinstance(self.manifest.spec, Candidates) else None

    @property
    def records(self) -> Path:
        """Where the runs' records and curves are published."""
        return self.root / "experiments" / "records" / self.data.name / self.protocol

    @property
    def file_stem(self) -> str:
        """figure-8a.mini; figure-8a.bccd.mini; with args their hash, too."""
        parts = [
            self.manifest.name,
            *([] if self.data.name == self.trained.data["mini"] else [self.data.name]),
            self.protocol,
        ]
        return ".".join([*parts, *of_args(self.args)])

    @property
    def curves(self) -> Curves:
        """The manifest's part on the quantity that is plotted."""
        assert isinstance(self.manifest.spec, Curves)
        return self.manifest.spec

    @property
    def quantity(self) -> str:
        """What is plotted, by its name in the log."""
        return self.curves.quantity

    @property
    def balance(self) -> Balance | None:
        """The manifest's part on gradients, if it has one."""
        return self.manifest.spec if isinstance(self.manifest.spec, Balance) else None

    @cached_property
    def cold(self) -> list[Point]:
        """All points that start from scratch."""
        found = self.candidates
        if found is None:
            return [Point(one, None, COLD, self._runs(one, (), one.key)) for one in self.manifest.series.values()]
        return [
            Point(one, count, COLD, self._runs(one, self._among(count), f"{one.key} {_named(count)}"))
            for count in found.counts[self._settings_of]
            for one in self.manifest.series.values()
        ]

    @cached_property
    def ranker(self) -> Run | None:
        """The training that ranks the candidates, done once; args hold for it, too, but for those of the losses."""
        found = self.candidates
        if found is None:
            return None
        own = tuple(item for item in self.args if not item.startswith("loss."))
        overrides = merge_overrides(self._head(), found.ranker, own)
        return make_runs("ranker", overrides, self.trained.seeds[:1], self.root)[0]

    def failed(self, find: Finder) -> list[Point]:
        """Of the finished points that a snapshot could help, those whose mean did not fall far enough."""
        if self.candidates is None:
            return []
        least = self.candidates.snapshot[self._settings_of][0]
        late = [point for point in self.cold if point.x is None or point.x > least]
        return [point for point in late if (runs := logged(point, self.quantity, find)) and not _fell(runs)]

    def snapshots(self, failed: list[Point]) -> dict[str, tuple[Run, ...]]:
        """series -> the runs whose weights warm starts go on from, a seed each."""
        return {point.series.key: self._snapshot(point.series) for point in failed}

    def warm(self, failed: list[Point]) -> list[Point]:
        """The failed points again, each seed from its snapshot's weights."""
        points = []
        for point in failed:
            runs = []
            for run, snapshot in zip(point.runs, self._snapshot(point.series), strict=True):
                runs.append(start_from(replace(run, label=f"{run.label} warm"), snapshot, self.root))
            points.append(replace(point, start=WARM, runs=tuple(runs)))
        return points

    @property
    def _settings_of(self) -> str:
        """mini or paper: whose settings of the manifest hold."""
        return "mini" if self.protocol in MINI else "paper"

    def _among(self, count: int | None) -> tuple[str, ...]:
        if count is None or self.ranker is None:
            return ()
        return (
            "candidates=top_ranked",
            f"candidates.num={count}",
            f"candidates.rpn={weights_path(self.ranker, self.root)}",
        )

    def _snapshot(self, one: Series) -> tuple[Run, ...]:
        assert self.candidates is not None
        count, further = self.candidates.snapshot[self._settings_of]
        return self._runs(one, (*self._among(count), *further), f"{one.key} {count}")

    def _runs(self, one: Series, own: tuple[str, ...], label: str) -> tuple[Run, ...]:
        settings = self.tuned.best.get(one.key, {}) if self.tuned else {}
        found = tuple(f"{key}={value}" for key, value in settings.items())
        overrides = merge_overrides(self._head(), found, one.overrides, own, self.args)
        return make_runs(label, overrides, self.trained.seeds, self.root, found)

    def _head(self) -> tuple[str, ...]:
        extra = self.trained.extra[self._settings_of]
        return (f"experiment={self.trained.experiment}", f"protocol={self.protocol}", *self.data.overrides, *extra)


def make_figure_plan(
    manifest: FigureManifest, protocol: str, data: DataChoice, root: Path, args: tuple[str, ...] = ()
) -> FigurePlan:
    """Under mini with the tuned settings, if there are any. UserError for a protocol that there is not."""
    if protocol not in (*MINI, "paper"):
        raise UserError(f"PROTOCOL={protocol}: no such protocol; there are {', '.join(MINI)} and paper")
    if protocol == "paper" and data.name == "shapes":
        raise UserError("PROTOCOL=paper: the drawn set is for mini; give DATA=voc07, or path/to/VOC")
    assert isinstance(manifest.spec, Trained)
    tuning = manifest.spec.tuning
    tuned = find_outcome(root, tuning, data.name) if tuning and protocol in MINI else None
    return FigurePlan(manifest, protocol, data, args, root, tuned)


def stages(plan: FigurePlan, find: Finder) -> Iterator[list[Run]]:
    """Lists of trainings, each to be done before the next is asked for."""
    if plan.ranker is not None:
        yield [plan.ranker]
    yield by_seed(plan.cold)
    failed = plan.failed(find)
    if failed:
        yield [run for runs in plan.snapshots(failed).values() for run in runs]
        yield by_seed(plan.warm(failed))


def all_points(plan: FigurePlan, find: Finder) -> list[Point]:
    """Cold points, and the warm ones that follow from what is finished of them."""
    return [*plan.cold, *plan.warm(plan.failed(find))]


def by_seed(points: list[Point]) -> list[Run]:
    """The first seed of all points before the second."""
    return sorted((run for point in points for run in point.runs), key=lambda run: run.seed)


def logged(point: Point, quantity: str, find: Finder) -> list[LoggedRun]:
    """What is finished of a point."""
    return [found for run in point.runs if (found := find(run, quantity)) is not None]


def _fell(runs: list[LoggedRun]) -> bool:
    return converged(runs, sum(run.first for run in runs) / len(runs))


def _named(count: int | None) -> str:
    return "all" if count is None else str(count)
