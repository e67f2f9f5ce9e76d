"""Archives of images, unpacked whole or refused: tar by its own checks, zip by its CRCs, nothing outside the folder."""

import hashlib
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO, TypeVar

from tqdm import tqdm

from rankdet.errors import UserError
from rankdet.prepare.disk import require_room, writing

# What reading a damaged, encrypted or foreign archive raises.
DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


T = TypeVar("T")


class BadArchive(UserError):
    """An archive that cannot be what it should be; the message says what is wrong, not yet what to do."""


def unpack(archive: Path, folder: Path) -> None:
    """Unpacks a tar (also compressed) or zip into folder, which must be there.

    BadArchive where the file is neither, ends too early, fails a checksum or names a place outside the folder;
    UserError where the disk has too little room, before or on the way. What is then in folder is for the caller to
    remove.
    """
    unpacker = _unpack_zip if _kind(archive) == "zip" else _unpack_tar
    try:
        unpacker(archive, folder)
    except tarfile.FilterError as error:
        raise BadArchive(f"{archive}: would write outside its folder ({error})") from error
    except DAMAGE as error:
        raise BadArchive(f"{archive}: is damaged or cut short ({error})") from error


def require_md5(archive: Path, md5: str) -> None:
    """BadArchive unless the file has this MD5, as 32 hex digits."""
    with _opened(archive) as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != md5:
        raise BadArchive(f"{archive}: is not the published file (MD5 {found}, published is {md5})")


def _kind(archive: Path) -> str:
    """ "zip" or "tar", by the first bytes."""
    with _opened(archive) as file:
        head = file.read(512)
    if head.startswith(b"PK"):
        return "zip"
    if head.lstrip().startswith(b"<"):
        raise BadArchive(f"{archive}: is a web page, not an archive")
    if not head or not tarfile.is_tarfile(archive):
        raise BadArchive(f"{archive}: is neither a tar nor a zip archive" if head else f"{archive}: is empty")
    return "tar"


def _unpack_tar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        members = tar.getmembers()
        total = sum(member.size for member in members)
        require_room(folder, total, f"what {archive.name} unpacks to")
        for member in _progress(members, archive.name):
            with writing(folder / member.name):
                tar.extract(member, folder, filter="data")


def _unpack_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        members = file.infolist()
        for member in members:
            place = PurePosixPath(member.filename)
            if place.is_absolute() or ".." in place.parts:  # zipfile would put it elsewhere without a word
                raise BadArchive(f"{archive}: would write outside its folder ({member.filename!r})")
        require_room(folder, sum(member.file_size for member in members), f"what {archive.name} unpacks to")
        for member in _progress(members, archive.name):
            with writing(folder / member.filename):
                file.extract(member, folder)


def _opened(archive: Path) -> BinaryIO:
    try:
        return archive.open("rb")
    except OSError as error:
        raise UserError(f"{archive}: cannot be read ({error.strerror})") from error


def _progress(members: Sequence[T], name: str) -> Iterator[T]:
    return iter(tqdm(members, f"unpacking {name}", unit=" files", leave=False, disable=not sys.stderr.isatty()))
