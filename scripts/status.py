"""Prints which trainings of tables and figures are done, running, failed or waiting, and how long the rest takes."""

import sys
from pathlib import Path

from rankdet.overview.choice import choice_parser, chosen_targets
from rankdet.overview.status import status
from rankdet.results.front import exit_code
from rankdet.results.launch import check_jobs

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Exit code: 0 whatever the runs' states, 2 for a mistake in the command."""
    parser = choice_parser(__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once, for the time left")
    args = parser.parse_intermixed_args(arguments)

    def act() -> int:
        check_jobs(args.jobs)
        print(status(chosen_targets(args, root), root, args.jobs), end="")
        return 0

    return exit_code(act)


if __name__ == "__main__":
    sys.exit(main())
