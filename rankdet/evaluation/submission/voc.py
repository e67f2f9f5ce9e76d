"""Pascal VOC's evaluation server: one text file for each class, in the devkit's folders, as a .tar.gz."""

import gzip
import io
import math
import tarfile
from collections.abc import Iterator
from pathlib import Path

from rankdet.errors import UserError
from rankdet.evaluation.results import Result
from rankdet.evaluation.submission.images import ImageInfo, checked_name
from rankdet.evaluation.submission.round_trip import require_same
from rankdet.files import replacing

FOLDER = "results/VOC2012/Main"
FILE = "comp4_det_test_{}.txt"  # competition 4: detection, trained on any data (here ImageNet's, at least)
DECIMALS = 2  # of a corner, pixels
DIGITS = 9  # of a score: all that float32 has, so that printing makes no ties


def voc_path(folder: Path, name: str) -> Path:
    """Where the archive of a method goes. UserError for a name that is none for a file."""
    return folder / f"{checked_name(name)}_voc2012_comp4.tar.gz"


def write_voc(results: list[Result], info: ImageInfo, path: Path) -> None:
    """Writes the archive of a results list and reads it back; nothing is left at path unless both agree.

    A line is "name score xmin ymin xmax ymax": the image's file name without suffix and the first and last pixel,
    counted from 1, as the devkit counts them (a continuous, 0-based box x1 y1 x2 y2 is x1 + 1, y1 + 1, x2, y2). Every
    class has its file, also without detections. The same results give the same bytes. UserError for a bad result, for
    names or classes that the format cannot hold, and where the archive does not read back.
    """
    info.check(results, "results")
    names = _names(info)
    grouped = _by_class(results, info)
    with replacing(path) as partial:
        with (
            partial.open("wb") as file,
            gzip.GzipFile("", "wb", mtime=0, fileobj=file) as packed,
            tarfile.open(fileobj=packed, mode="w") as archive,
        ):
            for category_id, name in info.categories.items():
                content = "".join(_line(result, names) for result in grouped[category_id]).encode()
                member = tarfile.TarInfo(f"{FOLDER}/{FILE.format(name)}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        written = [result for category_id in info.categories for result in grouped[category_id]]
        require_same(written, read_voc(partial, info), path, 0.5 * 10**-DECIMALS, 10 ** (1 - DIGITS))


def read_voc(path: Path, info: ImageInfo) -> list[Result]:
    """The results that an archive holds, class by class in info's order, boxes xywh, 0-based and continuous.

    UserError names file and line of what the server would refuse: another set of files, a line without its six fields,
    an unknown image, a number that is not finite."""
    image_ids = {name: image_id for image_id, name in _names(info).items()}
    expected = [f"{FOLDER}/{FILE.format(name)}" for name in info.categories.values()]
    results = []
    try:
        with tarfile.open(path, "r:gz") as archive:
            if sorted(archive.getnames()) != sorted(expected):
                odd = sorted(set(archive.getnames()) ^ set(expected))
                raise UserError(f"{path}: must hold {len(expected)} files, one for each class; see {odd[:3]}")
            for category_id, member in zip(info.categories, expected, strict=True):
                lines = archive.extractfile(member).read().decode().splitlines()
                results += list(_parsed(lines, f"{path}: {member}", category_id, image_ids))
    except (tarfile.TarError, EOFError, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is no readable .tar.gz ({error}); write it again") from error
    return results


def _names(info: ImageInfo) -> dict[int, str]:
    """Image id -> name as the server knows it."""
    names = {image_id: Path(name).stem for image_id, name in info.images.items()}
    for what, words in (("image", names), ("class", info.categories)):
        seen = set()
        for word in words.values():
            if word in seen or word.split() != [word] or "/" in word:
                raise UserError(f"{what} name {word!r}: is empty, has a blank or occurs twice, as VOC's names never do")
            seen.add(word)
    return names


def _by_class(results: list[Result], info: ImageInfo) -> dict[int, list[Result]]:
    grouped: dict[int, list[Result]] = {category_id: [] for category_id in info.categories}
    for result in results:
        grouped[result["category_id"]].append(result)
    return grouped


def _line(result: Result, names: dict[int, str]) -> str:
    x, y, width, height = result["bbox"]
    corners = (x + 1, y + 1, x + width, y + height)
    numbers = " ".join(f"{corner:.{DECIMALS}f}" for corner in corners)
    return f"{names[result['image_id']]} {result['score']:.{DIGITS}g} {numbers}\n"


def _parsed(lines: list[str], where: str, category_id: int, image_ids: dict[str, int]) -> Iterator[Result]:
    for number, line in enumerate(lines, start=1):
        name, *fields = line.split()
        try:
            score, x1, y1, x2, y2 = map(float, fields)
        except ValueError as error:
            raise UserError(f"{where}, line {number}: {line!r:.100} is not a name and five numbers") from error
        if name not in image_ids:
            raise UserError(f"{where}, line {number}: there is no image {name}")
        if not all(map(math.isfinite, (score, x1, y1, x2, y2))):
            raise UserError(f"{where}, line {number}: {line!r:.100} has a number that is not finite")
        bbox = [x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1]
        yield {"image_id": image_ids[name], "category_id": category_id, "bbox": bbox, "score": score}
