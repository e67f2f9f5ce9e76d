"""Where readers say what is wrong with one image or entry: the first such thing ends a reading, unless it is noted."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path

from rankdet.data.records import Record
from rankdet.errors import UserError


@dataclass
class Journal:
    """What readers met while it was open."""

    problems: list[str] = field(default_factory=list)  # the messages of UserErrors, each once, in order
    unread: list[str] = field(default_factory=list)  # images left out for one: VOC stems, COCO file names
    mended: dict[str, Counter[Path]] = field(default_factory=dict)  # kind of dirt -> image file -> how often


_open: ContextVar[Journal | None] = ContextVar("journal", default=None)


@contextmanager
def noting() -> Iterator[Journal]:
    """Within it readers note what concerns one image or entry alone, leave this one out and go on.

    What concerns a whole file or split still ends the reading with a UserError.
    """
    journal = Journal()
    token = _open.set(journal)
    try:
        yield journal
    finally:
        _open.reset(token)


def refuse(error: UserError) -> None:
    """What a reader calls instead of raising: raises the error, or returns where it was noted."""
    journal = _open.get()
    if journal is None:
        raise error
    if str(error) not in journal.problems:
        journal.problems.append(str(error))


def read_each(readers: Iterable[tuple[str, Callable[[Counter[str]], Record]]], dirt: Counter[str]) -> Iterator[Record]:
    """The record of each (image's name, reader); a reader counts in its argument what it mends, for dirt."""
    journal = _open.get()
    for name, reader in readers:
        own: Counter[str] = Counter()
        try:
            record = reader(own)
        except UserError as error:
            refuse(error)
            journal.unread.append(name)
            continue
        dirt.update(own)
        for kind, number in own.items() if journal else ():
            journal.mended.setdefault(kind, Counter())[record.path] += number
        yield record
