"""Writes the archive that an evaluation server takes: VOC's for 2012 test, COCO's for test-dev 2017."""

import argparse
import sys
from pathlib import Path

from omegaconf import DictConfig

from rankdet.build import open_source
from rankdet.config import compose, load, merge_dotlist
from rankdet.errors import UserError
from rankdet.evaluation.results import load_results
from rankdet.evaluation.submission.archive import archive_path, write_archive
from rankdet.evaluation.submission.images import COCO, VOC, ImageInfo, doubts, info_of, read_image_info
from rankdet.results.front import exit_code

SPLITS = {VOC: "test", COCO: "test-dev"}  # what configs/data calls the servers' splits


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0, or 2 for a mistake in the command or in the results."""
    args = parser().parse_intermixed_args(arguments)
    return exit_code(lambda: act(args))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", required=True, help="voc or coco")
    parser.add_argument("--name", required=True, help="of the method; names the archive")
    parser.add_argument("--run", default="", help="directory of a run that was evaluated on the split")
    parser.add_argument("--results", default="", help="COCO results instead, whoever made them")
    parser.add_argument("--images", type=Path, help="a JSON with the images' ids and names and the categories")
    parser.add_argument("--split", help="by default test for voc, test-dev for coco")
    parser.add_argument("--output", type=Path, default=Path("runs/submissions"), help="folder of the archives")
    parser.add_argument("overrides", nargs="*", help="key=value settings, e.g. data=voc07pp12 data.root=PATH")
    return parser


def act(args: argparse.Namespace) -> int:
    """Writes the archive and says what the server may not like."""
    if args.server not in SPLITS:
        raise UserError(f"SERVER={args.server}: there are {' and '.join(SPLITS)}")
    if bool(args.run) == bool(args.results):
        raise UserError("give either RUN=path/to/a/run or RESULTS=path/to/results.json")
    split = args.split or SPLITS[args.server]
    path = archive_path(args.server, args.output, args.name)
    results_file = Path(args.results) if args.results else Path(args.run) / "evaluation" / split / "detections.json"
    if args.run and not results_file.is_file():
        raise UserError(f"{results_file}: not there: python -m rankdet.evaluate run={args.run} split={split} makes it")
    results = load_results(results_file)
    info = _info(args, split)
    write_archive(args.server, results, info, path)
    for line in doubts(info, args.server, results):
        print(f"note: {line}")
    print(
        f"{len(results)} detections, {len(info.images)} images, {len(info.categories)} classes; read back and the same"
    )
    print(f"saved {path}")
    return 0


def _info(args: argparse.Namespace, split: str) -> ImageInfo:
    """The split's images and classes."""
    if args.images is not None:
        return read_image_info(args.images)
    if not args.run and not any(item.startswith("data=") for item in args.overrides):
        raise UserError(
            'whose images are these? Give ARGS="--images image_info_test-dev2017.json" or e.g. data=voc07pp12'
        )
    return info_of(open_source(_config(args)).read(split))


def _config(args: argparse.Namespace) -> DictConfig:
    if args.run:
        return merge_dotlist(load(Path(args.run) / "config.yaml"), args.overrides)
    return compose(args.overrides)


if __name__ == "__main__":
    sys.exit(main())
