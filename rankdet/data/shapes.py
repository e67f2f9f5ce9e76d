"""The embedded set: six kinds of drawn shapes in a Pascal VOC folder, written once, the same from the same settings."""

import hashlib
import json
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from rankdet.data import draw
from rankdet.data.draw import OBJECTS, Shape, draw_picture
from rankdet.data.records import DetectionSet
from rankdet.data.voc import VOCSource
from rankdet.errors import UserError

ABANDONED = 3600.0  # seconds after which a half-drawn folder is taken for one of a killed process


class ShapesSource:
    """Reads the embedded set, drawing it first where it is not there.

    It lies in <root>-<hash of all settings and of the drawing program>, an ordinary VOC folder, so that neither other
    settings nor a changed program meet old pictures. It is drawn under a hidden name and then renamed: a killed process
    leaves no folder that could be taken for the set, and of two that draw at once the later one uses the earlier one's.
    num_*: images a split; trainval: train and val. height, width: pixels of each picture. sizes: shortest and longest
    diameter of a shape in pixels, see draw_picture.
    """

    def __init__(
        self,
        root: str | Path = "data/shapes",
        name: str = "shapes",
        seed: int = 0,
        num_train: int = 300,
        num_val: int = 100,
        num_test: int = 200,
        height: int = 120,
        width: int = 160,
        sizes: tuple[float, float] = (18.0, 64.0),
    ) -> None:
        """Draws nothing yet. Raises UserError for settings from which no picture can be drawn."""
        self.name = name
        self._settings = {
            "program": _program_hash(),
            "seed": int(seed),
            "splits": {"train": int(num_train), "val": int(num_val), "test": int(num_test)},
            "size": [int(height), int(width)],
            "sizes": [float(size) for size in sizes],
        }
        if min(num_train, num_val, num_test) < 1:
            raise UserError(f"data.source.num_*={num_train}, {num_val}, {num_test}: set each to 1 or more")
        if len(sizes) != 2 or not 4 <= sizes[0] <= sizes[1] <= min(height, width):
            raise UserError(
                f"data.source.sizes={list(sizes)}: set two numbers from 4 to {min(height, width)}, ascending"
            )
        if seed < 0:
            raise UserError(f"data.source.seed={seed}: set a number from 0 on")
        digest = hashlib.sha256(json.dumps(self._settings, sort_keys=True).encode()).hexdigest()
        self.folder = Path(f"{root}-{digest[:8]}")

    def read(self, split: str) -> DetectionSet:
        """One of train, val, trainval and test; classes in alphabetical order."""
        if not self.folder.is_dir():
            self._draw()
        return VOCSource(self.folder, self.name, sorted(OBJECTS)).read(split)

    def num_images(self, split: str) -> int | None:
        """How many a split has, without drawing any; None where there is no such split."""
        sizes = self._settings["splits"]
        return sizes["train"] + sizes["val"] if split == "trainval" else sizes.get(split)

    def _draw(self) -> None:
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(self.folder)
            part = Path(tempfile.mkdtemp(prefix=f".{self.folder.name}.", dir=self.folder.parent))
        except OSError as error:
            raise self._not_written(error) from error
        try:
            part.chmod(0o755)
            self._fill(part)
            part.rename(self.folder)
        except OSError as error:
            if not self.folder.is_dir():  # else another process was faster, and its pictures are the same
                raise self._not_written(error) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _not_written(self, error: OSError) -> UserError:
        return UserError(
            f"cannot write {self.folder} ({error.strerror}): set data.root to where there is room and leave"
        )

    def _fill(self, part: Path) -> None:
        for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
            (part / folder).mkdir(parents=True)
        height, width = self._settings["size"]
        stems: dict[str, list[str]] = {}
        for number, (split, count) in enumerate(self._settings["splits"].items()):
            stems[split] = [f"{split}_{index:05d}" for index in range(count)]
            for index, stem in enumerate(stems[split]):
                rng = np.random.default_rng([self._settings["seed"], number, index])
                picture, shapes = draw_picture(rng, height, width, self._settings["sizes"])
                Image.fromarray(picture).save(part / "JPEGImages" / f"{stem}.png", compress_level=1)
                (part / "Annotations" / f"{stem}.xml").write_bytes(_annotation(f"{stem}.png", picture, shapes))
        stems["trainval"] = stems["train"] + stems["val"]
        for split, lines in stems.items():
            (part / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        (part / "settings.json").write_text(json.dumps(self._settings, indent=2) + "\n", encoding="utf-8")


def _annotation(filename: str, picture: np.ndarray, shapes: list[Shape]) -> bytes:
    """VOC's XML: the first and the last pixel of a box, counted from 1."""
    root = ElementTree.Element("annotation")
    _add(root, filename=filename)
    _add(ElementTree.SubElement(root, "size"), width=picture.shape[1], height=picture.shape[0], depth=3)
    for shape in shapes:
        item = ElementTree.SubElement(root, "object")
        _add(item, name=shape.name, truncated=int(shape.truncated), difficult=int(shape.difficult))
        x1, y1, x2, y2 = shape.box
        _add(ElementTree.SubElement(item, "bndbox"), xmin=x1 + 1, ymin=y1 + 1, xmax=x2, ymax=y2)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8")


def _add(parent: ElementTree.Element, **texts: str | int) -> None:
    for tag, text in texts.items():
        ElementTree.SubElement(parent, tag).text = str(text)


def _program_hash() -> str:
    sources = [Path(file).read_bytes() for file in (draw.__file__, __file__)]
    return hashlib.sha256(b"".join(sources)).hexdigest()[:16]


def _remove_abandoned(folder: Path) -> None:
    for part in folder.parent.glob(f".{folder.name}.*"):
        with suppress(FileNotFoundError):  # finished by its process meanwhile
            if time.time() - part.stat().st_mtime > ABANDONED:
                shutil.rmtree(part, ignore_errors=True)
