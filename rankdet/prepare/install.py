"""From archives to a data set's standard layout, in which a part is there wholly or not at all."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from rankdet.errors import UserError
from rankdet.prepare.archives import BadArchive, unpack
from rankdet.prepare.disk import alone, writing
from rankdet.prepare.download import say
from rankdet.prepare.supply import Archive, Supply


class Piece(Protocol):
    """What one archive brings."""

    archive: Archive
    top: str  # the archive's folder that corresponds to base, where it has one
    places: tuple[str, ...]  # files or folders under base, shared with other pieces or not

    def lacks(self, base: Path) -> str | None:
        """The first file of this piece that base, in the standard layout, does not have; None where all is there."""


def install(pieces: Sequence[Piece], base: Path, supply: Supply) -> None:
    """Puts into base what it lacks: linked from a folder at hand, unpacked from an archive at hand, or downloaded.

    Later pieces may ask base for what earlier ones brought. Whatever happens, kill -9 included, a part of the layout is
    complete or its list is not there, and the same call goes on. UserError for all that stands in the way.
    """
    with alone(base):
        _remove(base / ".unpacking")  # a killed process's
        left = [piece for piece in pieces if piece.lacks(base) is not None]
        for piece in left:
            if _at_hand(piece, left, base, supply) is None:
                _require(piece, base, supply)
        for piece in pieces:
            if piece.lacks(base) is None:
                say(f"{base}: {' '.join(piece.places)} of {piece.archive.name} is there")
            elif (found := _at_hand(piece, left, base, supply)) is not None:
                _link(piece, found, base)
            else:
                _require(piece, base, supply)
                _from_archive(piece, base, supply)
                say(f"{base}: {' '.join(piece.places)} of {piece.archive.name} unpacked")
        if (base / "downloads").is_dir() and not any((base / "downloads").iterdir()):
            (base / "downloads").rmdir()


def _at_hand(piece: Piece, left: Sequence[Piece], base: Path, supply: Supply) -> Path | None:
    """A folder of the user's to link to: with this piece and all others that are to share its folders."""
    if any((base / place).is_dir() for place in piece.places):
        return None
    sharing = [other for other in left if set(other.places) & set(piece.places)]
    for folder in supply.folders():
        if folder.is_dir() and all(other.lacks(folder) is None for other in sharing):
            return folder
    return None


def _link(piece: Piece, found: Path, base: Path) -> None:
    for place in piece.places:
        if (base / place).exists():
            continue
        with writing(base / place):
            (base / place).parent.mkdir(parents=True, exist_ok=True)
            (base / place).unlink(missing_ok=True)  # a link whose target has gone
            (base / place).symlink_to((found / place).resolve())
        say(f"{base / place}: linked to {found / place}, which must stay where it is")


def _require(piece: Piece, base: Path, supply: Supply) -> None:
    """UserError where the archive cannot be had, which also says what an unpacked folder beside it lacks."""
    _refuse_links(piece, base)
    try:
        supply.require(piece.archive)
    except UserError as error:
        near = [folder for folder in supply.folders() if any((folder / place).exists() for place in piece.places)]
        lacks = f"; {near[0]} lacks {piece.lacks(near[0])}" if near else ""
        raise UserError(f"{error}{lacks}") from error


def _refuse_links(piece: Piece, base: Path) -> None:
    """What lies elsewhere and is only linked to is the user's own; nothing is unpacked into it."""
    for place in piece.places:
        for path in (base / place, *(base / parent for parent in Path(place).parents if parent.name)):
            if path.is_symlink():
                raise UserError(
                    f"{path}: a link to {path.readlink()}, but {piece.lacks(base)} is not there: add it, or remove the "
                    "link to have it unpacked here"
                )


def _from_archive(piece: Piece, base: Path, supply: Supply) -> None:
    with supply.archive(piece.archive, base / "downloads") as path, _staging(base) as staging:
        say(f"{path}: unpacking")
        unpack(path, staging)
        top = staging / piece.top if (staging / piece.top).is_dir() else staging
        missing = piece.lacks(top)
        if missing is not None:
            raise BadArchive(f"{path}: does not hold {missing}, so it is not what it should be")
        with writing(base):
            for name in sorted({Path(place).parts[0] for place in piece.places}):
                _move(top / name, base / name)


@contextmanager
def _staging(base: Path) -> Iterator[Path]:
    """An empty folder on base's own disk, gone afterwards."""
    folder = base / ".unpacking"
    with writing(folder):
        folder.mkdir()
    try:
        yield folder
    finally:
        _remove(folder)


def _move(source: Path, target: Path) -> None:
    """Puts source in target's place; where both are folders, what is in it into target, lists of images last."""
    if not (source.is_dir() and target.is_dir()):
        source.rename(target)
        return
    for child in sorted(source.iterdir(), key=lambda path: (path.name == "ImageSets", path.name)):
        _move(child, target / child.name)


def _remove(folder: Path) -> None:
    with writing(folder):
        if folder.is_dir():
            shutil.rmtree(folder)
