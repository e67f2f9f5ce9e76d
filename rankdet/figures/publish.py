"""Figures from committed records: the runs' records with their curves, and the files that follow from them alone."""

from pathlib import Path

from rankdet.figures.against_candidates import candidate_content
from rankdet.figures.against_rows import row_content
from rankdet.figures.against_steps import curve_content
from rankdet.figures.content import Content
from rankdet.figures.curves import Finder, LoggedRun, local, publish_curves, published_in
from rankdet.figures.manifest import FigureManifest, load_figure
from rankdet.figures.output import save_figure
from rankdet.figures.plan import FigurePlan, all_points, make_figure_plan
from rankdet.files import write_text
from rankdet.results.datasets import MINI, DataChoice, choose_data
from rankdet.results.describe_tuning import tuning_lines
from rankdet.results.manifest import load_manifest
from rankdet.results.plan import Plan, make_plan
from rankdet.results.publish import Published, by_folder, copy_records, load_published
from rankdet.results.records import published_records
from rankdet.results.registry import load_registry
from rankdet.results.runs import Run
from rankdet.results.tables import collect


def publish_figures(root: Path) -> list[Path]:
    """Copies what is finished in runs/, then writes every published figure; returns the figures' files.

    An unchanged state changes no byte."""
    paths: list[Path] = []
    for entry in load_published(root / "experiments" / "published.yaml", "figure"):
        manifest = load_figure(root / "experiments" / entry.paper / f"{entry.name}.yaml")
        write = _rows if manifest.kind == "rows" else _trained
        paths += write(manifest, entry, root)
    return paths


def _rows(manifest: FigureManifest, entry: Published, root: Path) -> list[Path]:
    plan = plan_of_rows(manifest, entry.protocol, entry.data, root)
    folders = by_folder(plan, root)
    for folder, runs in folders.items():
        copy_records(runs, folder)
    content = row_content(manifest, collect(plan, [one for folder in folders for one in published_records(folder)]))
    return save_figure(manifest, content, plan, tuning_of_rows(plan), root / "experiments" / entry.paper)


def _trained(manifest: FigureManifest, entry: Published, root: Path) -> list[Path]:
    plan = make_figure_plan(manifest, entry.protocol, entry.data or choose_data("shapes"), root)
    folder = root / "experiments" / "records" / plan.data.name / entry.protocol
    if plan.tuned is not None and plan.tuned.data == plan.data.name:
        target = root / "experiments" / "tuning" / plan.tuned.path.name
        write_text(target, plan.tuned.path.read_text(encoding="utf-8"))
    before = published_in(folder)

    def either(run: Run, quantity: str) -> LoggedRun | None:
        return local(run, quantity) or before(run, quantity)

    publish_curves([run for point in all_points(plan, either) for run in point.runs], plan.quantity, folder)
    content = content_of(plan, published_in(folder))
    return save_figure(manifest, content, plan, tuning_of(plan), root / "experiments" / entry.paper)


def content_of(plan: FigurePlan, find: Finder) -> Content:
    """The figure of a plan of trainings."""
    return candidate_content(plan, find) if plan.manifest.candidates else curve_content(plan, find)


def plan_of_rows(
    manifest: FigureManifest, protocol: str, data: DataChoice | None, root: Path, args: tuple[str, ...] = ()
) -> Plan:
    """The plan of the table whose rows are the figure's points. data: None: each row's own."""
    assert manifest.points is not None
    registry = load_registry(root / "experiments" / "registry.yaml")
    table = load_manifest(manifest.path.with_name(f"{manifest.points.table}.yaml"), registry)
    return make_plan(table, protocol, data, root, args)


def tuning_of_rows(plan: Plan) -> list[str]:
    """What the table says of its settings."""
    return tuning_lines(plan, plan.runs()) if plan.protocol in MINI else []


def tuning_of(plan: FigurePlan) -> list[str]:
    """How the series' settings were found."""
    lines = [f"Own overrides of all series: {' '.join(plan.args)}."] if plan.args else []
    if plan.tuned is not None:
        return [*lines, plan.tuned.text]
    return [*lines, "Settings are the configuration's defaults: nothing was tuned."]
