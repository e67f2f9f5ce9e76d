"""What is wrong with a data set: errors that make a training or its figures wrong, and warnings."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import torch
from torchvision.ops import box_iou

from rankdet.checking.images import Decoded
from rankdet.checking.splits import PARTS_OF_TRAINVAL, Reading
from rankdet.data.records import DetectionSet, Record

ERROR, WARNING = "error", "warning"
IMAGE_TYPES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
SAME_BOX = 0.95  # IoU from which two boxes of one class are taken for the same object drawn twice
ANNOTATION, IMAGE = "annotation refused", "image refused"
SHARED, LEAK = "image listed in two splits", "same picture in two splits"
TWIN, TWICE, UNLISTED, TURNED = "same picture twice", "duplicate box", "image not listed", "image with EXIF orientation"
NO_IMAGE = "split without an image"
ERRORS = (ANNOTATION, IMAGE, SHARED, LEAK)


class Finding(NamedTuple):
    """One thing that a person should look at."""

    kind: str  # one of the above, or a kind of dirt that readers mend (rankdet/data/cleaning.py)
    file: str  # the image's path, or for what a reader refused, its split
    text: str  # one line that says it all
    number: int = 1  # of boxes, where it is about boxes

    @property
    def severity(self) -> str:
        """ERROR or WARNING."""
        return ERROR if self.kind in ERRORS else WARNING


def find(reading: Reading, decoded: Sequence[Decoded]) -> list[Finding]:
    """All findings, errors first, otherwise in the order of the checks and of the files."""
    found = [Finding(ANNOTATION, word, text) for text, word in reading.problems.items()]
    found += [Finding(IMAGE, str(each.path), each.problem) for each in decoded if each.problem]
    found += [
        Finding(NO_IMAGE, split.split, f"{split.split}: has no image, or none that could be read")
        for split in reading.splits
        if not split.records
    ]
    homes = _homes(reading.splits)
    found += _shared(homes)
    found += _same_pictures(decoded, homes)
    for kind, counts in reading.mended.items():
        found += [Finding(kind, str(path), f"{path}: {kind}, {number} x", number) for path, number in counts.items()]
    found += _duplicate_boxes(reading.splits)
    found += _unlisted(reading, homes)
    for each in decoded:
        if each.orientation != 1:
            text = f"{each.path}: EXIF says to show it turned ({each.orientation}); boxes must fit it as stored"
            found.append(Finding(TURNED, str(each.path), text))
    return sorted(found, key=lambda finding: finding.severity != ERROR)


def _homes(splits: Iterable[DetectionSet]) -> dict[Path, list[str]]:
    """Image file -> the splits that list it."""
    homes: dict[Path, list[str]] = defaultdict(list)
    for split in splits:
        for record in split.records:
            homes[record.path].append(split.split)
    return homes


def _strangers(one: str, other: str) -> bool:
    """Whether two splits must have no picture in common."""
    return one != other and not ("trainval" in (one, other) and {one, other} & set(PARTS_OF_TRAINVAL))


def _shared(homes: dict[Path, list[str]]) -> Iterable[Finding]:
    for path, words in homes.items():
        for one, other in combinations(words, 2):
            if _strangers(one, other):
                yield Finding(SHARED, str(path), f"{path}: listed in {one} and in {other}: take it out of one")


def _same_pictures(decoded: Sequence[Decoded], homes: dict[Path, list[str]]) -> Iterable[Finding]:
    """Files of equal bytes or equal pixels: in two splits an error, within one a warning."""
    groups: dict[str, list[Decoded]] = defaultdict(list)
    for each in decoded:
        groups[each.pixel_hash or each.file_hash].append(each)
    for group in (group for key, group in groups.items() if key):
        for number, other in enumerate(group[1:], start=1):
            leaks = ((one, words) for one in group[:number] if (words := _apart(homes[one.path], homes[other.path])))
            one, words = next(leaks, (group[0], None))
            what = "the same file" if one.file_hash == other.file_hash else "the same pixels"
            if words:
                text = f"{one.path} in {words[0]} and {other.path} in {words[1]} are {what}: remove one"
                yield Finding(LEAK, str(other.path), text)
            else:
                yield Finding(TWIN, str(other.path), f"{one.path} and {other.path} are {what}: remove one")


def _apart(one: list[str], other: list[str]) -> tuple[str, str] | None:
    """Two splits, one from each list, that must have no picture in common."""
    return next(((a, b) for a in one for b in other if _strangers(a, b)), None)


def _duplicate_boxes(splits: Iterable[DetectionSet]) -> Iterable[Finding]:
    seen: set[Path] = set()
    for split in splits:
        for record in split.records:
            number = 0 if record.path in seen else num_duplicates(record)
            seen.add(record.path)
            if number:
                text = f"{record.path}: {number} boxes lie on another of their class (IoU {SAME_BOX} or more)"
                yield Finding(TWICE, str(record.path), text.replace("1 boxes lie", "1 box lies"), number)


def num_duplicates(record: Record) -> int:
    """How many boxes overlap an earlier box of the same class by an IoU of SAME_BOX or more; crowds aside."""
    if len(record.boxes) < 2:
        return 0
    boxes, labels = torch.from_numpy(record.boxes).double(), torch.from_numpy(record.labels)
    same = (box_iou(boxes, boxes) >= SAME_BOX) & (labels[:, None] == labels)
    objects = torch.from_numpy(~record.crowd)
    return int((same & objects & objects[:, None]).tril(-1).any(dim=1).sum())


def _unlisted(reading: Reading, homes: dict[Path, list[str]]) -> Iterable[Finding]:
    """Images beside listed ones that no split lists."""
    left_out = {Path(name).name for name in reading.unread}
    for folder in sorted({path.parent for path in homes}):
        for path in sorted(folder.iterdir()):
            known = path in homes or path.name in left_out or path.stem in left_out
            if path.suffix.lower() in IMAGE_TYPES and not known:
                yield Finding(UNLISTED, str(path), f"{path}: no split lists it")
