"""What a split of a COCO root is made of: a JSON, a folder of images, and where not all belong, which do."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from rankdet.errors import UserError

PartSpec = str | Mapping[str, str | bool]  # what data.source.splits.* may hold, or a list of such
KEYS = ("split", "annotations", "images", "only", "without", "labelled")


class Part(NamedTuple):
    """One JSON of a split."""

    annotations: Path
    images: Path  # folder
    only: Path | None = None  # a file of image ids: these alone
    without: Path | None = None  # a file of image ids: all but these
    labelled: bool = True  # False: the JSON lists images and categories, and a server keeps the annotations

    def keep(self, image_ids: set[int]) -> set[int]:
        """Those of the JSON's image ids that belong to the part. UserError where an id file lists others."""
        kept = image_ids
        for path in filter(None, (self.only, self.without)):
            listed = read_ids(path)
            unknown = sorted(listed - image_ids)
            if unknown:
                raise UserError(
                    f"{path} lists image id {unknown[0]}, which {self.annotations} does not have: give the list that "
                    "belongs to it"
                )
            kept = kept & listed if path == self.only else kept - listed
        return kept


def as_part(root: Path, spec: PartSpec, annotations: str, images: str) -> Part:
    """A part from its config: a name that fills {split} in the two patterns, or a mapping with these keys.

    split: such a name; annotations, images: paths in the patterns' place; only, without: files of image ids; labelled.
    All paths are under root. UserError for another key.
    """
    keys = {"split": spec} if isinstance(spec, str) else dict(spec)
    unknown = [key for key in keys if key not in KEYS]
    if unknown:
        raise UserError(f"data.source.splits: a part has no key {unknown[0]!r}; there are {', '.join(KEYS)}")
    paths = {"annotations": annotations, "images": images, **keys}
    if "split" not in keys and not {"annotations", "images"} <= keys.keys():
        raise UserError(f"data.source.splits: {keys} needs a split, or annotations and images")
    files = {key: root / str(paths[key]).format(split=keys.get("split")) for key in ("annotations", "images")}
    ids = {key: root / str(keys[key]) for key in ("only", "without") if key in keys}
    return Part(**files, **ids, labelled=bool(keys.get("labelled", True)))


def read_ids(path: Path) -> set[int]:
    """Image ids from a text file, one a line, or those of the images of a COCO JSON. UserError for anything else."""
    if not path.is_file():
        raise UserError(
            f"{path} does not exist: it must list image ids, one a line (.txt) or as the images of a COCO JSON (.json)"
        )
    try:
        if path.suffix == ".json":
            return {int(image["id"]) for image in json.loads(path.read_bytes())["images"]}
        return {int(line) for line in path.read_text(encoding="utf-8-sig").split()}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no list of image ids ({error!r:.80}): one a line, or a COCO JSON") from error
