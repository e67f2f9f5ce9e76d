"""Data sets: what DATA= asks for, and what stands for those of the printed tables (experiments/datasets.yaml)."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from rankdet.config import CONFIG_DIR
from rankdet.data.layout import detect_source
from rankdet.errors import UserError
from rankdet.results.reading import check_keys, read_yaml

MINI = ("mini", "mini_long")
SERVERS = ("voc", "coco")
MAIN = "voc07-test"  # the data set of a table that DATA= is about where it names no other


@dataclass(frozen=True)
class DataChoice:
    """Something to train and test on, as overrides. name is what run directories and tables call it."""

    name: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class PrintedSet:
    """A printed data set. title: in tables. mini, paper: what stands for it under the protocols.

    settings: of the paper protocol's trainings for it, whatever they are trained on. server: of SERVERS, the one that
    keeps the objects of paper's test split; None where they are at hand."""

    key: str
    title: str
    mini: DataChoice
    paper: DataChoice
    settings: tuple[str, ...]
    server: str | None

    def own(self, protocol: str) -> DataChoice:
        """What stands for it under a protocol."""
        return self.mini if protocol in MINI else self.paper

    def settings_under(self, protocol: str) -> tuple[str, ...]:
        """What its trainings have beside the data."""
        return () if protocol in MINI else self.settings


@lru_cache(maxsize=4)
def load_datasets(path: Path) -> Mapping[str, PrintedSet]:
    """Reads and checks the file; UserError naming it and the key for anything unknown or missing."""
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise UserError(f"{path}: expected a mapping from printed data sets to what stands for them")
    found = {}
    for key, value in raw.items():
        entry = check_keys(value, f"{path}: {key}", ("title", "mini", "paper"), ("split", "schedule", "server"))
        if entry.get("server", "voc") not in SERVERS:
            raise UserError(f"{path}: {key}.server: {entry['server']!r} is not one of {', '.join(SERVERS)}")
        for protocol in ("mini", "paper"):
            if entry[protocol] not in named_sets():
                known = ", ".join(named_sets())
                raise UserError(
                    f"{path}: {key}.{protocol}: there is no data set {entry[protocol]!r}; there are {known}"
                )
        split = (f"splits.test={entry['split']}",) if "split" in entry else ()
        settings = (f"schedule={entry['schedule']}",) if "schedule" in entry else ()
        mini, paper = (f"data={entry[protocol]}" for protocol in ("mini", "paper"))
        found[str(key)] = PrintedSet(
            str(key), str(entry["title"]), DataChoice(entry["mini"], (mini,)),
            DataChoice(entry["paper"], (paper, *split)), settings, entry.get("server"),
        )  # fmt: skip
    return found


def stand_ins(sets: Collection[PrintedSet], protocol: str, given: DataChoice | None) -> dict[str, DataChoice]:
    """Printed set -> what is trained and tested on for it; without those for which there is nothing.

    given: what DATA= asked for; None: each has its own. A given one that is some sets' own stands for these, and any
    other for MAIN, or for the first set where that is not among them. UserError for a drawn set under paper.
    """
    own = {one.key: one.own(protocol) for one in sets}
    if given is None or not sets:
        return own
    if protocol not in MINI and given.name in {one.mini.name for one in sets}:
        raise UserError("PROTOCOL=paper: the drawn sets are for mini; leave out DATA, or give DATA=path/to/VOC")
    same = {key: choice for key, choice in own.items() if choice.name == given.name}
    return same or {MAIN if MAIN in own else next(iter(own)): given}


def named_sets() -> list[str]:
    """The data sets that have a config of their own."""
    return sorted({path.stem for path in (CONFIG_DIR / "data").glob("*.yaml")} - {"voc", "coco"})


def choose_data(data: str) -> DataChoice:
    """DATA=shapes, voc0712 or another set of configs/data, or a folder in VOC or COCO layout, as overrides.

    UserError for anything else.
    """
    sets = named_sets()
    if data in sets:
        return DataChoice(data, (f"data={data}",))
    folder = Path(data).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"DATA={data}: no such folder; give one in Pascal VOC or COCO layout, or one of {', '.join(sets)}"
        )
    folder = folder.resolve()
    if folder.name in sets:
        raise UserError(f"DATA={data}: runs and tables would bear the name of data={folder.name}; rename the folder")
    return DataChoice(folder.name, (f"data={detect_source(folder)}", f"data.root={quoted(str(folder))}"))


def quoted(text: str) -> str:
    """text as Hydra's grammar wants it: in quotes where it holds a comma, a blank, = or the like."""
    if re.fullmatch(r"[\w./-]+", text, re.ASCII):
        return text
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def unquoted(text: str) -> str:
    """The inverse of quoted."""
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith("'") else text
