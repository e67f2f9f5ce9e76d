"""Reads a whole data set, decodes every image, and reports what it holds and what is wrong with it."""

import argparse
import os
import sys
from pathlib import Path

from rankdet.build import open_source
from rankdet.checking.check import has_errors, save, survey
from rankdet.checking.report import SHOWN, as_text
from rankdet.config import compose
from rankdet.errors import UserError
from rankdet.results.datasets import choose_data
from rankdet.results.front import exit_code
from rankdet.results.runs import merge_overrides


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0, also with warnings (what readers mend by themselves, and oddities); 1 with errors; 2 for a mistake
    in the command."""
    args = parser().parse_intermixed_args(arguments)
    return exit_code(lambda: act(args))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="shapes", help="shapes, or a folder in VOC or COCO layout")
    parser.add_argument(
        "--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes; all cores by default"
    )
    parser.add_argument("--output", type=Path, help="folder for report and pictures; runs/check-data/<name>")
    parser.add_argument(
        "overrides", nargs="*", help="key=value settings, e.g. data=voc07 or data.source.splits.val=dev"
    )
    return parser


def act(args: argparse.Namespace) -> int:
    """Checks, prints and saves."""
    if args.jobs < 1:
        raise UserError(f"--jobs {args.jobs}: must be at least 1")
    chosen = any(item.startswith("data=") for item in args.overrides)
    cfg = compose(list(merge_overrides(() if chosen else choose_data(args.data).overrides, tuple(args.overrides))))
    output = args.output or Path("runs/check-data") / cfg.data.name
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {output}: cannot be made ({error.strerror})") from error
    source = open_source(cfg)
    found = survey(source, cfg.data.name, cfg.data.root, args.jobs, lambda text: print(text, file=sys.stderr))
    save(found, output)
    print(as_text(found.report, SHOWN))
    print(f"saved {output}")
    return 1 if has_errors(found.report) else 0


if __name__ == "__main__":
    sys.exit(main())
