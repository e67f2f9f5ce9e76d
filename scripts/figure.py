"""Trains what a figure still lacks, then plots it, prints it beside the paper's words and saves it."""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rankdet.figures.against_rows import row_content
from rankdet.figures.curves import local
from rankdet.figures.manifest import load_figure
from rankdet.figures.outcome import load_outcome
from rankdet.figures.output import markdown, save_figure
from rankdet.figures.plan import FigurePlan, make_figure_plan, stages
from rankdet.figures.publish import content_of, plan_of_rows, tuning_of, tuning_of_rows
from rankdet.figures.tuning import load_grid, make_trials, outcome_yaml
from rankdet.files import write_text
from rankdet.results.datasets import MINI, choose_data
from rankdet.results.front import exit_code, hardware_of, target_parser
from rankdet.results.launch import run_all, shown
from rankdet.results.queue import Failure, failure_report
from rankdet.results.records import run_records
from rankdet.results.runs import Run
from rankdet.results.tables import collect
from rankdet.results.today import data_hashes
from rankdet.training.codes import NOT_FINITE

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Exit code: 0, 1 if a run failed, 2 for a mistake in the command, 128 + n when stopped by signal n."""
    args = target_parser(__doc__, "figure", "figure-8a").parse_intermixed_args(arguments)
    return exit_code(lambda: act(args, root))


def act(args: argparse.Namespace, root: Path) -> int:
    """Shows or trains what is missing of the figure, then prints and saves it."""
    manifest = load_figure(root / "experiments" / args.paper / f"{args.figure}.yaml")
    data = choose_data(args.data) if args.data else None
    overrides = tuple(args.overrides)
    hardware = hardware_of(args)
    failures: list[Failure] = []

    def train(runs: Sequence[Run]) -> None:
        if args.dry_run:
            for run in runs:
                if not run.finished:
                    print(shown(run, hardware))
        else:
            failures.extend(run_all(runs, args.jobs, hardware, root))

    if manifest.kind == "rows":
        plan = plan_of_rows(manifest, args.protocol, data, root, overrides)
        runs = plan.runs()
        today = data_hashes(runs)
        train(runs)
        content, settings = row_content(manifest, collect(plan, run_records(runs), today)), tuning_of_rows(plan)
    else:
        plan = make_figure_plan(manifest, args.protocol, data or choose_data("shapes"), root, overrides)
        plan = tuned(plan, train, failures, args.dry_run)
        for runs in stages(plan, local):
            train(runs)
        content, settings = content_of(plan, local), tuning_of(plan)
    if args.dry_run:
        return 0
    print(markdown(manifest, content, plan, settings))
    for path in save_figure(manifest, content, plan, settings, root / "runs" / "figures" / args.paper):
        print(f"saved {path.relative_to(root)}")
    if failures:
        print(failure_report(failures), file=sys.stderr)
    return 1 if failures else 0


def tuned(plan: FigurePlan, train: Callable[[Sequence[Run]], None], failures: list[Failure], dry: bool) -> FigurePlan:
    """The plan with settings found by its manifest's grid, which is run now if it never was on these data.

    Where a training of the grid failed otherwise than by divergence, the plan as it was."""
    name = plan.trained.tuning
    if name is None or plan.tuned is not None or plan.protocol not in MINI:
        return plan
    grid = load_grid(plan.root / "experiments" / "tuning" / f"{name}.yaml")
    trials = make_trials(grid, plan)
    train([run for tried in trials.values() for _, runs in tried for run in runs])
    if dry or any(failure.code != NOT_FINITE for failure in failures):
        return plan
    failures.clear()  # divergence is an outcome of a grid
    path = plan.root / "runs" / "tuning" / f"{name}.{plan.data.name}.yaml"
    write_text(path, outcome_yaml(grid, plan, trials, local))
    return replace(plan, tuned=load_outcome(path))


if __name__ == "__main__":
    sys.exit(main())
