"""Functions that finished searches found: where the tables' rows look for them, and what is published of a search."""

import json
import shutil
from pathlib import Path

from rankdet.files import replacing
from rankdet.option_files import GROUPS, opened
from rankdet.results.reading import read_json, read_yaml
from rankdet.search.rounds import SETTINGS, load_rounds
from rankdet.search.settings import PROTOCOLS, SEARCHES, Search, load_search, search_directory, settings_of

FOLDER = Path("experiments", "pap", "searches")  # in the checkout: <protocol>/<search>/, of each search on its own data
FILES = (SETTINGS, "report.md", "rewards.csv", "progress.png", "best/loss.yaml", "best/rpn.yaml", "best/functions.png")
SEED = 0  # of the searches that tables take functions of


def searched(name: str, protocol: str, root: Path) -> tuple[str, ...]:
    """A search's best sample as overrides, fresh (runs/) before published; none where neither is there.

    mini_long takes what was found under mini. UserError for a search that experiments/searches.yaml does not have."""
    search = _load(name, protocol, root)
    published = root / FOLDER / search.protocol / name
    for directory in (search_directory(search, root), published):
        paths = {group: directory / "best" / f"{group}.yaml" for group in GROUPS}
        good = _current(search, directory) if directory == published else _finished(search, directory)
        if paths["loss"].is_file() and good:
            return tuple(opened([f"{group}={path}" for group, path in paths.items() if path.is_file()]))
    return ()


def publish_searches(root: Path) -> list[Path]:
    """Copies what finished searches in runs/ came to, and returns the reports of all that are published."""
    if not (root / SEARCHES).is_file():
        return []
    for name in read_yaml(root / SEARCHES)["searches"]:
        for protocol in PROTOCOLS:
            search = _load(name, protocol, root)
            directory = search_directory(search, root)
            if _finished(search, directory):
                _copy(directory, root / FOLDER / protocol / name)
    return sorted((root / FOLDER).glob("*/*/report.md"))


def _copy(directory: Path, target: Path) -> None:
    for file in FILES:
        if not (directory / file).is_file():
            (target / file).unlink(missing_ok=True)  # an earlier search's
            continue
        with replacing(target / file) as temporary:
            shutil.copyfile(directory / file, temporary)


def _load(name: str, protocol: str, root: Path) -> Search:
    return load_search(root / SEARCHES, name, "paper" if protocol == "paper" else "mini", None, SEED)


def _finished(search: Search, directory: Path) -> bool:
    """Whether directory holds all rounds of just this search."""
    return _current(search, directory) and len(load_rounds(directory)) == search.rounds


def _current(search: Search, directory: Path) -> bool:
    """Whether directory is of just this search: not of one with ARGS, or as it was described before."""
    path = directory / SETTINGS
    begun, today = read_json(path) if path.is_file() else {}, json.loads(json.dumps(settings_of(search)))
    return bool(begun.items() >= today.items())
