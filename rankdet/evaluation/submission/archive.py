"""An archive for either server."""

from pathlib import Path

from rankdet.errors import UserError
from rankdet.evaluation.results import Result
from rankdet.evaluation.submission.coco import coco_path, write_coco
from rankdet.evaluation.submission.images import COCO, ImageInfo
from rankdet.evaluation.submission.voc import voc_path, write_voc


def archive_path(server: str, folder: Path, name: str) -> Path:
    """Where the archive of a method goes; UserError for a name that is none for a file."""
    return (coco_path if server == COCO else voc_path)(folder, name)


def write_archive(server: str, results: list[Result], info: ImageInfo, path: Path) -> None:
    """Writes it at a path made by archive_path and reads it back; UserError for results that the server would refuse,
    and where nothing can be written."""
    try:
        (write_coco if server == COCO else write_voc)(results, info, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); set --output") from error
