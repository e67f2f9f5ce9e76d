"""Makes a folder of links to the runs of tables and figures, named by row, for TensorBoard, and prints its name."""

import sys
from pathlib import Path

from rankdet.overview.board import make_board
from rankdet.overview.choice import choice_parser, chosen_targets
from rankdet.results.front import exit_code

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Exit code: 0, or 2 for a mistake in the command."""
    args = choice_parser(__doc__).parse_intermixed_args(arguments)

    def act() -> int:
        targets = chosen_targets(args, root)
        name = targets[0].name if len(targets) == 1 else args.paper
        parts = filter(None, (name, args.protocol, Path(args.data).name))
        print(make_board(targets, root / "runs" / "tensorboard" / ".".join(parts)).relative_to(root))
        return 0

    return exit_code(act)


if __name__ == "__main__":
    sys.exit(main())
