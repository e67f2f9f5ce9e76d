"""Figures that train for themselves: against the step, and against the number of candidates."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rankdet.figures.against_candidates import candidate_content
from rankdet.figures.against_steps import curve_content
from rankdet.figures.content import Content, Edition
from rankdet.figures.curves import LoggedRun, local, publish_curves, published_in
from rankdet.figures.gradient_balance import SIDES, balance_content
from rankdet.figures.outcome import load_outcome
from rankdet.figures.plan import FigurePlan, Point, all_points, stages
from rankdet.figures.tuning import load_grid, make_trials, outcome_yaml
from rankdet.figures.work import Work
from rankdet.files import write_text
from rankdet.results.datasets import MINI
from rankdet.results.runs import Run, telling
from rankdet.training.codes import NOT_FINITE


@dataclass
class TrainedFigure:
    """A figure of the kinds curves, candidates and balance."""

    plan: FigurePlan

    @property
    def edition(self) -> Edition:
        """Of the plan."""
        return Edition(self.plan.file_stem, self.plan.protocol, self.plan.data.name)

    def make(self, work: Work) -> None:
        """The grid, if the settings were never searched on these data; then stage after stage."""
        self.plan = tuned(self.plan, work)
        for runs in stages(self.plan, local):
            work.train(runs)

    def publish(self) -> bool:
        """Copies the settings found on these data and the curves of finished runs."""
        plan = self.plan
        if plan.tuned is not None and plan.tuned.data == plan.data.name:
            target = plan.root / "experiments" / "tuning" / plan.tuned.path.name
            write_text(target, plan.tuned.path.read_text(encoding="utf-8"))
        before = published_in(plan.records)

        def either(run: Run, quantity: str) -> LoggedRun | None:
            return local(run, quantity) or before(run, quantity)

        for point in all_points(plan, either):
            publish_curves(point.runs, quantities(plan, point), plan.records)
        return True

    def content(self, published: bool) -> Content:
        """From the runs' logs, or their published curves."""
        draw = candidate_content if self.plan.candidates else balance_content if self.plan.balance else curve_content
        content = draw(self.plan, published_in(self.plan.records) if published else local)
        return replace(content, settings=settings(self.plan))


def quantities(plan: FigurePlan, point: Point) -> list[str]:
    """What is read of a point's runs, by its names in the log."""
    return [plan.quantity] if plan.balance is None else [*SIDES, plan.balance.parts[point.series.key]]


def tuned(plan: FigurePlan, work: Work) -> FigurePlan:
    """The plan with settings found by its manifest's grid, which is run now if it never was on these data.

    Where a training of the grid failed otherwise than by divergence, the plan as it was."""
    name = plan.trained.tuning
    if name is None or plan.tuned is not None or plan.protocol not in MINI:
        return plan
    grid = load_grid(plan.root / "experiments" / "tuning" / f"{name}.yaml")
    trials = make_trials(grid, plan)
    work.train([run for tried in trials.values() for _, runs in tried for run in runs])
    if work.dry_run or any(failure.code != NOT_FINITE for failure in work.failures):
        return plan
    work.failures.clear()  # divergence is an outcome of a grid
    path = plan.root / "runs" / "tuning" / f"{name}.{plan.data.name}.yaml"
    write_text(path, outcome_yaml(grid, plan, trials, local))
    return replace(plan, tuned=load_outcome(path))


def settings(plan: FigurePlan) -> Sequence[str]:
    """How the series' settings were found."""
    own = telling(plan.args)
    lines = [f"Own overrides of all series: {' '.join(own)}."] if own else []
    if plan.tuned is not None:
        return [*lines, plan.tuned.text]
    if plan.trained.tuning is None:  # the manifest sets and tells them
        return lines
    return [*lines, "Settings are the configuration's defaults: nothing was tuned."]
