"""Reproduces tables and figures, all of a paper's if none is named: the tables by number, then the figures.

Each is printed and saved as soon as it is done. Trainings that several share are done once, finished ones never again,
so that it may be stopped at any time and goes on by the same command.
"""

import argparse
import sys
from pathlib import Path

from rankdet.overview.choice import choice_parser, chosen_targets
from rankdet.overview.everything import reproduce_all
from rankdet.overview.targets import Target, distinct
from rankdet.results.front import add_where, exit_code, hardware_of
from rankdet.results.launch import check_jobs, check_machine

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = ("paper", "protocol", "data", "jobs", "gpus", "nodes", "rendezvous", "launcher", "slurm")


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Exit code: 0, 1 if something failed, 2 for a mistake in the command, 128 + n when stopped by signal n."""
    parser = choice_parser(__doc__)
    add_where(parser)
    args = parser.parse_intermixed_args(arguments)

    def act() -> int:
        check_jobs(args.jobs)
        hardware = hardware_of(args)
        targets = chosen_targets(args, root)  # all are planned before the first starts: a mistake shows at once
        if not all(run.finished for run in distinct(targets)):
            check_machine(hardware, args.jobs)
        return reproduce_all(targets, lambda target: command(target, args), args.jobs, root)

    return exit_code(act)


def command(target: Target, args: argparse.Namespace) -> list[str]:
    """What makes one of them."""
    script = "figure.py" if target.name.startswith("figure") else "reproduce.py"
    options = {name: getattr(args, name) for name in OPTIONS}
    settings = [item for item in args.chosen if "=" in item]
    flags = [f"--{name}={value}" for name, value in options.items()]
    return [sys.executable, str(ROOT / "scripts" / script), target.name, *flags, *settings]


if __name__ == "__main__":
    sys.exit(main())
