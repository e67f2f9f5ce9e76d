"""Copies finished runs' records, and finished searches, to experiments/, and regenerates all that published.yaml lists.

Then the page on the comparison of all losses, the page that links to all of it, experiments/README.md, and
experiments/report.html, which holds all of it.
"""

import argparse
import sys
from pathlib import Path

from rankdet.figures.publish import publish_figures
from rankdet.overview.conclusions import write_conclusions
from rankdet.overview.output import write_overview
from rankdet.results.front import exit_code
from rankdet.results.publish import publish
from rankdet.search.lookup import publish_searches

ROOT = Path(__file__).resolve().parents[1]


def main(root: Path = ROOT) -> int:
    """Exit code: 0, or 2 for a mistake in a file."""

    def act() -> int:
        paths = publish_searches(root)  # first: rows of the tables take what they found
        paths += [*publish(root), *publish_figures(root), *write_conclusions(root), *write_overview(root)]
        for path in paths:
            print(path.relative_to(root))
        return 0

    return exit_code(act)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()  # --help, and nothing else
    sys.exit(main())
