"""A file over HTTP that may break off at any moment: what has arrived stays, and the next attempt asks for the rest."""

# By urllib, as no kept library resumes for us: pooch and torchvision begin anew each time, requests leaves ranges to
# its user, and huggingface_hub resumes files of its own hub alone.
import json
import re
import sys
import time
from email.message import Message
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tqdm import tqdm

from rankdet.errors import UserError
from rankdet.files import write_json
from rankdet.prepare.disk import readable, require_room, writing

CHUNK = 1 << 20
REMEDY = "run again to go on, or give another address (--mirror) or archives at hand (--from)"


def download(
    url: str,
    path: Path,
    attempts: int = 5,
    pause: float = 1.0,
    timeout: float = 60.0,
    copies: int = 1,
) -> None:
    """Fetches url to path, which then appears in one step; path.part is the beginning that has arrived so far.

    An attempt asks for the part that is missing of the file that was begun (Range with If-Range), and begins anew where
    the server does not know ranges or has another file by now. So many attempts in a row without a byte more than ever
    before (`attempts`, after pause, 2 pause, 4 pause ... seconds) end in a UserError; so do, at once, an address that
    the server refuses, a web page in the file's place, and a disk without room for the rest and copies - 1 files more.
    timeout: seconds without a byte. Only the length is checked here: a server that names too small a one is not found
    out.
    """
    if path.is_file():
        return
    if not url.startswith(("http://", "https://")):
        raise UserError(f"{url}: not an address that begins with http:// or https://")
    part = Partial(path)
    furthest, failed = part.size(), 0
    while True:
        try:
            _attempt(url, part, timeout, copies)
            break
        except _Broken as broken:
            size = part.size()
            failed = 1 if size > furthest else failed + 1
            furthest = max(furthest, size)
            if failed >= attempts:
                raise UserError(f"{url}: {broken} ({readable(size)} are kept): {REMEDY}") from broken
            wait = pause * 2 ** (failed - 1)
            say(f"{url}: {broken}; trying again in {wait:.0f} s")
            time.sleep(wait)
    with writing(path):
        part.file.rename(path)
        part.note.unlink(missing_ok=True)


def say(line: str) -> None:
    """A line of what is going on, at once also where it goes to a file."""
    print(line, flush=True)


class _Broken(Exception):
    """An attempt that ended early, for a reason that may pass."""


class Version(NamedTuple):
    """Which file the server has: what must agree for two answers to be pieces of one."""

    etag: str | None
    modified: str | None
    length: int | None  # bytes of the whole

    @property
    def validator(self) -> str | None:
        """What If-Range may carry: never a weak ETag (RFC 9110, 13.1.5)."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified

    def agrees(self, other: "Version") -> bool:
        """Whether nothing that both say differs."""
        return all(a == b for a, b in zip(self, other, strict=True) if a is not None and b is not None)


class Partial:
    """The beginning of a file, and beside it a note which version of the file it is the beginning of."""

    def __init__(self, path: Path) -> None:
        self.file = path.with_name(path.name + ".part")
        self.note = path.with_name(path.name + ".part.json")

    def size(self) -> int:
        """Bytes there."""
        return self.file.stat().st_size if self.file.is_file() else 0

    def version(self) -> Version | None:
        """What the note says; None without a readable one, and then the bytes are worth nothing."""
        try:
            return Version(**json.loads(self.note.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def begin(self, version: Version) -> None:
        """Drops what is there. The note goes first: killed at any moment, no bytes lie beside another file's note."""
        with writing(self.file):
            self.file.unlink(missing_ok=True)
            write_json(self.note, version._asdict())

    def clear(self) -> None:
        """Drops both."""
        for path in (self.file, self.note):
            with writing(path):
                path.unlink(missing_ok=True)


def _attempt(url: str, part: Partial, timeout: float, copies: int) -> None:
    """One request; returns when the file is whole. _Broken otherwise, with all that arrived in part."""
    version = part.version()
    if version is None:
        part.clear()
    have = part.size()
    headers = {"User-Agent": "rankdet", "Accept-Encoding": "identity"}
    if have and version:
        headers["Range"] = f"bytes={have}-"
        if version.validator:
            headers["If-Range"] = version.validator
    try:
        with urlopen(Request(url, headers=headers), timeout=timeout) as response:
            found, start = _version(response)
            if start is not None and (start != have or version is None or not version.agrees(found)):
                part.clear()
                raise _Broken("the file on the server changed while it was fetched")
            if start is None:
                if have:
                    say(f"{url}: another file by now, or a server that cannot resume: beginning anew")
                _refuse_page(url, response.headers)
                part.begin(found)
                have = 0
            if found.length is not None:
                require_room(part.file.parent, found.length * copies - have, part.file.stem)
            length = "length unknown" if found.length is None else readable(found.length)
            say(f"{url}: {length}" + (f", going on at {readable(have)}" if have else ""))
            _receive(response, part, have, found.length)
    except HTTPError as error:
        _explain(url, error, part, have, version)
    except (HTTPException, OSError) as error:  # errors of our own files are UserErrors by now
        reason = str(getattr(error, "reason", error)) or type(error).__name__
        raise _Broken(f"no answer, or one that broke off ({reason})") from error


def _version(response: HTTPResponse) -> tuple[Version, int | None]:
    """Which file an answer is of, and from which byte on, None for the whole of it."""
    headers = response.headers
    length, start = headers.get("Content-Length"), None
    if response.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
        start, length = (int(match[1]), match[2]) if match else (-1, None)
    whole = int(length) if length and length.isdecimal() else None
    return Version(headers.get("ETag"), headers.get("Last-Modified"), whole), start


def _refuse_page(url: str, headers: Message) -> None:
    if headers.get_content_type() == "text/html":
        raise UserError(f"{url}: answered with a web page, not with an archive: open it in a browser to see why")


def _receive(response: HTTPResponse, part: Partial, have: int, whole: int | None) -> None:
    """Appends an answer's bytes to part. _Broken where they end before the whole, or do not end with it."""
    bar = tqdm(
        total=whole,
        initial=have,
        desc=part.file.stem,
        unit="B",
        unit_scale=True,
        leave=False,
        disable=not sys.stderr.isatty(),
    )
    with writing(part.file):
        file = part.file.open("ab", buffering=0)  # a buffer would fail once more when it is closed
    with bar, file:
        while chunk := response.read1(CHUNK):
            rest = memoryview(chunk)
            with writing(part.file):
                while rest:
                    rest = rest[file.write(rest) :]
            bar.update(len(chunk))
    size = part.size()
    if whole is not None and size > whole:
        part.clear()
        raise _Broken(f"the server sent {size - whole} bytes more than there should be")
    if whole is not None and size < whole:
        raise _Broken(f"the connection closed at {readable(size)} of {readable(whole)}")


def _explain(url: str, error: HTTPError, part: Partial, have: int, version: Version | None) -> None:
    """What an answer other than 2xx means. Returns where it says that the file is whole already."""
    if error.code == 416 and version is not None:  # nothing from byte `have` on
        total = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        if total and int(total[1]) == have and version.length in (None, have):
            return
        part.clear()
        raise _Broken("the server has another length by now") from error
    if error.code >= 500 or error.code in (408, 429):
        raise _Broken(f"the server answered {error.code} {error.reason}") from error
    raise UserError(f"{url}: the server answered {error.code} {error.reason}: {REMEDY}") from error
