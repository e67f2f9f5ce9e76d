"""The images and classes that a server knows, and which server measures what the papers print."""

import re
from dataclasses import dataclass
from pathlib import Path

from rankdet.data.records import DetectionSet
from rankdet.errors import UserError
from rankdet.evaluation.ground_truth import check_ground_truth, read_json
from rankdet.evaluation.results import Result, check_results

VOC, COCO = "voc", "coco"
# Images of these test sets, as devkit and image_info_test-dev2017.json list them.
NUM_IMAGES = {VOC: 10991, COCO: 20288}
NUM_CLASSES = {VOC: 20, COCO: 80}


@dataclass(frozen=True)
class ImageInfo:
    """What results may speak of; ids as in the results."""

    images: dict[int, str]  # image id -> file name
    categories: dict[int, str]  # category id -> class name

    def check(self, results: list[Result], where: str) -> None:
        """UserError naming the first result with another id, a number that is not finite or a box of negative size."""
        images = [{"id": image_id} for image_id in self.images]
        categories = [{"id": category_id, "name": name} for category_id, name in self.categories.items()]
        check_results({"images": images, "categories": categories, "annotations": []}, results, where)


def info_of(detection_set: DetectionSet) -> ImageInfo:
    """Of a split, with annotations or without."""
    images = {record.image_id: record.path.name for record in detection_set.records}
    return ImageInfo(images, dict(zip(detection_set.category_ids, detection_set.classes, strict=True)))


def read_image_info(path: Path) -> ImageInfo:
    """From a JSON with COCO's images and categories, such as image_info_test-dev2017.json. UserError if it is none."""
    content = read_json(path)
    if isinstance(content, dict):
        content = {**content, "annotations": []}
    check_ground_truth(content, str(path))
    for place, image in enumerate(content["images"]):
        if not isinstance(image.get("file_name"), str):
            raise UserError(f"{path}: images[{place}] has no file_name: it is no list of image files")
    images = {image["id"]: image["file_name"] for image in content["images"]}
    return ImageInfo(images, {category["id"]: category["name"] for category in content["categories"]})


def require_own_ids(info: ImageInfo) -> None:
    """UserError where images bear COCO's names but not COCO's ids, which a union of splits numbers anew."""
    for image_id, name in info.images.items():
        number = re.search(r"(?:^|_)(\d{12})$", Path(name).stem)
        if number and int(number[1]) != image_id:
            raise UserError(
                f"{name} has image id {image_id}, but the server knows it as {int(number[1])}: predict on the split "
                "itself, not on a union of splits, which numbers its images anew"
            )


def checked_name(name: str) -> str:
    """A method's name, which becomes part of a file's. UserError for one that cannot."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise UserError(f"NAME={name}: give letters, digits, - and _ alone, since it becomes part of a file's name")
    return name


def doubts(info: ImageInfo, server: str, results: list[Result]) -> list[str]:
    """Why the server may not take it, or give a poor score: lines for the user; none in the ordinary case."""
    lines = []
    for found, expected, what in (
        (len(info.images), NUM_IMAGES[server], "images"),
        (len(info.categories), NUM_CLASSES[server], "classes"),
    ):
        if found != expected:
            lines.append(f"these are {found} {what}, the server's test set has {expected}: it will not take them")
    silent = len(info.images) - len({result["image_id"] for result in results})
    if silent:
        lines.append(f"{silent} of {len(info.images)} images have no detection")
    return lines
