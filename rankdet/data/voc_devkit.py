"""Several years of Pascal VOC as one data set: a folder VOCdevkit that holds VOC2007, VOC2012 or both."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rankdet.data.records import DetectionSet, Record
from rankdet.data.voc import VOCSource
from rankdet.errors import UserError


class VOCDevkit:
    """Splits that join parts of several years, each in the layout of VOCSource: "VOC2007/trainval", "VOC2012/val".

    root: the folder VOCdevkit, or the one that holds it. classes: the names in label order, the same for all years.
    splits: the user's word for a split -> its parts, in order; a part is also its own word. unlabelled: parts whose
    objects an evaluation server keeps, so that they have images alone. Images are numbered from 0 over all parts.
    """

    def __init__(
        self,
        root: str | Path,
        name: str,
        classes: Sequence[str],
        splits: Mapping[str, Sequence[str]],
        unlabelled: Collection[str] = (),
    ) -> None:
        """Reads nothing yet; a year's folder is looked for when a split needs it."""
        self.root = devkit_folder(root)
        self.name = name
        self.classes = tuple(classes)
        self.splits = {word: list(parts) for word, parts in splits.items()}
        self.unlabelled = frozenset(unlabelled)

    def read(self, split: str) -> DetectionSet:
        """All images of one split, part after part; the union of the parts' dirt.

        Raises UserError for an unknown word, a missing year, an image that two parts share, a split of labelled and
        unlabelled parts, and whatever VOCSource.read refuses."""
        parts = self.splits.get(split, [split])
        labelled = {part not in self.unlabelled for part in parts}
        if len(labelled) > 1:
            raise UserError(f"{self.name}: {split} joins {' and '.join(parts)}, of which one has no annotations")
        dirt: Counter[str] = Counter()
        records: list[Record] = []
        for part in parts:
            year, _, file = part.partition("/")
            if not file:
                known = ", ".join(sorted(self.splits))
                raise UserError(f"{self.name} has no split {part!r}: give one of {known}, or e.g. VOC2007/val")
            found = VOCSource(self._year(year), classes=self.classes).read(file, part not in self.unlabelled)
            dirt.update(found.dirt)
            records += found.records
        if len({record.path for record in records}) < len(records):
            raise UserError(f"{self.root}: {' and '.join(parts)} share images, so {split} would have them twice")
        numbered = tuple(replace(record, image_id=position) for position, record in enumerate(records))
        category_ids = tuple(range(1, len(self.classes) + 1))
        return DetectionSet(self.name, split, self.classes, category_ids, numbered, dict(dirt), labelled != {False})

    def _year(self, year: str) -> Path:
        folder = self.root / year
        if not folder.is_dir():
            raise UserError(f"{folder} does not exist: `make data-voc` gets it, or set data.root to what holds {year}")
        return folder


def devkit_folder(root: str | Path) -> Path:
    """The folder of the years: root/VOCdevkit where there is one, else root itself."""
    inner = Path(root) / "VOCdevkit"
    return inner if inner.is_dir() else Path(root)
