"""Searches learning rate and box weight for every loss on the validation split, by experiments/tuning/grid.yaml."""

import argparse
import sys
from pathlib import Path

from rankdet.errors import UserError
from rankdet.files import write_text
from rankdet.results import today
from rankdet.results.datasets import choose_data
from rankdet.results.front import add_where, exit_code, hardware_of
from rankdet.results.launch import run_all, shown
from rankdet.results.queue import Failure, failure_report
from rankdet.results.records import run_records
from rankdet.results.tune import kept_entries, load_grid, make_trials, of_losses, tuning_yaml
from rankdet.results.tuning import RETINANET, file_name, find_tuning, tuning_path
from rankdet.training.codes import NOT_FINITE

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Exit code: 0, 1 if a run failed, 2 for a mistake in the command, 128 + n when stopped by signal n."""
    args = parser().parse_args(arguments)
    return exit_code(lambda: tune(args, root))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--protocol", default="mini", help="mini or mini_long: both use what is found under the grid's")
    parser.add_argument("--data", default="shapes", help="shapes, or a folder in VOC or COCO layout")
    parser.add_argument("--detector", default=RETINANET, help="one of those in experiments/tuning/grid.yaml")
    parser.add_argument(
        "--losses", nargs="+", metavar="LOSS", help="search these alone and keep what the file has of others"
    )
    add_where(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the commands that are left to run, run nothing")
    return parser


def tune(args: argparse.Namespace, root: Path) -> int:
    """Runs a detector's grid and writes its file in runs/tuning/, unless a run failed otherwise than by divergence."""
    grid = load_grid(root / "experiments" / "tuning" / "grid.yaml", args.detector)
    if args.protocol not in (grid.protocol, "mini_long"):
        raise UserError(f"PROTOCOL={args.protocol}: the grid in experiments/tuning/grid.yaml is for {grid.protocol}")
    data = choose_data(args.data)
    searched = of_losses(grid, args.losses)
    trials = make_trials(searched, data, root)
    runs = [run for trial in trials for run in trial.runs]
    hardware = hardware_of(args)
    if hardware.processes > 1:
        raise UserError(
            f"GPUS={hardware.gpus} NODES={hardware.nodes}: these small detectors train batch norm, which makes another "
            "run on several GPUs; set GPUS=1 NODES=1, and JOBS= for several at once"
        )
    before = tuning_path(root, data.name, grid.detector)
    if args.losses and before is None and (other := find_tuning(root, data.name, grid.detector)):
        raise UserError(
            f"--losses: nothing was tuned on {data.name} yet, so the other losses have what was found on {other.data}, "
            "which a file with these alone would take from them; tune all losses once"
        )
    kept = kept_entries(before, grid, searched, runs[0], today.data_hash(runs[0])) if before and args.losses else {}
    if args.dry_run:
        print("\n".join(shown(run, hardware) for run in runs if not run.finished))
        return 0
    today.require_today(runs)
    failures = run_all(runs, args.jobs, hardware, root)
    broken: list[Failure] = [failure for failure in failures if failure.code != NOT_FINITE]
    if broken:
        print(failure_report(broken), file=sys.stderr)
        return 1
    path = root / "runs" / "tuning" / file_name(data.name, grid.detector)
    text = tuning_yaml(grid, data.name, trials, run_records(runs), kept)
    write_text(path, text)
    print(text)
    print(f"saved {path.relative_to(root)}; make publish copies it to experiments/tuning/ if its data is published")
    return 0


if __name__ == "__main__":
    sys.exit(main())
