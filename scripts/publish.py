"""Copies finished runs' records to experiments/records/ and regenerates the tables of experiments/published.yaml."""

import sys
from pathlib import Path

from rankdet.errors import UserError
from rankdet.results.publish import publish

ROOT = Path(__file__).resolve().parents[1]


def main(root: Path = ROOT) -> int:
    """Exit code: 0, or 2 for a mistake in a file."""
    try:
        for path in publish(root):
            print(path.relative_to(root))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
