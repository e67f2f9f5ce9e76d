"""Pascal VOC's archives and what each brings to a folder VOCdevkit."""

from dataclasses import dataclass
from pathlib import Path

from torchvision.datasets.voc import DATASET_YEAR_DICT

from rankdet.data.voc import SUFFIXES
from rankdet.prepare.supply import Archive


def published(key: str) -> Archive:
    """An archive by torchvision's list of addresses and MD5 sums."""
    entry = DATASET_YEAR_DICT[key]
    return Archive(entry["filename"], entry["url"], entry["md5"])


@dataclass(frozen=True)
class YearSplit:
    """The images that one archive adds to one year, with their annotations unless a server keeps these."""

    archive: Archive
    year: str  # "VOC2007"
    lists: tuple[str, ...]  # files of ImageSets/Main, without .txt
    labelled: bool = True
    top: str = "VOCdevkit"

    @property
    def places(self) -> tuple[str, ...]:
        """The year's folder, which all its archives share."""
        return (self.year,)

    def lacks(self, base: Path) -> str | None:
        """The first list, image or annotation that base/<year> does not have. Files are not opened, lists aside."""
        folder = base / self.year
        images = {path.stem for path in folder.glob("JPEGImages/*") if path.suffix in SUFFIXES}
        annotations = {path.stem for path in folder.glob("Annotations/*.xml")}
        for name in self.lists:
            path = folder / "ImageSets" / "Main" / f"{name}.txt"
            text = path.read_text(errors="replace") if path.is_file() else ""
            stems = [line.split()[0] for line in text.splitlines() if line.strip()]
            if not stems:
                return path.relative_to(base).as_posix()
            for stem in stems:
                if stem not in images:
                    return f"{self.year}/JPEGImages/{stem}.jpg"
                if self.labelled and stem not in annotations:
                    return f"{self.year}/Annotations/{stem}.xml"
        return None


def devkit_to_fill(root: Path) -> Path:
    """Where the years of a root belong: root/VOCdevkit, unless root is such a folder or has held years without one."""
    inner = root / "VOCdevkit"
    is_devkit = root.name == "VOCdevkit" or any((root / year).exists() for year in ("VOC2007", "VOC2012"))
    return root if is_devkit and not inner.is_dir() else inner


TRAINVAL = ("trainval", "train", "val")
TRAINVAL_2007 = YearSplit(published("2007"), "VOC2007", TRAINVAL)
TEST_2007 = YearSplit(published("2007-test"), "VOC2007", ("test",))
TRAINVAL_2012 = YearSplit(published("2012"), "VOC2012", TRAINVAL)
TEST_2012 = YearSplit(
    Archive(
        "VOC2012test.tar",
        url=None,
        hint="its makers hand it out after registration at http://host.robots.ox.ac.uk:8080; put it into the folder "
        "that --from names, beside the other archives",
    ),
    "VOC2012",
    ("test",),
    labelled=False,
)
# What each choice of data= needs.
SETS = {
    "voc07": (TRAINVAL_2007, TEST_2007),
    "voc0712": (TRAINVAL_2007, TEST_2007, TRAINVAL_2012),
    "voc07pp12": (TRAINVAL_2007, TEST_2007, TRAINVAL_2012, TEST_2012),
}
