"""Tells a VOC folder from a COCO folder."""

from pathlib import Path

from rankdet.data.voc_devkit import devkit_folder
from rankdet.errors import UserError


def detect_source(folder: str | Path) -> str:
    """The config group's choice for a folder of data: "voc" or "coco". Raises UserError where it is neither or both."""
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"data folder {root} does not exist: give the path of a folder in VOC or COCO layout")
    marks = {
        "voc": (root / "Annotations").is_dir() and (root / "ImageSets" / "Main").is_dir(),
        "coco": any(root.glob("annotations/instances_*.json")),
    }
    found = [kind for kind, there in marks.items() if there]
    years = sorted(year.name for year in devkit_folder(root).glob("VOC20[0-9][0-9]"))
    if not found and years:
        raise UserError(
            f"{root} holds {' and '.join(years)}: give one of these folders, or data=voc07, voc0712 or voc07pp12 with "
            "data.root"
        )
    if not found:
        layouts = "VOC's (Annotations, ImageSets/Main, JPEGImages) nor COCO's (annotations/instances_*.json)"
        raise UserError(f"{root} is in neither {layouts} layout: give another folder, or data=coco with data.source.*")
    if len(found) > 1:
        raise UserError(f"{root} is in VOC's and in COCO's layout: choose with data=voc or data=coco and data.root")
    return found[0]
