"""Measures every loss's time and memory, forward and backward, against torchvision's focal loss and the goals."""

import argparse
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from rankdet.errors import UserError
from rankdet.files import write_json, write_text
from rankdet.profiling.contestants import losses
from rankdet.profiling.goals import goals, outcome, slopes
from rankdet.profiling.plots import save_plots
from rankdet.profiling.report import about, as_json, csv_text, machine, markdown
from rankdet.profiling.sweeps import full_sweeps, measure, quick_sweeps
from rankdet.results.front import exit_code


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0, whether goals are met or not, or 2 for a mistake in the command."""
    args = parser().parse_args(arguments)
    return exit_code(lambda: profile(args))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, help="torch's threads on the CPU; as torch chooses if not given")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, seconds in all: shows that it works")
    parser.add_argument("--output", type=Path, default=Path("runs/profile"), help="folder for table, CSV and plots")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also everything as JSON")
    return parser


def profile(args: argparse.Namespace) -> int:
    """Measures, prints the report and writes it."""
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no GPU here")
    if args.threads is not None:
        if args.threads < 1:
            raise UserError(f"--threads {args.threads}: must be at least 1")
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    every = losses(device)
    sweeps = quick_sweeps(every) if args.quick else full_sweeps(every)
    with tqdm(
        total=2 * sum(len(sweep.sizes) for sweep in sweeps), bar_format="{n}/{total} {desc}", disable=None
    ) as bar:

        def show(text: str) -> None:
            bar.set_description_str(text, refresh=False)
            bar.update()

        measurements = measure(sweeps, device, show)
    where, exponents = about(device), slopes(measurements)
    outcomes = [outcome(goal, measurements) for goal in goals(device.type)]
    text = markdown(where, measurements, outcomes, exponents)
    write_text(args.output / "profile.md", text)
    write_text(args.output / "profile.csv", csv_text(measurements))
    save_plots(measurements, machine(where), args.output)
    if args.json is not None:
        write_json(args.json, as_json(where, measurements, outcomes, exponents))
    print(text)
    print(f"saved {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
