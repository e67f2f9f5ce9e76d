"""Measures decoding and SSD augmentation in images/s per core, beside torchvision's transforms on the same files."""

import argparse
import sys
from pathlib import Path

import cv2
import torch
from tqdm import tqdm

from rankdet.build import make, open_source
from rankdet.config import compose
from rankdet.errors import UserError
from rankdet.files import write_json, write_text
from rankdet.profiling.loading import OwnPipeline, Pipeline, TorchvisionPipeline, measure
from rankdet.profiling.loading_report import loading_csv, loading_json, loading_markdown
from rankdet.profiling.report import about, machine
from rankdet.results.datasets import choose_data
from rankdet.results.front import exit_code


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0, whether the goal is met or not, or 2 for a mistake in the command."""
    args = parser().parse_args(arguments)
    return exit_code(lambda: profile(args))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="shapes", help="shapes, or a folder in VOC or COCO layout")
    parser.add_argument("--split", default="train")
    parser.add_argument("--size", type=int, default=512, help="height and width of what the network gets, pixels")
    parser.add_argument("--images", type=int, default=64, help="at most so many of the split, evenly spread")
    parser.add_argument("--passes", type=int, default=5, help="over all images, each with other random draws")
    parser.add_argument("--output", type=Path, default=Path("runs/profile-loading"), help="folder for table and CSV")
    return parser


def profile(args: argparse.Namespace) -> int:
    """Measures, prints the report and writes it."""
    for name in ("size", "images", "passes"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} {getattr(args, name)}: must be at least 1")
    try:
        args.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {args.output}: cannot be made ({error.strerror})") from error
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    size = [args.size, args.size]
    cfg = compose([*choose_data(args.data).overrides, "augment=ssd", f"data.image_size={size}"])
    split = open_source(cfg).read(args.split)
    if not split.records:
        raise UserError(f"{split.name}/{split.split}: has no image to load")
    step = max(1, len(split.records) // args.images)
    records = split.records[::step][: args.images]
    pipelines: list[Pipeline] = [OwnPipeline(make(cfg.augment))]
    pipelines += [TorchvisionPipeline(form, *size) for form in ("tensor", "PIL")]
    with tqdm(total=args.passes * len(records), unit="image", disable=None) as bar:
        passes = measure(pipelines, records, args.passes, lambda: bar.update() and None)
    where = about(torch.device("cpu"))
    what = f"{len(records)} images of {split.name}/{split.split} at {args.size} x {args.size}"
    text = loading_markdown(f"{machine(where)}; torchvision {where['torchvision']}", what, passes)
    write_text(args.output / "loading.md", text)
    write_text(args.output / "loading.csv", loading_csv(passes))
    write_json(args.output / "loading.json", loading_json(where, passes))
    print(text)
    print(f"saved {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
