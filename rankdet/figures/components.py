"""Figures of the parts of a loss as a training proceeds: a table's rows, from the runs' own logs."""

from collections.abc import Sequence
from dataclasses import dataclass

from rankdet.figures.content import Content, mean_sd, over_seeds
from rankdet.figures.curves import Finder, LoggedRun, local, publish_curves, published_in
from rankdet.figures.of_table import OfTable, TablePlan, first_seed_first
from rankdet.figures.panels import RULES, Panel, combined, draw_panels, panel_csv, panel_table
from rankdet.figures.specs import Components
from rankdet.figures.work import Work
from rankdet.results.runs import Run

EARLY = 0.2  # of a run's steps: where a part stands then is told in words


@dataclass
class ComponentFigure(OfTable):
    """A figure of the kind components."""

    @property
    def spec(self) -> Components:
        """The manifest's own part."""
        assert isinstance(self.of.manifest.spec, Components)
        return self.of.manifest.spec

    def make(self, work: Work) -> None:
        """The rows' trainings."""
        work.train(first_seed_first(self.of.series()))

    def publish(self) -> bool:
        """Copies the records of finished runs with the parts that they logged."""
        parts = list(dict.fromkeys(part for panel in self.spec.panels for part in panel.split("+")))
        publish_curves(first_seed_first(self.of.series()), parts, self.of.records)
        return True

    def content(self, published: bool) -> Content:
        """From the runs' logs, or what was published of them."""
        return component_content(self.of, self.spec, published_in(self.of.records) if published else local)


def component_content(of: TablePlan, spec: Components, find: Finder) -> Content:
    """The figure as far as its runs are finished."""
    series, manifest = of.series(), of.manifest.series
    panels = [
        Panel(label, label, {key: _found(runs, name, find) for key, runs in series.items()})
        for name, label in spec.panels.items()
    ]
    runs = [run for own in series.values() for run in own]
    return Content(
        panel_table(manifest, panels, len(of.table.manifest.seeds)),
        panel_csv(panels),
        {key: _measured(panels, key) for key in manifest},
        [over_seeds(of.table.data.name), *RULES],
        lambda figure: draw_panels(figure, manifest, panels),
        (4.0 * len(panels), 4.2),
        f"{', '.join(panel.name for panel in panels)} against the step, a curve a series",
        [own[0] for key, own in series.items() if panels[0].curves[key]],
        [run.record for own in panels[0].curves.values() for run in own],
        of.settings(runs),
        tested=True,
    )


def _found(runs: Sequence[Run], name: str, find: Finder) -> list[LoggedRun]:
    """What is finished of the runs; a name with + is the sum of its parts."""
    found = []
    for run in runs:
        parts = [find(run, part) for part in name.split("+")]
        if all(part is not None for part in parts):
            found.append(combined(lambda *values: sum(values), *parts))
    return found


def _measured(panels: Sequence[Panel], key: str) -> str:
    """Where each quantity begins, stands early in the training, and ends."""
    if not panels[0].curves[key]:
        return "not run"
    words = []
    for panel in panels:
        runs = panel.curves[key]
        early = [run.values[max(i for i, step in enumerate(run.steps) if i == 0 or step <= EARLY * run.steps[-1])]
                 for run in runs]  # fmt: skip
        begun, end = (mean_sd([getattr(run, name) for run in runs], 3) for name in ("first", "final"))
        words.append(
            f"{panel.name} {begun} at first, {mean_sd(early, 3)} after {EARLY:.0%} of the steps, {end} at last"
        )
    return f"{'; '.join(words)} (n = {len(panels[0].curves[key])})"
