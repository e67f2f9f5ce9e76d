"""Gets COCO into ROOT: by download, which goes on where it broke off, or from what is at hand."""

import sys

from rankdet.cli import command
from rankdet.errors import UserError
from rankdet.prepare.coco import SETS, coco_test_dev
from rankdet.prepare.command import parser, report, supply
from rankdet.prepare.install import install


@command
def main(arguments: list[str] | None = None) -> None:
    """Exit code 0, or 2 with one line on stderr."""
    made = parser(str(__doc__), SETS, "coco2017", "data/coco")
    made.add_argument("--test-dev", action="store_true", help="also the images of test-dev, to submit detections")
    args = made.parse_args(arguments)
    if args.test_dev and args.data != "coco2017":
        raise UserError("--test-dev: a split of data=coco2017 alone; leave out --data")
    pieces = SETS[args.data](args.root) + (coco_test_dev(args.root) if args.test_dev else [])
    install(pieces, args.root, supply(args))
    report(args.data, args.root, ("trainval", "test", *(["test-dev"] if args.test_dev else [])))


if __name__ == "__main__":
    main(sys.argv[1:])
