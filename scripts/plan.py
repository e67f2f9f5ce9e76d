"""Prints what tables and figures still lack, as commands, with what these will take. Nothing is started."""

import json
import sys
from pathlib import Path

from rankdet.overview.choice import choice_parser, chosen_targets
from rankdet.overview.cost import read_speeds
from rankdet.overview.listing import Reckoning, as_json, script
from rankdet.results.front import add_where, exit_code, hardware_of

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Exit code: 0, or 2 for a mistake in the command."""
    parser = choice_parser(__doc__)
    add_where(parser)
    parser.add_argument("--json", action="store_true", help="the same for programs")
    args = parser.parse_intermixed_args(arguments)

    def act() -> int:
        targets = chosen_targets(args, root)
        reckoning = Reckoning(hardware_of(args), read_speeds(root), root)
        text = json.dumps(as_json(targets, reckoning), indent=1) + "\n" if args.json else script(targets, reckoning)
        print(text, end="")
        return 0

    return exit_code(act)


if __name__ == "__main__":
    sys.exit(main())
