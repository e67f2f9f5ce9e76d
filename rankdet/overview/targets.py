"""Every table and figure of a paper as what has to be trained for it: groups of runs, a row or a point each."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rankdet.errors import UserError
from rankdet.figures.content import Reproduction
from rankdet.figures.kinds import reproduction
from rankdet.figures.manifest import is_figure, load_figure
from rankdet.figures.trained import TrainedFigure
from rankdet.figures.work import Work
from rankdet.results.datasets import MINI, DataChoice
from rankdet.results.launch import ANY
from rankdet.results.manifest import load_manifest
from rankdet.results.plan import Plan, make_plan
from rankdet.results.registry import load_registry
from rankdet.results.retests import Tests, planned_retests
from rankdet.results.runs import Run


@dataclass(frozen=True)
class Part:
    """A row or a point, and the runs behind it. why: the reason where there are none."""

    label: str
    runs: tuple[Run, ...]
    why: str | None = None


@dataclass(frozen=True)
class Target:
    """A table or figure under one protocol on its data, either None for a figure in which they have no part.

    order: each run once, as they are started. retests: of the trainings' weights, beyond their own. besides: what is
    done without a training."""

    paper: str
    name: str  # table-2
    protocol: str | None
    data: str | None
    parts: tuple[Part, ...]
    order: tuple[Run, ...]
    retests: Tests = field(default_factory=dict)
    besides: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """ap-loss table-2, mini on shapes."""
        return f"{self.paper} {self.name}" + (f", {self.protocol} on {self.data}" if self.protocol else "")


SHORT = {"dr-loss": "dr"}  # papers whose goals of make have another name than their folder


def goal(paper: str, name: str) -> str:
    """What make calls a table or figure: reproduce-table-2, AP-loss's; reproduce-alrp-table-2."""
    return f"reproduce-{name}" if paper == "ap-loss" else f"reproduce-{SHORT.get(paper, paper)}-{name}"


def names(root: Path, paper: str) -> list[str]:
    """All manifests of a paper, tables before figures, each by number: figure-8a before figure-13.

    UserError where there are none.
    """
    folder = root / "experiments" / paper
    found = sorted((path.stem for path in folder.glob("*.yaml")), key=_by_number)
    if not found:
        papers = ", ".join(sorted({path.parent.name for path in folder.parent.glob("*/*.yaml")} - {"tuning"})) or "none"
        raise UserError(f"PAPER={paper}: {folder} has no manifest; papers that have some: {papers}")
    return found


def _by_number(name: str) -> tuple[bool, int, str]:
    kind, _, rest = name.partition("-")
    digits = re.match(r"\d*", rest)
    assert digits is not None
    return kind == "figure", int(digits[0] or 0), rest


def load_target(
    name: str, paper: str, protocol: str, data: DataChoice | None, root: Path, args: tuple[str, ...] = ()
) -> Target:
    """Plans one table or figure. UserError for a manifest that is not there, a protocol, or a setting."""
    path = root / "experiments" / paper / f"{name}.yaml"
    if is_figure(path):
        return _figure(path, protocol, data, root, args)
    registry = load_registry(root / "experiments" / "registry.yaml")
    return _table(make_plan(load_manifest(path, registry), protocol, data, root, args))


def _table(plan: Plan) -> Target:
    parts = [Part(row.printed.label, row.runs, row.why) for row in plan.rows]
    order = tuple(plan.runs())
    of_rows = {run for part in parts for run in part.runs}
    first = [run for run in order if run not in of_rows]
    if first:
        parts = [Part("trainings that others start from", tuple(first)), *parts]
    where = (plan.manifest.paper, plan.manifest.name, plan.protocol, ", ".join(plan.data_names))
    return Target(*where, tuple(parts), order, planned_retests(plan))


@dataclass
class _Wanted(Work):
    """Notes what a figure would have done, and does nothing."""

    runs: list[Run] = field(default_factory=list)
    besides: list[str] = field(default_factory=list)

    def train(self, runs: Sequence[Run]) -> None:
        self.runs += runs

    def do(self, what: str, action: Callable[[], None]) -> None:
        self.besides.append(what)


def _figure(path: Path, protocol: str, data: DataChoice | None, root: Path, args: tuple[str, ...]) -> Target:
    figure = reproduction(load_figure(path), protocol, data, root, args)
    wanted = _wanted(figure, root)
    order = _distinct(wanted.runs)
    labels = dict.fromkeys(run.label for run in order)
    parts = tuple(Part(label, tuple(run for run in order if run.label == label)) for label in labels)
    besides = tuple(wanted.besides)
    if isinstance(figure, TrainedFigure) and figure.plan.protocol in MINI and figure.plan.tuned is None:
        grid = figure.plan.trained.tuning
        besides += (f"settings from the trials of {grid}; until these are done, defaults stand here",) if grid else ()
    where = (path.parent.name, path.stem, figure.edition.protocol, figure.edition.data)
    return Target(*where, parts, order, besides=besides)


def _wanted(figure: Reproduction, root: Path) -> _Wanted:
    wanted = _Wanted(root, jobs=1, hardware=ANY, dry_run=True)
    figure.make(wanted)
    return wanted


def trainings(figure: Reproduction, root: Path) -> tuple[Run, ...]:
    """Each run of a figure once, as far as they are known: some figures choose later ones by how the first ended."""
    return _distinct(_wanted(figure, root).runs)


def _distinct(*groups: Iterable[Run]) -> tuple[Run, ...]:
    found: dict[Path, Run] = {}
    for run in (run for group in groups for run in group):
        found.setdefault(run.directory, run)  # by the name of the row that it comes first in
    return tuple(found.values())


def distinct(targets: Sequence[Target]) -> list[Run]:
    """Every run of some targets once, in the order of the targets and of each one's own."""
    return list(_distinct(*(target.order for target in targets)))
