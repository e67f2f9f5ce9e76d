"""Gets Pascal VOC into ROOT/VOCdevkit: by download, which goes on where it broke off, or from what is at hand."""

import sys

from rankdet.cli import command
from rankdet.prepare.command import parser, report, supply
from rankdet.prepare.install import install
from rankdet.prepare.voc import SETS, devkit_to_fill


@command
def main(arguments: list[str] | None = None) -> None:
    """Exit code 0, or 2 with one line on stderr."""
    made = parser(str(__doc__), SETS, "voc0712", "data/VOC")
    made.add_argument(
        "--any-checksum",
        action="store_true",
        help="take archives that are not the published ones bit for bit, e.g. a mirror's own",
    )
    args = made.parse_args(arguments)
    install(SETS[args.data], devkit_to_fill(args.root), supply(args, args.any_checksum))
    report(args.data, args.root, ("trainval", "test"))


if __name__ == "__main__":
    main(sys.argv[1:])
