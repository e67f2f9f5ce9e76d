"""COCO's evaluation server for test-dev: one JSON of results, zipped."""

import json
import zipfile
from collections import Counter
from pathlib import Path

from rankdet.errors import UserError
from rankdet.evaluation.results import Result
from rankdet.evaluation.submission.images import ImageInfo, checked_name, require_own_ids
from rankdet.evaluation.submission.round_trip import require_same
from rankdet.files import replacing

FILE = "detections_test-dev2017_{}_results"
DECIMALS = 2  # of a box's numbers, pixels
DIGITS = 9  # of a score: all that float32 has
MOST = 100  # detections of an image that the server looks at


def coco_path(folder: Path, name: str) -> Path:
    """Where the archive of a method goes. UserError for a name that is none for a file."""
    return folder / f"{FILE.format(checked_name(name))}.zip"


def write_coco(results: list[Result], info: ImageInfo, path: Path) -> None:
    """Writes the archive at a path made by coco_path and reads it back; nothing is left there unless both agree.

    Results go by image id. The same results give the same bytes. UserError for a bad result, images numbered otherwise
    than COCO's, an image with more than MOST detections, and where the archive does not read back.
    """
    info.check(results, "results")
    require_own_ids(info)
    _require_few(results, "results")
    ordered = sorted(results, key=lambda result: result["image_id"])
    text = "[" + ",\n".join(json.dumps(_entry(result), allow_nan=False) for result in ordered) + "]"
    with replacing(path) as partial:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(zipfile.ZipInfo(f"{path.stem}.json"), text, zipfile.ZIP_DEFLATED)
        found = read_coco(partial, info, f"{path.stem}.json")
        require_same(ordered, found, path, 0.5 * 10**-DECIMALS, 10 ** (1 - DIGITS))


def read_coco(path: Path, info: ImageInfo, member: str | None = None) -> list[Result]:
    """The results that an archive holds, in its order; member: the JSON's name, by default the archive's own.

    UserError for another content, and for the first result that the server would refuse: an unknown image or category,
    a number that is not finite, a box of negative size, more than MOST detections of an image."""
    member = member or f"{path.stem}.json"
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.namelist() != [member]:
                raise UserError(f"{path}: must hold {member} and nothing else, not {archive.namelist()[:3]}")
            results = json.loads(archive.read(member))
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise UserError(f"{path}: is no readable .zip with a JSON in it ({error}); write it again") from error
    if not isinstance(results, list):
        raise UserError(f"{path}: {member} holds no list of results")
    info.check(results, f"{path}: {member}")
    _require_few(results, f"{path}: {member}")
    return results


def _entry(result: Result) -> Result:
    return {
        "image_id": int(result["image_id"]),
        "category_id": int(result["category_id"]),
        "bbox": [round(float(number), DECIMALS) for number in result["bbox"]],
        "score": float(f"{result['score']:.{DIGITS}g}"),
    }


def _require_few(results: list[Result], where: str) -> None:
    counts = Counter(result["image_id"] for result in results)
    if counts and (worst := counts.most_common(1)[0])[1] > MOST:
        raise UserError(
            f"{where}: image_id {worst[0]} has {worst[1]} detections, and the server looks at {MOST}: keep the best of "
            "each image (evaluation.detections)"
        )
