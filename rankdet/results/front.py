"""What the scripts share: how an outcome becomes an exit code and one line."""

import argparse
import shlex
import sys
from collections.abc import Callable

from rankdet.errors import UserError
from rankdet.results.launch import Hardware
from rankdet.results.queue import Interrupted


def exit_code(action: Callable[[], int]) -> int:
    """The action's own exit code; 2 after a mistake in the command, 128 + n when stopped by signal n (Ctrl-C: 130).

    Either is one line.
    """
    try:
        return action()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return stop.code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def target_parser(description: str | None, target: str, example: str) -> argparse.ArgumentParser:
    """The command line of what makes a table or a figure, which is the argument `target`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(target, help=f"a manifest of experiments/<paper>/, e.g. {example}")
    parser.add_argument("--paper", default="ap-loss")
    parser.add_argument("--protocol", default="mini", help="mini | mini_long | paper")
    parser.add_argument("--data", default="", help="a data set or folder for all; by default each row has its own")
    add_where(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the commands that are left to run, run nothing")
    parser.add_argument("overrides", nargs="*", help="key=value settings on top of the manifest's")
    return parser


def add_where(parser: argparse.ArgumentParser) -> None:
    """The arguments that hardware_of reads, and --jobs."""
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once, one thread each")
    parser.add_argument("--gpus", type=int, default=0, help="GPUs per training and node; 0: one if there is one")
    parser.add_argument("--nodes", type=int, default=1, help="machines per training, each given this command")
    parser.add_argument("--rendezvous", default="", help="HOST:PORT where the nodes meet, HOST being one of them")
    parser.add_argument(
        "--launcher", choices=("queue", "slurm"), default="queue", help="who runs them: we here, or Slurm"
    )
    parser.add_argument("--slurm", default="", help='settings for it, e.g. "partition=gpu timeout_min=2880"')


def hardware_of(args: argparse.Namespace) -> Hardware:
    """What add_where's arguments say of where to run."""
    slurm = tuple(shlex.split(args.slurm))
    if slurm and args.launcher != "slurm":
        raise UserError(f"SLURM={args.slurm!r}: is for LAUNCHER=slurm")
    return Hardware(args.gpus, args.nodes, args.rendezvous, slurm if args.launcher == "slurm" else None)
