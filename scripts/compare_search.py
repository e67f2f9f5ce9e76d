"""Trains by what finished searches of Parameterized AP loss found, and by the identity line, and compares the tests."""

import argparse
import sys
from pathlib import Path

from rankdet.errors import UserError
from rankdet.files import relative
from rankdet.results.datasets import choose_data
from rankdet.results.front import add_where, exit_code, hardware_of
from rankdet.results.launch import run_all
from rankdet.results.output import save_three
from rankdet.results.queue import failure_report
from rankdet.results.today import require_today
from rankdet.search.comparison import contestants, csv, distinct, markdown, plot
from rankdet.search.proxy import described
from rankdet.search.rounds import require_same
from rankdet.search.settings import SEARCHES, load_search, search_directory

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Exit code: 0, 1 if a run failed, 2 for a mistake in the command, 128 + n when stopped by signal n."""
    args = parser().parse_args(arguments)
    return exit_code(lambda: act(args, root))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("searches", nargs="+", help="finished searches, e.g. retinanet-voc retinanet-voc-random")
    parser.add_argument("--protocol", default="mini", help="mini")
    parser.add_argument("--data", default="", help="as the searches were made with")
    parser.add_argument("--seed", type=int, default=0, help="likewise")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the trainings")
    add_where(parser)
    parser.add_argument("--output", type=Path, help="folder for table, CSV and plot; runs/tables/pap")
    return parser


def act(args: argparse.Namespace, root: Path) -> int:
    """Trains what is missing, prints the table and writes it."""
    if args.protocol != "mini":
        raise UserError(
            f"PROTOCOL={args.protocol}: searches are compared under mini; what was found trains at length in "
            "make reproduce-pap-table-2 and -3, whose row linear is the identity line"
        )
    data = choose_data(args.data) if args.data else None
    searches = [load_search(root / SEARCHES, name, args.protocol, data, args.seed) for name in args.searches]
    pairs = [(search, search_directory(search, root)) for search in searches]
    for search, directory in pairs:
        require_same(directory, described(search))  # that the test split is unseen is checked there, too
    found = contestants(pairs, tuple(dict.fromkeys(args.seeds)), root)
    own = distinct(found)
    runs = [*own[0].before(), *own]  # all start from one training
    require_today(runs)
    failures = run_all(runs, args.jobs, hardware_of(args), root)
    data, seed = searches[0].data.name, f"seed{args.seed}"
    title = f"Searched Parameterized AP loss: protocol {args.protocol} on {data}, searches' {seed}"
    stem = ".".join(["search", data, *args.searches, *([seed] if args.seed else [])])
    text = markdown(title, found, searches) + f"\n![bars of the table above]({stem}.png)\n"
    folder = args.output or root / "runs" / "tables" / "pap"
    path, *_ = save_three(folder, stem, text, csv(found), lambda path: plot(title, found, path))
    print(text)
    print(f"saved {relative(path, root)}, and .csv and .png beside it")
    if failures:
        print(failure_report(failures), file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
