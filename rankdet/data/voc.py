"""Any folder in Pascal VOC's layout: Annotations/*.xml, JPEGImages/*, ImageSets/Main/<split>.txt."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from rankdet.data.cleaning import clean_boxes, image_size
from rankdet.data.journal import read_each, refuse
from rankdet.data.records import DetectionSet, Record
from rankdet.errors import UserError

CORNERS = ("xmin", "ymin", "xmax", "ymax")
SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")


class VOCSource:
    """The splits of one VOC root. Boxes are read as VOC means them: first and last pixel, counted from 1.

    classes: the names in label order; None takes every name found in Annotations/, sorted, so that all splits agree.
    splits: the user's word for a split -> its file in ImageSets/Main; a word not listed is its own file. Where there is
    no file trainval but train and val are there, it is those two, one after the other. Category ids are 1..K.
    """

    def __init__(
        self,
        root: str | Path,
        name: str | None = None,
        classes: Sequence[str] | None = None,
        splits: Mapping[str, str] | None = None,
    ) -> None:
        """Reads nothing yet, only checks that the root looks like one. name defaults to the root's folder name."""
        self.root = Path(root)
        self.name = name or self.root.resolve().name
        self.splits = dict(splits or {})
        self._given_classes = tuple(classes) if classes is not None else None
        twice = [name for name, count in Counter(self._given_classes or ()).items() if count > 1]
        if twice:
            raise UserError(f"data.classes has {twice[0]!r} twice: each name is one label")
        if not self.root.is_dir():
            raise UserError(f"data root {self.root} does not exist: set data.root to a folder in VOC layout")
        for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
            if not (self.root / folder).is_dir():
                raise UserError(f"data root {self.root} has no folder {folder}: it is not in VOC layout; set data.root")

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        if self._given_classes is not None:
            return self._given_classes
        folder = self.root / "Annotations"
        found = set()
        for path in sorted(folder.glob("*.xml")):
            try:
                found |= {_text(item, "name", path) for item in _objects(path)}
            except UserError as error:
                refuse(error)
        if not found:
            raise UserError(f"{folder} has no object in any annotation, so no class names: set data.classes")
        return tuple(sorted(found))

    def read(self, split: str, labelled: bool = True) -> DetectionSet:
        """All images of one split in its file's order, boxes cleaned by clean_boxes.

        labelled: False for a split whose objects an evaluation server keeps: annotation files are not looked at, and
        sizes come from the images. Raises UserError for a missing split file, annotation or image, an image listed
        twice, XML that does not parse or lacks a field, and a class name that is not known."""
        dirt: Counter[str] = Counter()
        stems = self._stems(self.splits.get(split, split))
        record = self._record if labelled else self._bare_record
        readers = ((stem, partial(record, position, stem)) for position, stem in enumerate(stems))
        records = tuple(read_each(readers, dirt))
        category_ids = tuple(range(1, len(self.classes) + 1))
        return DetectionSet(self.name, split, self.classes, category_ids, records, dict(dirt), labelled)

    def _stems(self, file_split: str) -> list[str]:
        folder = self.root / "ImageSets" / "Main"
        parts = [folder / f"{file_split}.txt"]
        halves = [folder / "train.txt", folder / "val.txt"]
        if file_split == "trainval" and not parts[0].is_file() and all(half.is_file() for half in halves):
            parts = halves
        seen: dict[str, Path] = {}
        for path in parts:
            for stem in self._lines(path):
                if stem in seen:
                    where = path if seen[stem] == path else f"{seen[stem]} and {path}"
                    refuse(UserError(f"{where}: image {stem!r} is listed twice: remove one of the two lines"))
                seen.setdefault(stem, path)
        return list(seen)

    def _lines(self, path: Path) -> Iterator[str]:
        if not path.is_file():
            there = ", ".join(sorted(other.stem for other in path.parent.glob("*.txt"))) or "none"
            raise UserError(f"{path} does not exist: write it, or map data.source.splits to one that does ({there})")
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: not UTF-8 text ({error.reason}): write the image names in UTF-8") from error
        for line in text.splitlines():
            whole = line.strip()
            if whole:  # further columns are VOC's per-class flags, unless a file name holds the blank
                yield whole if self._annotation(whole).is_file() else whole.split()[0]

    def _annotation(self, stem: str) -> Path:
        return self.root / "Annotations" / f"{stem}.xml"

    def _image(self, stem: str) -> Path:
        candidates = (self.root / "JPEGImages" / f"{stem}{suffix}" for suffix in SUFFIXES)
        path = next((candidate for candidate in candidates if candidate.is_file()), None)
        if path is None:
            raise UserError(
                f"{self.root / 'JPEGImages' / stem}.jpg (or .jpeg, .png) does not exist, but a split lists it: add the "
                f"image, or take {stem!r} out of ImageSets/Main"
            )
        return path

    def _bare_record(self, position: int, stem: str, _: Counter[str]) -> Record:
        path = self._image(stem)
        height, width = image_size(path, 0, 0, Counter())  # a size that nobody wrote is no dirt here
        none = np.zeros(0, bool)
        return Record(position, path, height, width, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), none, none)

    def _record(self, position: int, stem: str, dirt: Counter[str]) -> Record:
        xml, path = self._annotation(stem), self._image(stem)
        if not xml.is_file():
            raise UserError(
                f"{xml} does not exist, but a split lists it: add the annotation (without <object> if the image has "
                f"none), or take {stem!r} out of ImageSets/Main"
            )
        tree = _parse(xml)
        written = [_number(tree, f"size/{side}", xml, default=0) for side in ("height", "width")]
        height, width = image_size(path, *written, dirt)
        objects = tree.findall("object")
        corners = [[_number(item, f"bndbox/{corner}", xml) for corner in CORNERS] for item in objects]
        boxes, kept = clean_boxes(np.array(corners, np.float64), height, width, dirt, first_pixel=1)
        labels = np.array([self._label(item, xml) for item in objects], np.int64)
        difficult = np.array([_number(item, "difficult", xml, default=0) != 0 for item in objects], bool)
        crowd = np.zeros(len(boxes), bool)
        return Record(position, path, height, width, boxes, labels[kept], difficult[kept], crowd)

    def _label(self, item: ElementTree.Element, xml: Path) -> int:
        name = _text(item, "name", xml)
        if name not in self.classes:
            known = ", ".join(self.classes)
            raise UserError(f"{xml}: unknown class name {name!r}: correct it, or add it to data.classes ({known})")
        return self.classes.index(name)


def _objects(path: Path) -> list[ElementTree.Element]:
    return _parse(path).findall("object")


def _parse(path: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:  # its message ends in line and column
        raise UserError(f"{path} is not valid XML ({error}): mend or restore the file") from error


def _text(element: ElementTree.Element, tag: str, path: Path) -> str:
    text = (element.findtext(tag) or "").strip()
    if not text:
        raise UserError(f"{path}: an object has no <{tag.replace('/', '><')}>: add it, or remove the object")
    return text


def _number(element: ElementTree.Element, tag: str, path: Path, default: float | None = None) -> float:
    if default is not None and not (element.findtext(tag) or "").strip():
        return default
    text = _text(element, tag, path)
    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"{path}: <{tag.rpartition('/')[2]}> is {text!r}, not a number: correct it") from error
