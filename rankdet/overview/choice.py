"""The command line of what concerns some or all tables and figures of a paper."""

import argparse
from pathlib import Path

from rankdet.overview.targets import Target, load_target, names
from rankdet.results.datasets import choose_data


def choice_parser(description: str | None) -> argparse.ArgumentParser:
    """Names and key=value settings, --paper, --protocol, --data."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "chosen", nargs="*", help="table-2, figure-8a, ...; none: all of the paper; key=value: on top of the manifests'"
    )
    parser.add_argument("--paper", default="ap-loss")
    parser.add_argument("--protocol", default="mini", help="mini | mini_long | paper")
    parser.add_argument("--data", default="", help="a data set or folder for all; by default each row has its own")
    return parser


def chosen_names(args: argparse.Namespace, root: Path) -> list[str]:
    """The targets that were named, else all of the paper."""
    return [item for item in args.chosen if "=" not in item] or names(root, args.paper)


def overrides(args: argparse.Namespace) -> tuple[str, ...]:
    """The user's own settings."""
    return tuple(item for item in args.chosen if "=" in item)


def chosen_targets(args: argparse.Namespace, root: Path) -> list[Target]:
    """Plans them; UserError for a mistake in the command or in a manifest."""
    data = choose_data(args.data) if args.data else None
    return [
        load_target(name, args.paper, args.protocol, data, root, overrides(args)) for name in chosen_names(args, root)
    ]
