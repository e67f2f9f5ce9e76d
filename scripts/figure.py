"""Trains what a figure still lacks, then plots it, prints it beside the paper's words and saves it."""

import sys
from pathlib import Path

from rankdet.figures.command import reproduce_figure
from rankdet.results.front import exit_code, target_parser

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Exit code: 0, 1 if a run failed, 2 for a mistake in the command, 128 + n when stopped by signal n."""
    args = target_parser(__doc__, "figure", "figure-8a").parse_intermixed_args(arguments)
    path = root / "experiments" / args.paper / f"{args.figure}.yaml"
    return exit_code(lambda: reproduce_figure(path, args, root))


if __name__ == "__main__":
    sys.exit(main())
