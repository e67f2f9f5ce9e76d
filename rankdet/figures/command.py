"""What the scripts do for a figure, and for a table that is worked out and drawn like one."""

import argparse
import sys
from pathlib import Path

from rankdet.figures.kinds import reproduction
from rankdet.figures.manifest import load_figure
from rankdet.figures.output import markdown, save_figure
from rankdet.figures.work import Work
from rankdet.results.datasets import choose_data
from rankdet.results.front import hardware_of
from rankdet.results.queue import failure_report


def reproduce_figure(path: Path, args: argparse.Namespace, root: Path) -> int:
    """Shows or trains what is missing of the figure, then prints and saves it; 1 if a run failed, else 0.

    path: of its manifest. args: as target_parser reads them."""
    manifest = load_figure(path)
    data = choose_data(args.data) if args.data else None
    figure = reproduction(manifest, args.protocol, data, root, tuple(args.overrides))
    work = Work(root, args.jobs, hardware_of(args), args.dry_run)
    figure.make(work)
    if args.dry_run:
        return 0
    content = figure.content(published=False)
    print(markdown(manifest, content, figure.edition))
    for saved in save_figure(manifest, content, figure.edition, root / "runs" / "figures" / manifest.paper):
        print(f"saved {saved.relative_to(root)}")
    if work.failures:
        print(failure_report(work.failures), file=sys.stderr)
    return 1 if work.failures else 0
