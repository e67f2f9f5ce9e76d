"""python -m rankdet.search NAME: searches functions of Parameterized AP loss as experiments/searches.yaml says.

The same command continues a search that was broken off, and only prints one that is finished.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from rankdet.errors import UserError
from rankdet.files import sweep
from rankdet.results.datasets import choose_data
from rankdet.results.front import add_where, exit_code, hardware_of
from rankdet.results.queue import failure_report
from rankdet.results.runs import merge_overrides, telling
from rankdet.search.proxy import Proxy, ProxyFailure, described
from rankdet.search.report import Report
from rankdet.search.rounds import begin, load_rounds, run_search
from rankdet.search.settings import SEARCHES, load_search, search_directory
from rankdet.training.lock import run_lock

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Exit code: 0, 1 if a sample failed, 2 for a mistake in the command, 75 while another process is at this search,
    128 + n when stopped by signal n."""
    args = parser().parse_intermixed_args(arguments)
    return exit_code(lambda: act(args, root))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("search", help="one of experiments/searches.yaml, e.g. retinanet-voc")
    parser.add_argument("--protocol", default="mini", help="mini | paper")
    parser.add_argument("--data", default="", help="a data set or folder in the place of the search's own")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    add_where(parser)
    parser.add_argument("--output", type=Path, help="folder; runs/search/<protocol>/<data>/<search>-seed<k>")
    parser.add_argument("overrides", nargs="*", help="key=value settings of every sample on top of the file's")
    return parser


def act(args: argparse.Namespace, root: Path) -> int:
    """Checks everything, then searches what is missing."""
    hardware = hardware_of(args)
    if hardware.nodes > 1 and hardware.slurm is None:
        raise UserError(
            f"NODES={hardware.nodes}: a search is one command on one machine, as each round waits for the one before; "
            "leave NODES out, or give its samples to Slurm with LAUNCHER=slurm"
        )
    data = choose_data(args.data) if args.data else None
    search = load_search(root / SEARCHES, args.search, args.protocol, data, args.seed)
    for item in args.overrides:
        if item.partition("=")[0] in ("seed", "experiment", "protocol", "data"):
            raise UserError(f"ARGS: {item!r}: is the search's to choose; see SEED=, PROTOCOL=, DATA= and {SEARCHES}")
    directory = args.output or search_directory(search, root)
    # How samples run is theirs alone: it is no part of what is searched.
    content = described(replace(search, proxy=merge_overrides(search.proxy, telling(tuple(args.overrides)))))
    search = replace(search, proxy=merge_overrides(search.proxy, tuple(args.overrides)))
    with run_lock(directory):
        for folder in (directory, *(path for path in directory.iterdir() if path.is_dir())):
            sweep(folder)
        begin(directory, content)
        report = Report(search, directory, len(load_rounds(directory)))
        try:
            proxy = Proxy(search, args.jobs, hardware, root, content["data_hash"])
            run_search(search, proxy, directory, report)
        except ProxyFailure as stop:
            print(failure_report(stop.failures), file=sys.stderr)
            return 1
    print((directory / "report.md").read_text())
    found = " ".join(f"{path.stem}={path}" for path in sorted((directory / "best").glob("*.yaml")))
    print(f"saved {directory}; train by what was found: {found} box_loss=none")
    return 0


if __name__ == "__main__":
    sys.exit(main())
