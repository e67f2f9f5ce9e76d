"""Which splits a data set has, and each of them read to its end, whatever is wrong with single images."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rankdet.data.coco import COCOSource
from rankdet.data.coco_parts import as_part
from rankdet.data.draw import OBJECTS
from rankdet.data.journal import noting
from rankdet.data.records import DetectionSet, Source
from rankdet.data.shapes import ShapesSource
from rankdet.data.voc import VOCSource
from rankdet.data.voc_devkit import VOCDevkit
from rankdet.errors import UserError

ORDER = ("train", "val", "test", "trainval")
PARTS_OF_TRAINVAL = ("train", "val")  # they share its images, as they should


@dataclass
class Reading:
    """All of a data set that could be read. Paths and names are as the readers give them."""

    splits: list[DetectionSet] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)  # words for which the source has no file
    unions: list[str] = field(default_factory=list)  # words whose images are exactly those of train and val
    problems: dict[str, str] = field(default_factory=dict)  # what a reader refused -> the split it first met it in
    unread: set[str] = field(default_factory=set)  # names of images left out for a problem
    mended: dict[str, Counter[Path]] = field(default_factory=dict)  # kind of dirt -> image file -> how often

    def merge_mended(self, found: Mapping[str, Counter[Path]]) -> None:
        """Adds what another split found; an image that both have counts once."""
        for kind, counts in found.items():
            self.mended[kind] = self.mended.get(kind, Counter()) | counts


def read_all(source: Source, show: Callable[[str], None] = lambda word: None) -> Reading:
    """Every split once; show is called with its name before. UserError if there is none at all."""
    if isinstance(source, ShapesSource):
        source.read("train")  # draws it where it is not there yet
        source = VOCSource(source.folder, source.name, sorted(OBJECTS), {word: word for word in ORDER})
    words = _distinct(_specs(source))
    reading = Reading(absent=[word for word, parts in words.items() if not _is_there(source, parts)])
    there = [word for word in words if word not in reading.absent]
    if not there:
        source.read(next(iter(words), "train"))  # its own words for what is missing
    for word in there:
        show(word)
        with noting() as journal:
            try:
                reading.splits.append(source.read(word))
            except UserError as error:  # nothing of this split can be read
                journal.problems.append(str(error))
        for problem in journal.problems:
            reading.problems.setdefault(problem, word)
        reading.unread.update(journal.unread)
        reading.merge_mended(journal.mended)
    _drop_union(reading)
    return reading


def _drop_union(reading: Reading) -> None:
    """Leaves out trainval where it holds nothing that train and val do not."""
    paths = {split.split: {record.path for record in split.records} for split in reading.splits}
    parts = [paths.get(word) for word in PARTS_OF_TRAINVAL]
    if None not in parts and paths.get("trainval") == set().union(*parts):
        reading.unions.append("trainval")
        reading.splits = [split for split in reading.splits if split.split != "trainval"]


def _specs(source: Any) -> dict[str, list[Any]]:  # noqa: ANN401
    """Word -> its parts as the source's settings name them, the usual words first."""
    words = source.splits if source.splits else {word: word for word in ORDER}
    ordered = sorted(words, key=lambda word: ORDER.index(word) if word in ORDER else len(ORDER))
    return {word: _listed(words[word]) for word in ordered}


def _listed(parts: Any) -> list[Any]:  # noqa: ANN401
    return [parts] if isinstance(parts, str | Mapping) else list(parts)


def _distinct(specs: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Without words that mean the same as an earlier one, or the union of whole others."""
    kept: dict[str, list[Any]] = {}
    for word, parts in specs.items():
        single = [other for other in kept.values() if len(other) == 1]
        if parts not in kept.values() and not all([part] in single for part in parts):
            kept[word] = parts
    return kept


def _is_there(source: Any, parts: list[Any]) -> bool:  # noqa: ANN401
    """Whether the files that list a split's images exist."""
    if isinstance(source, COCOSource):
        files = [as_part(source.root, part, source.annotations, source.images).annotations for part in parts]
    elif isinstance(source, VOCDevkit):
        years = [part.rpartition("/") for part in parts]
        files = [source.root / year / "ImageSets" / "Main" / f"{name}.txt" for year, _, name in years]
    else:
        files = [source.root / "ImageSets" / "Main" / f"{name}.txt" for name in parts]
    return all(file.is_file() for file in files)
