"""What the preparing scripts share: their arguments, and the look at what was prepared."""

import argparse
from collections.abc import Iterable
from pathlib import Path

from rankdet.build import open_source
from rankdet.config import compose
from rankdet.data.cleaning import describe_dirt
from rankdet.errors import UserError
from rankdet.prepare.download import say
from rankdet.prepare.supply import Supply


def parser(description: str, choices: Iterable[str], data: str, root: str) -> argparse.ArgumentParser:
    """--data, --root, --from, --mirror."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--data", choices=list(choices), default=data, help="what to get, as data= names it")
    made.add_argument("--root", type=Path, default=Path(root), help=f"where to put it (default: {root})")
    where = made.add_mutually_exclusive_group()
    where.add_argument(
        "--from",
        dest="folder",
        type=Path,
        metavar="DIR",
        help="a folder with the archives, or with what they unpack to, which is linked; then nothing is downloaded",
    )
    where.add_argument("--mirror", metavar="URL", help="another address, below which the archives lie by their names")
    return made


def supply(args: argparse.Namespace, any_checksum: bool = False) -> Supply:
    """What the arguments let us take archives from."""
    if args.folder is not None and not args.folder.is_dir():
        raise UserError(f"--from {args.folder}: no such folder")
    return Supply(args.folder, args.mirror, any_checksum)


def report(data: str, root: Path, words: Iterable[str]) -> None:
    """Reads these splits of data= under root as a training would, and prints what they hold and how to go on."""
    say(f"reading {data}")
    cfg = compose([f"data={data}"])
    default, cfg.data.root = cfg.data.root, str(root)
    source = open_source(cfg)
    for word in words:
        split = source.read(word)
        objects = f"{sum(len(record.boxes) for record in split.records)} objects"
        say(f"{data} {word}: {len(split.records)} images, {objects if split.labelled else 'annotations at a server'}")
        if dirt := describe_dirt(split):
            say(dirt)
    there = "" if str(root) == default else f" data.root={root}"
    say(f"ready for data={data}{there}, e.g. python -m rankdet.train data={data}{there} protocol=paper")
