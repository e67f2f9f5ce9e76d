"""Small made-up VOCdevkits and COCO roots, and the archives that unpack to them."""

import functools
import io
import json
import tarfile
import zipfile
from copy import deepcopy
from pathlib import Path

from omegaconf import DictConfig
from PIL import Image

from rankdet.config import compose
from rankdet.prepare import voc

# year -> stems of train, val and test; file -> the year, whose images it has.
STEMS = {
    "VOC2007": {"train": ["000001", "000003"], "val": ["000005"], "test": ["000002", "000004"]},
    "VOC2012": {"train": ["2008_000001"], "val": ["2009_000002", "2011_000003"], "test": ["2008_000004"]},
}
TARS = {
    voc.TRAINVAL_2007.archive.name: ("VOC2007", ("train", "val", "trainval")),
    voc.TEST_2007.archive.name: ("VOC2007", ("test",)),
    voc.TRAINVAL_2012.archive.name: ("VOC2012", ("train", "val", "trainval")),
    voc.TEST_2012.archive.name: ("VOC2012", ("test",)),
}


@functools.cache
def _composed(data: str) -> DictConfig:
    return compose([f"data={data}"])


def composed(overrides: list[str]) -> DictConfig:
    """The config of one data=..., composed once: it takes most of a small test's time."""
    (override,) = overrides
    return deepcopy(_composed(override.removeprefix("data=")))


def jpeg(width: int = 32, height: int = 24, shade: int = 90) -> bytes:
    """A grey picture."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), (shade, shade, shade)).save(file, "JPEG")
    return file.getvalue()


def voc_files(year: str, splits: tuple[str, ...]) -> dict[str, bytes]:
    """Path under VOCdevkit -> content. Image i of all has a person in its upper left 10 x 10 pixels and a cat, which is
    difficult, at the right; of VOC2012's test set no annotation is published."""
    lists = {**STEMS[year], "trainval": STEMS[year]["train"] + STEMS[year]["val"]}
    files = {}
    for split in splits:
        files[f"{year}/ImageSets/Main/{split}.txt"] = "".join(f"{stem}\n" for stem in lists[split]).encode()
        for stem in lists[split]:
            files[f"{year}/JPEGImages/{stem}.jpg"] = jpeg()
            boxes = [("person", "0", 1, 1, 10, 10), ("cat", "1", 20, 5, 32, 24)]
            objects = "".join(
                f"<object><name>{name}</name><difficult>{hard}</difficult><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
                f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
                for name, hard, x1, y1, x2, y2 in boxes
            )
            size = "<size><width>32</width><height>24</height><depth>3</depth></size>"
            if (year, split) != ("VOC2012", "test"):
                files[f"{year}/Annotations/{stem}.xml"] = f"<annotation>{size}{objects}</annotation>".encode()
    return files


def voc_devkit(folder: Path, names: tuple[str, ...] = tuple(TARS)) -> Path:
    """folder/VOCdevkit as those of the four archives unpack to."""
    for name in names:
        for path, content in voc_files(*TARS[name]).items():
            file = folder / "VOCdevkit" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    return folder / "VOCdevkit"


def tar(files: dict[str, bytes], top: str = "VOCdevkit/") -> bytes:
    """A tar archive of files below top."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for path, content in files.items():
            member = tarfile.TarInfo(f"{top}{path}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return made.getvalue()


def voc_tars(names: tuple[str, ...] = tuple(TARS)) -> dict[str, bytes]:
    """Archive name -> archive."""
    return {name: tar(voc_files(*TARS[name])) for name in names}


COCO_IMAGES = {"train2017": [9, 25, 30], "val2017": [7, 40], "test2017": [3, 6]}
# 2014 cut the same images otherwise: minival, which became val2017, is a part of val2014.
COCO_IMAGES |= {"train2014": [9, 25], "val2014": [7, 30, 40]}
CATEGORIES = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]


def coco_name(split: str, image_id: int) -> str:
    """2014's file names bear the split's."""
    return f"{image_id:012d}.jpg" if "2017" in split else f"COCO_{split}_{image_id:012d}.jpg"


def coco_json(split: str, labelled: bool = True) -> bytes:
    """One JSON: a dog in each image, image_id pixels wide at most."""
    images = [{"id": key, "file_name": coco_name(split, key), "width": 32, "height": 24} for key in COCO_IMAGES[split]]
    content = {"images": images, "categories": CATEGORIES}
    if labelled:
        content["annotations"] = [
            {"id": 100 + key, "image_id": key, "category_id": 18, "bbox": [1, 2, min(key, 30), 5], "iscrowd": 0}
            for key in COCO_IMAGES[split]
        ]
    return json.dumps(content).encode()


def coco_files(archive: str) -> dict[str, bytes]:
    """Path -> content of what COCO's archive of this name holds, without .zip."""
    if archive in COCO_IMAGES:
        return {f"{archive}/{coco_name(archive, key)}": jpeg() for key in COCO_IMAGES[archive]}
    if archive == "image_info_test2017":
        return {"annotations/image_info_test-dev2017.json": coco_json("test2017", labelled=False)}
    year = archive.removeprefix("annotations_trainval")
    splits = {f"annotations/instances_{word}{year}.json": coco_json(f"{word}{year}") for word in ("train", "val")}
    return {**splits, f"annotations/captions_val{year}.json": b"{}"}


def coco_root(folder: Path, *archives: str) -> Path:
    """A folder as those archives unpack to."""
    for archive in archives:
        for path, content in coco_files(archive).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
    return folder


def zipped(files: dict[str, bytes]) -> bytes:
    """A zip archive."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return made.getvalue()


def coco_zips(*archives: str) -> dict[str, bytes]:
    """Archive name -> archive."""
    return {f"{archive}.zip": zipped(coco_files(archive)) for archive in archives}


def tree(folder: Path) -> dict[str, bytes]:
    """Path -> content of every file below folder, locks aside."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
