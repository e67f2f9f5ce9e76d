"""The toy search of Parameterized AP loss: fixed, shared and separate functions on synthetic anchors, CPU minutes."""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from rankdet.files import relative
from rankdet.results.front import exit_code
from rankdet.results.output import save_three
from rankdet.search.rounds import load_start
from rankdet.search.toy_report import FAMILIES, csv, markdown, outcome, plot, toy_search, unseen

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Exit code: 0, or 2 for a mistake in the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="folder for table, CSV and plot; runs/tables/pap")
    args = parser.parse_args(arguments)
    return exit_code(lambda: act(args.output or root / "runs" / "tables" / "pap", root))


def act(output: Path, root: Path) -> int:
    """Searches, prints the table and writes it, the rewards and the plot."""
    folder = root / "runs" / "search" / "toy"
    searches = [toy_search(family) for family in FAMILIES]
    outcomes = [outcome(search, folder / search.name) for search in tqdm(searches, unit="search", disable=None)]
    space = searches[-1].space
    line = load_start(folder / searches[-1].name), unseen(space, space.start())
    text = markdown(line, outcomes) + "\n![rewards, round by round](toy-search.png)\n"
    path, *_ = save_three(output, "toy-search", text, csv(outcomes), lambda path: plot(line[0], outcomes, path))
    print(text)
    print(f"saved {relative(path, root)}, and .csv and .png beside it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
