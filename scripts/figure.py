"""Trains what a figure still lacks, then plots it, prints it beside the paper's words and saves it."""

import argparse
import sys
from pathlib import Path

from rankdet.figures.kinds import reproduction
from rankdet.figures.manifest import load_figure
from rankdet.figures.output import markdown, save_figure
from rankdet.figures.work import Work
from rankdet.results.datasets import choose_data
from rankdet.results.front import exit_code, hardware_of, target_parser
from rankdet.results.queue import failure_report

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Exit code: 0, 1 if a run failed, 2 for a mistake in the command, 128 + n when stopped by signal n."""
    args = target_parser(__doc__, "figure", "figure-8a").parse_intermixed_args(arguments)
    return exit_code(lambda: act(args, root))


def act(args: argparse.Namespace, root: Path) -> int:
    """Shows or trains what is missing of the figure, then prints and saves it."""
    manifest = load_figure(root / "experiments" / args.paper / f"{args.figure}.yaml")
    data = choose_data(args.data) if args.data else None
    figure = reproduction(manifest, args.protocol, data, root, tuple(args.overrides))
    work = Work(root, args.jobs, hardware_of(args), args.dry_run)
    figure.make(work)
    if args.dry_run:
        return 0
    content = figure.content(published=False)
    print(markdown(manifest, content, figure.edition))
    for path in save_figure(manifest, content, figure.edition, root / "runs" / "figures" / args.paper):
        print(f"saved {path.relative_to(root)}")
    if work.failures:
        print(failure_report(work.failures), file=sys.stderr)
    return 1 if work.failures else 0


if __name__ == "__main__":
    sys.exit(main())
