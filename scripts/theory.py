"""Checks the papers' formulas and claims that need no training, prints each verdict and saves all."""

import argparse
import sys
from pathlib import Path

import torch

from rankdet.results.front import exit_code
from rankdet.theory.report import check, chosen, save, summary, terminal

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Exit code: 0 whatever the verdicts, which are the result; 2 for a mistake in the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("claims", nargs="*", metavar="ID", help="check only these, such as AP-Q3, and save nothing")
    parser.add_argument("--output", type=Path, default=root / "runs" / "theory", help="folder for pages and plots")
    args = parser.parse_args(arguments)
    return exit_code(lambda: report(args.claims, args.output))


def report(ids: list[str], folder: Path) -> int:
    """Prints every verdict as it comes; saves all of them in folder if no ids were named."""
    torch.set_num_threads(1)  # small tensors, and steadier timings
    results = []
    for checked in check(chosen(ids)):
        print(terminal(checked), flush=True)
        results.append(checked)
    print(summary(results))
    if not ids:
        paths = save(results, folder)
        print(f"saved {len(paths)} files in {folder}: {', '.join(path.name for path in paths)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
