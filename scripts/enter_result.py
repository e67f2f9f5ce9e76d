"""Stores what an evaluation server returned for a row's detections: enter_result.py table-6 ap-loss500 AP=37.4 ..."""

import argparse
import math
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path

from rankdet.errors import UserError
from rankdet.overview.targets import goal
from rankdet.results.datasets import choose_data
from rankdet.results.front import exit_code
from rankdet.results.manifest import load_manifest
from rankdet.results.plan import Plan, make_plan
from rankdet.results.registry import PrintedTable, load_registry
from rankdet.results.retests import cell
from rankdet.results.returned import returned_path, store
from rankdet.results.submissions import find_submission

ROOT = Path(__file__).resolve().parents[1]
ALIASES = {"AP50": "mAP50"}  # what the tables of VOC call it


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Exit code: 0, or 2 for a mistake in the command."""
    args = parser().parse_intermixed_args(arguments)
    return exit_code(lambda: act(args, root))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", help="a manifest of experiments/<paper>/, e.g. table-5")
    parser.add_argument("row", help="the row's key there")
    parser.add_argument("values", nargs="*", help="the table's columns in percent, e.g. AP=37.4 AP50=58.6")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--paper", default="ap-loss")
    parser.add_argument("--data", default="", help="as the table was made with")
    parser.add_argument("--overrides", default="", help="likewise: key=value settings in one argument")
    return parser


def act(args: argparse.Namespace, root: Path) -> int:
    """Checks everything, then writes one file."""
    if args.table == "table-" or not args.row:
        raise UserError("enter-result: set TABLE= and ROW=, as the table prints this command, and the columns' numbers")
    registry = load_registry(root / "experiments" / "registry.yaml")
    manifest = load_manifest(root / "experiments" / args.paper / f"{args.table}.yaml", registry)
    data = choose_data(args.data) if args.data else None
    plan = make_plan(manifest, "paper", data, root, tuple(shlex.split(args.overrides)))
    one = find_submission(plan, args.row, args.seed)
    percent = read_values(args.values, one.row.table)
    metrics = by_metric(plan, args.row, percent)
    date = datetime.now(UTC).date().isoformat()
    content = store(one.detections, one.server, metrics, date)
    shown = "  ".join(f"{name} {100 * value:.2f}" for name, value in content["metrics"].items())
    print(f"{args.row} seed {args.seed}, returned on {date}: {shown}")
    print(f"saved {returned_path(one.detections)}; make {goal(args.paper, args.table)} PROTOCOL=paper shows it")
    return 0


def read_values(items: list[str], table: PrintedTable) -> dict[str, float]:
    """column=percent settings; UserError for an unknown column, a value that is no percentage, and none at all."""
    found: dict[str, float] = {}
    for item in items:
        name, _, text = item.partition("=")
        column = name if name in table.columns else ALIASES.get(name, name)
        if column not in table.columns:
            raise UserError(f"{item}: {table.id} has no column {name!r}; it has {', '.join(table.columns)}")
        if column in found:
            raise UserError(f"{item}: {column} is given twice")
        try:
            found[column] = float(text)
        except ValueError as error:
            raise UserError(f"{item}: {text!r} is not a number") from error
        if not (math.isfinite(found[column]) and 0 <= found[column] <= 100):
            raise UserError(f"{item}: a percentage lies between 0 and 100")
    if not found:
        raise UserError(f"no numbers are given: add some of {', '.join(f'{column}=...' for column in table.columns)}")
    if max(found.values()) <= 1:
        raise UserError(f"{' '.join(items)}: these look like fractions; give percent, 37.4 and not 0.374")
    return found


def by_metric(plan: Plan, key: str, percent: dict[str, float]) -> dict[str, float]:
    """Fractions by the names that a record has for them."""
    printed = next(row for _, row in plan.manifest.printed() if row.key == key)
    return {cell(plan, printed, column)[1]: value / 100 for column, value in percent.items()}


if __name__ == "__main__":
    sys.exit(main())
