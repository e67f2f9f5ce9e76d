"""Where archives come from: a folder at hand, or the network."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from rankdet.errors import UserError
from rankdet.prepare.archives import BadArchive, require_md5
from rankdet.prepare.disk import writing
from rankdet.prepare.download import download

LAYOUTS = ("", "VOCdevkit", "images")  # where unpacked sets lie in a folder at hand


class Archive(NamedTuple):
    """One file that a data set's makers publish."""

    name: str  # file name
    url: str | None  # None: handed out after registration only
    md5: str | None = None  # hex digits, where they are published
    hint: str = ""  # how to come by it where there is no url


class Supply(NamedTuple):
    """What the user lets us take archives from."""

    folder: Path | None = None  # archives and unpacked sets at hand; then nothing is downloaded
    mirror: str | None = None  # an address below which all archives lie by their names
    any_checksum: bool = False  # take archives whose MD5 is not the published one

    def folders(self) -> list[Path]:
        """Folders that may hold an unpacked set."""
        return [] if self.folder is None else [self.folder / inner for inner in LAYOUTS]

    def require(self, archive: Archive) -> None:
        """UserError where the archive cannot be had, as far as can be told without the network."""
        if self.folder is not None and not self._at_hand(archive).is_file():
            where = archive.hint or "leave out --from to download it"
            raise UserError(f"{self.folder}: holds neither {archive.name} nor what it unpacks to: {where}")
        if self.folder is None and self.mirror is None and archive.url is None:
            raise UserError(f"{archive.name}: cannot be downloaded from here: {archive.hint}")

    @contextmanager
    def archive(self, archive: Archive, downloads: Path) -> Iterator[Path]:
        """The archive's file, checked against its MD5 where there is one.

        A downloaded one lies in downloads, where it stays until the block has ended well; it is deleted, too, where it
        proves to be bad, so that the next attempt does not meet it again. BadArchive becomes a UserError with a remedy.
        """
        self.require(archive)
        own = self._at_hand(archive) if self.folder is not None else None
        path = own or downloads / archive.name
        if own is None:
            with writing(downloads):
                downloads.mkdir(parents=True, exist_ok=True)
            url = f"{self.mirror.rstrip('/')}/{archive.name}" if self.mirror else str(archive.url)
            download(url, path, copies=2)  # what it unpacks to is about as large
        try:
            if archive.md5 and not self.any_checksum:
                require_md5(path, archive.md5)
            yield path
        except BadArchive as error:
            if own is not None:
                raise UserError(f"{error}: replace it, or unpack it yourself and give that folder") from error
            path.unlink()
            raise UserError(f"{error}: deleted; run again, or give another address (--mirror)") from error
        if own is None:
            path.unlink()

    def _at_hand(self, archive: Archive) -> Path:
        return self.folder / archive.name
