"""Trains and tests what a table still lacks, then prints it beside the paper's numbers and saves it."""

import argparse
import sys
from pathlib import Path

from rankdet.figures.command import reproduce_figure
from rankdet.figures.manifest import is_figure
from rankdet.results.datasets import choose_data
from rankdet.results.front import exit_code, hardware_of, target_parser
from rankdet.results.launch import Hardware, as_typed, check_hardware, retest_all, retest_jobs, run_all, shown
from rankdet.results.manifest import load_manifest
from rankdet.results.output import save_table
from rankdet.results.plan import Plan, make_plan
from rankdet.results.queue import failure_report
from rankdet.results.records import run_records
from rankdet.results.registry import load_registry
from rankdet.results.render import markdown
from rankdet.results.retests import has_retests, local, outstanding, planned_retests, with_retests
from rankdet.results.submissions import submit, with_returned_alone
from rankdet.results.tables import collect
from rankdet.results.today import data_hashes

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Exit code: 0, 1 if a run failed, 2 for a mistake in the command, 128 + n when stopped by signal n."""
    args = target_parser(__doc__, "table", "table-2").parse_intermixed_args(arguments)
    return exit_code(lambda: act(args, root))


def act(args: argparse.Namespace, root: Path) -> int:
    """Plans the table, and shows or does what is missing of it."""
    path = root / "experiments" / args.paper / f"{args.table}.yaml"
    if is_figure(path):
        return reproduce_figure(path, args, root)
    manifest = load_manifest(path, load_registry(root / "experiments" / "registry.yaml"))
    hardware = hardware_of(args)
    data = choose_data(args.data) if args.data else None
    plan = make_plan(manifest, args.protocol, data, root, tuple(args.overrides))
    return dry_run(plan, args.jobs, hardware) if args.dry_run else reproduce(plan, args.jobs, hardware, root)


def dry_run(plan: Plan, jobs: int, hardware: Hardware) -> int:
    """Prints one command per training that is left."""
    runs = plan.runs()
    left = [run for run in runs if not run.finished]
    check_hardware(left, hardware, jobs)
    for run in left:
        print(shown(run, hardware))
    retests = planned_retests(plan)
    todo = outstanding(retests)
    for job in retest_jobs(retests, todo, hardware.gpus):
        print(as_typed(job.command))
    tests = f", {sum(map(len, todo.values()))} tests of finished ones" if todo else ""
    print(f"{len(left)} of {len(runs)} trainings are left{tests}", file=sys.stderr)
    return 0


def reproduce(plan: Plan, jobs: int, hardware: Hardware, root: Path) -> int:
    """Trains and tests what is missing, prints the table, saves it under runs/tables/, and says what to submit."""
    runs = plan.runs()
    today = data_hashes(runs)  # a folder, or the program that draws, may have changed since the runs
    failures = run_all(runs, jobs, hardware, root)
    table = collect(plan, run_records(runs), today)
    if has_retests(plan.manifest):
        failures += retest_all(planned_retests(plan), jobs, hardware.gpus, root)
        table = with_retests(table, local)
    table = with_returned_alone(table)
    print(markdown(table))
    for path in save_table(table, root / "runs" / "tables" / plan.manifest.paper):
        print(f"saved {path.relative_to(root)}")
    for line in submit(plan, root):
        print(line)
    if failures:
        print(failure_report(failures), file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
