"""What a data set is once read: one record an image, the same for VOC, COCO and drawn sets."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Record:
    """One image and its annotation as read and cleaned, before augmentation. G objects."""

    image_id: int  # unique within the split; the COCO image id, or the position in a VOC split file
    path: Path
    height: int  # pixels, as annotated
    width: int
    boxes: np.ndarray  # float32 [G, 4]: xyxy, 0-based continuous pixels, inside the image, positive area
    labels: np.ndarray  # int64 [G]: 0..K-1, positions in DetectionSet.classes
    difficult: np.ndarray  # bool [G]: VOC's flag; not counted at test time
    crowd: np.ndarray  # bool [G]: COCO's iscrowd; a region, not an object


@dataclass(frozen=True)
class DetectionSet:
    """One split of a data set in memory (annotations only)."""

    name: str  # "shapes", "bccd", ...
    split: str  # "train", "test", ... as the user names it
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]  # COCO category id of each class (VOC: 1..K); may have holes
    records: tuple[Record, ...]
    dirt: dict[str, int] = field(default_factory=dict)  # kind of repaired dirt -> how often: "box clipped" -> 3
    labelled: bool = True  # False: an evaluation server keeps the objects, and no record has any

    def fingerprint(self) -> str:
        """16 hex digits: a hash of class names, image file names and sizes, boxes and flags, not of the root's path."""
        digest = hashlib.sha256(json.dumps(self.classes).encode())
        for record in self.records:
            head = [record.path.name, record.height, record.width, len(record.boxes)]
            digest.update(json.dumps(head).encode())
            for array, dtype in ((record.boxes, "<f4"), (record.labels, "<i8")):
                digest.update(np.ascontiguousarray(array, dtype).tobytes())
            for flags in (record.difficult, record.crowd):
                digest.update(np.ascontiguousarray(flags, bool).tobytes())
        return digest.hexdigest()[:16]


def data_hash(train: DetectionSet, test: DetectionSet) -> str:
    """What a run learns from and what it is tested on, for its record."""
    return f"{train.fingerprint()}-{test.fingerprint()}"


class Source(Protocol):
    """Where splits come from; what configs/data/*.yaml instantiates as data.source."""

    def read(self, split: str) -> DetectionSet:
        """Reads (or first draws) one split. Raises UserError naming file and remedy."""


class Target(NamedTuple):
    """What the detector learns from in one image. G objects, pixels of the network's input."""

    boxes: Tensor  # float32 [G, 4] xyxy
    labels: Tensor  # int64 [G], 0..K-1
    ignore: Tensor  # bool [G]: regions whose anchors take no part (COCO crowds; VOC difficult if so configured)
    image_id: int
    size: tuple[int, int]  # (height, width) of the image file, to map detections back
    shown: tuple[int, int] | None = None  # (height, width) of the input's top left part with the image; None: all of it
    mirrored: bool = False  # left to right, within that part


class Batch(NamedTuple):
    """B images of one size. H, W: network input size."""

    images: Tensor  # uint8 [B, 3, H, W], RGB; the model normalises
    targets: list[Target]
