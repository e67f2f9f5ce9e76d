"""COCO's archives and what each brings to a folder with annotations/ and one folder of images a split."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from rankdet.errors import UserError
from rankdet.prepare.supply import Archive

ADDRESS = "http://images.cocodataset.org"  # https://cocodataset.org/#download; it publishes no checksums


@dataclass(frozen=True)
class Annotations:
    """JSON files of one archive."""

    archive: Archive
    places: tuple[str, ...]
    top: str = ""

    def lacks(self, base: Path) -> str | None:
        """The first of the files that is not there. They are not opened."""
        return next((place for place in self.places if not (base / place).is_file()), None)


@dataclass(frozen=True)
class Images:
    """One folder of images: those of the JSON files in the folder that is prepared."""

    archive: Archive
    folder: str
    root: Path
    lists: tuple[str, ...]  # JSON files under root
    top: str = ""

    @property
    def places(self) -> tuple[str, ...]:
        """The folder."""
        return (self.folder,)

    def lacks(self, base: Path) -> str | None:
        """The first image that a list names and base does not have; the folder itself where that is not there."""
        if not (base / self.folder).is_dir():
            return self.folder
        there = {path.name for path in (base / self.folder).iterdir()}
        for path in map(self.root.joinpath, self.lists):
            names = _file_names(path, path.stat().st_mtime_ns) if path.is_file() else ()
            missing = next((name for name in names if name not in there), None)
            if missing:
                return f"{self.folder}/{missing}"
        return None


@lru_cache(maxsize=4)
def _file_names(path: Path, age: int) -> tuple[str, ...]:
    """The images that a JSON of this age lists. UserError where it is no such JSON."""
    try:
        return tuple(image["file_name"] for image in json.loads(path.read_bytes())["images"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: is no list of COCO's images ({error!r:.80}): remove it, run again") from error


def annotations(name: str, *files: str) -> Annotations:
    """The piece of annotations/<name>.zip that is needed: these of its JSON files."""
    archive = Archive(f"{name}.zip", f"{ADDRESS}/annotations/{name}.zip")
    return Annotations(archive, tuple(f"annotations/{file}.json" for file in files))


def images(root: Path, split: str, listed: str) -> Images:
    """The piece of zips/<split>.zip, which must have the images of annotations/<listed>.json."""
    archive = Archive(f"{split}.zip", f"{ADDRESS}/zips/{split}.zip")
    return Images(archive, split, root, (f"annotations/{listed}.json",))


def coco2017(root: Path) -> list[Annotations | Images]:
    """What data=coco2017 needs: annotations first, as they say which images there must be, and small before large."""
    return [
        annotations("annotations_trainval2017", "instances_train2017", "instances_val2017"),
        images(root, "val2017", "instances_val2017"),
        images(root, "train2017", "instances_train2017"),
    ]


def coco_trainval35k(root: Path) -> list[Annotations | Images]:
    """What data=coco_trainval35k needs; the annotations of 2017 for the image ids of minival."""
    return [
        annotations("annotations_trainval2017", "instances_val2017"),
        annotations("annotations_trainval2014", "instances_train2014", "instances_val2014"),
        images(root, "val2014", "instances_val2014"),
        images(root, "train2014", "instances_train2014"),
    ]


def coco_test_dev(root: Path) -> list[Annotations | Images]:
    """What the split test-dev of data=coco2017 needs."""
    return [
        annotations("image_info_test2017", "image_info_test-dev2017"),
        images(root, "test2017", "image_info_test-dev2017"),
    ]


SETS = {"coco2017": coco2017, "coco_trainval35k": coco_trainval35k}
