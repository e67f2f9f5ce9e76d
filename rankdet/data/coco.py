"""Any folder in COCO's layout: one JSON of instances and one folder of images a split."""

import json
import re
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rankdet.data.cleaning import clean_boxes, image_size
from rankdet.data.coco_parts import Part, PartSpec, as_part
from rankdet.data.journal import read_each, refuse
from rankdet.data.records import DetectionSet, Record
from rankdet.errors import UserError

INSTANCES = "annotations/instances_{split}.json"
LISTS = {  # of a split's JSON, with what each of their items must have
    "images": {"id": int, "file_name": str},
    "annotations": {"image_id": int, "category_id": int, "bbox": list},
    "categories": {"id": int, "name": str},
}


class COCOSource:
    """The splits of one COCO root. Images without annotations belong to a split; category ids may have holes.

    annotations, images: where a split's JSON and images lie under the root; an image's file_name may have folders.
    splits: the user's word for a split -> the name that fills {split}, or a mapping as in as_part, or several of these,
    whose union it is (their images are then numbered from 0, as their ids may collide); a word not listed is its own
    name. None: found by coco_splits.
    """

    def __init__(
        self,
        root: str | Path,
        name: str | None = None,
        annotations: str = INSTANCES,
        images: str = "{split}",
        splits: Mapping[str, PartSpec | Sequence[PartSpec]] | None = None,
    ) -> None:
        """Reads nothing yet, only looks at the annotation files' names. name defaults to the root's folder name."""
        self.root = Path(root)
        self.name = name or self.root.resolve().name
        self.annotations = annotations
        self.images = images
        if not self.root.is_dir():
            raise UserError(
                f"data root {self.root} does not exist: set data.root to a folder in COCO layout; `make data-coco` "
                "gets COCO itself"
            )
        self.splits = coco_splits(self.root, annotations) if splits is None else dict(splits)
        self._first: tuple[Path, dict[int, str]] | None = None  # the file first read and its categories

    def read(self, split: str) -> DetectionSet:
        """All images of one split in its file's order, boxes cleaned by clean_boxes; classes by ascending category id.

        Raises UserError for a missing file, JSON that does not parse or lacks keys, ids that are unknown or used twice,
        and categories other than those of the split read before."""
        specs = self.splits.get(split, split)
        specs = [specs] if isinstance(specs, str | Mapping) else list(specs)
        parts = [as_part(self.root, spec, self.annotations, self.images) for spec in specs]
        dirt: Counter[str] = Counter()
        records: list[Record] = []
        for part in parts:
            categories, found = self._read(part, dirt)
            records += found
        if len(parts) > 1:
            records = [replace(record, image_id=position) for position, record in enumerate(records)]
            if len({record.path for record in records}) < len(records):
                names = " and ".join(spec if isinstance(spec, str) else str(dict(spec)) for spec in specs)
                raise UserError(f"{self.root}: {names} share images, so {split} would have them twice")
        labelled = all(part.labelled for part in parts)
        classes, category_ids = tuple(categories.values()), tuple(categories)
        return DetectionSet(self.name, split, classes, category_ids, tuple(records), dict(dirt), labelled)

    def _read(self, part: Part, dirt: Counter[str]) -> tuple[dict[int, str], list[Record]]:
        path = part.annotations
        if not path.is_file():
            there = ", ".join(sorted(other.name for other in path.parent.glob("*.json"))) or "no JSON"
            raise UserError(f"{path} does not exist: set data.source.splits to what is there ({there})")
        content = _parse(path, part.labelled)
        categories = {key: item["name"] for key, item in sorted(_by(path, content, "categories", "id").items())}
        if not categories:
            raise UserError(f"{path}: categories is empty, so there are no class names: add them")
        _by(path, content, "categories", "name")
        self._first = self._first or (path, categories)
        if self._first[1] != categories:
            raise UserError(f"{path} and {self._first[0]} list different categories: give both the same list")
        images = _by(path, content, "images", "id")
        _by(path, content, "images", "file_name")
        labels = {key: label for label, key in enumerate(categories)}
        grouped: dict[int, list[dict[str, Any]]] = {key: [] for key in images}
        for item in content["annotations"]:
            unknown = False
            for key, known, where in (("image_id", images, "images"), ("category_id", labels, "categories")):
                if item[key] not in known:
                    unknown = True
                    refuse(
                        UserError(
                            f"{path}: annotation {item.get('id', '?')} has {key} {item[key]!r}, which {where} does not "
                            "list: correct it, or remove the annotation"
                        )
                    )
            if not unknown:
                grouped[item["image_id"]].append(item)
        kept = part.keep(set(images))
        readers = (
            (image["file_name"], partial(_record, path, part.images, image, grouped[key], labels))
            for key, image in images.items()
            if key in kept
        )
        return categories, list(read_each(readers, dirt))


def coco_splits(root: Path, annotations: str = INSTANCES) -> dict[str, str | list[str]]:
    """What train, val, test and trainval are called in a COCO root, by the names of its annotation files.

    train2017, val2017, valid, test ...: the one that begins with the word. With a test file trainval is train and val.
    Without one it is COCO's custom: val is reported on, so that test means val, and trainval train alone. Words for
    which there is no file are left out. Raises UserError where several files begin with the same word.
    """
    pattern = re.compile(re.escape(annotations).replace(re.escape("{split}"), "([^/]+)"))
    paths = [path.relative_to(root).as_posix() for path in root.glob(annotations.replace("{split}", "*"))]
    names = sorted(match[1] for match in map(pattern.fullmatch, paths) if match)
    splits: dict[str, str | list[str]] = {}
    for word in ("train", "val", "test"):
        found = [name for name in names if name.startswith(word)]
        if len(found) > 1:
            raise UserError(f"{root} has several {word} splits ({', '.join(found)}): set data.source.splits.{word}")
        if found:
            splits[word] = found[0]
    if "train" in splits:
        splits["trainval"] = [splits["train"], splits["val"]] if {"val", "test"} <= splits.keys() else splits["train"]
    if "val" in splits:
        splits.setdefault("test", splits["val"])
    return splits


def _record(
    path: Path,
    folder: Path,
    image: dict[str, Any],
    items: list[dict[str, Any]],
    labels: dict[int, int],
    dirt: Counter[str],
) -> Record:
    file = folder / image["file_name"]
    if not file.is_file():
        raise UserError(f"{file} does not exist, but {path} lists it: add it, or remove image id {image['id']} there")
    sides = [_numbers(path, image, side, [image.get(side) or 0], 1)[0] for side in ("height", "width")]
    height, width = image_size(file, *sides, dirt)
    x, y, w, h = np.array([_numbers(path, item, "bbox", item["bbox"], 4) for item in items]).reshape(-1, 4).T
    boxes, kept = clean_boxes(np.stack([x, y, x + w, y + h], axis=1), height, width, dirt)
    label = np.array([labels[item["category_id"]] for item in items], np.int64)[kept]
    crowd = np.array([bool(item.get("iscrowd")) for item in items], bool)[kept]
    return Record(image["id"], file, height, width, boxes, label, np.zeros(len(boxes), bool), crowd)


def _parse(path: Path, labelled: bool) -> dict[str, list[dict[str, Any]]]:
    """The file's content, with all of LISTS in it, of which annotations is empty where labelled is False."""
    try:
        content = json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise UserError(f"{path} is not valid JSON ({where}: {error.msg}): mend or restore the file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not valid JSON (byte {error.start} is no UTF-8): mend or restore it") from error
    if isinstance(content, dict) and not labelled:
        content["annotations"] = []
    for name, keys in LISTS.items():
        items = content.get(name) if isinstance(content, dict) else None
        if not isinstance(items, list):
            raise UserError(f"{path} has no list {name!r}: it is not in COCO's instances format; correct it")
        bad = set()
        for position, item in enumerate(items):
            for key, kind in keys.items():
                if not isinstance(item, dict) or not isinstance(item.get(key), kind):
                    bad.add(position)
                    missing = f"{name}[{position}] has no {key} of type {kind.__name__}"
                    refuse(UserError(f"{path}: {missing}: add or correct it"))
        content[name] = [item for position, item in enumerate(items) if position not in bad] if bad else items
    return content


def _by(path: Path, content: dict[str, list[dict[str, Any]]], name: str, key: str) -> dict[Any, dict[str, Any]]:
    """The items of one list by one of their keys, which must be unique."""
    found: dict[Hashable, dict[str, Any]] = {}
    for item in content[name]:
        if item[key] in found:
            refuse(UserError(f"{path}: {name} has {key} {item[key]!r} twice: remove or renumber one of the two"))
        found.setdefault(item[key], item)
    return found


def _numbers(path: Path, item: dict[str, Any], key: str, values: list[Any], count: int) -> list[float]:
    if len(values) != count or not all(isinstance(value, int | float) for value in values):
        raise UserError(f"{path}: {key} of id {item.get('id', '?')} is {values!r}, not {count} number(s): correct it")
    return [float(value) for value in values]
