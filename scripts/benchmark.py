"""Measures a training step of our RetinaNet, time and peak memory, beside torchvision's, by loss and by option."""

import argparse
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from rankdet.benchmark.inputs import make_setup
from rankdet.benchmark.plots import save_plots
from rankdet.benchmark.report import as_json, csv_text, markdown
from rankdet.benchmark.sweeps import compiler_works, measure, num_stops, plan
from rankdet.benchmark.through_training import course_csv, read_course, save_course
from rankdet.errors import UserError
from rankdet.files import write_json, write_text
from rankdet.profiling.report import about, machine
from rankdet.profiling.timing import Budget
from rankdet.results.datasets import choose_data
from rankdet.results.front import exit_code

SIZE = 512  # pixels, as AP-loss trains
SMALL_SIZE = {"cpu": 192, "cuda": SIZE}  # of losses and options: a CPU has no time for more
IMAGES = (1, 2, 4, 8)
BUDGET = {"cpu": Budget(45.0, 5), "cuda": Budget(4.0, 30)}  # a contestant's at one batch size
BACKBONES = ("resnet18", "resnet50", "resnet101")
QUICK_SIZE, QUICK_IMAGES, QUICK_BACKBONE, QUICK_BUDGET = 64, (1, 2), "resnet18", Budget(0.0, 1)


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0, whether ours is the faster or not, or 2 for a mistake in the command."""
    args = parser().parse_args(arguments)
    return exit_code(lambda: benchmark(args))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, help="torch's threads on the CPU; as torch chooses if not given")
    parser.add_argument("--data", default="shapes", help="shapes, or a folder in VOC or COCO layout")
    parser.add_argument("--size", type=int, help=f"of the race, height and width in pixels; {SIZE} if not given")
    parser.add_argument("--small-size", type=int, help="of losses and options; on a CPU 192, on a GPU 512 if not given")
    parser.add_argument("--backbone", choices=BACKBONES, help="resnet50 if not given")
    parser.add_argument("--images", type=int, nargs="+", help="batch sizes; 1 2 4 8 if not given")
    parser.add_argument(
        "--run", type=Path, help="a run's directory: also time against its steps, from its log (Fig. 10)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny images, a smaller network, a minute in all: shows that it works"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark"), help="folder for table, CSV and plots")
    return parser


def benchmark(args: argparse.Namespace) -> int:
    """Measures, prints the report and writes it."""
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no GPU here")
    require_positive(args)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    size = args.size or (QUICK_SIZE if args.quick else SIZE)
    small_size = args.small_size or (QUICK_SIZE if args.quick else SMALL_SIZE[args.device])
    images = tuple(sorted(set(args.images or (QUICK_IMAGES if args.quick else IMAGES))))
    budget = QUICK_BUDGET if args.quick else BUDGET[args.device]
    course = read_course(args.run) if args.run else None
    choice = choose_data(args.data)
    setup = make_setup(choice.overrides, args.backbone or (QUICK_BACKBONE if args.quick else "resnet50"))
    compiles = not args.quick and compiler_works(device)
    sweeps = plan(size, small_size, images, budget, compiles)
    with tqdm(total=num_stops(sweeps), bar_format="{n}/{total} {desc}", disable=None) as bar:

        def show(text: str) -> None:
            bar.set_description_str(text, refresh=False)
            bar.update()

        rows = measure(sweeps, setup, device, show)
    where = about(device)
    notes = ["A quick run: its times mean nothing, and torch.compile is left out."] if args.quick else []
    if not (compiles or args.quick):
        notes.append("torch.compile does not work on this machine.")
    text = markdown(where, f"{choice.name} under the SSD recipe", setup, rows, notes)
    write_text(args.output / "benchmark.md", text)
    write_text(args.output / "benchmark.csv", csv_text(rows))
    write_json(args.output / "benchmark.json", as_json(where, setup, rows))
    save_plots(rows, machine(where), args.output)
    if course is not None:
        write_text(args.output / "through_training.csv", course_csv(course.entries))
        save_course(course, args.output / "through_training.png")
    print(text)
    print(f"saved {args.output}")
    return 0


def require_positive(args: argparse.Namespace) -> None:
    """UserError for a number below 1."""
    for name in ("threads", "size", "small_size", "images"):
        value = getattr(args, name)
        for each in value if isinstance(value, list) else [value]:
            if each is not None and each < 1:
                raise UserError(f"--{name.replace('_', '-')} {each}: must be at least 1")


if __name__ == "__main__":
    sys.exit(main())
