"""A real HTTP server on this machine that serves bytes well or badly."""

import hashlib
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple


class Asked(NamedTuple):
    """One request."""

    name: str
    range: str | None
    if_range: str | None


@dataclass
class Site:
    """What is served under which name, how well, and what was asked. Everything may be changed while it is served."""

    files: dict[str, bytes]
    address: str = ""
    asked: list[Asked] = field(default_factory=list)
    etag: str | None = "strong"  # strong | weak | a fixed one | None: none is sent
    modified: str | None = "Mon, 06 Nov 2017 10:00:00 GMT"
    ranges: bool = True  # False: every answer is the whole file
    if_range: bool = True  # False: a range is served whatever it should be of
    cuts: list[int] = field(default_factory=list)  # the next answers break off after so many bytes
    stalls: list[int] = field(default_factory=list)  # the next answers say nothing more after so many bytes
    statuses: list[int] = field(default_factory=list)  # the next answers are these errors
    claim: int = 0  # bytes that every length is too large by
    lengths: bool = True  # False: chunked, and no length
    kind: str = "application/octet-stream"
    pace: float = 0.0  # seconds after each 4 kB


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        site, name = self.server.site, self.path.lstrip("/")
        asked = Asked(name, self.headers.get("Range"), self.headers.get("If-Range"))
        site.asked.append(asked)
        body = site.files.get(name)
        if body is None or site.statuses:
            return self.send_error(site.statuses.pop(0) if site.statuses else 404)
        digest = hashlib.md5(body).hexdigest()
        etag = {"strong": f'"{digest}"', "weak": f'W/"{digest}"'}.get(site.etag, site.etag)
        start = None
        if asked.range and site.ranges:
            fresh = asked.if_range in (None, etag, site.modified) or not site.if_range
            start = int(re.fullmatch(r"bytes=(\d+)-", asked.range)[1]) if fresh else None
        if start is not None and start >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(200 if start is None else 206)
        self.send_header("Content-Type", site.kind)
        whole = len(body) + site.claim
        if start is not None:
            self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        for key, value in (("ETag", etag), ("Last-Modified", site.modified)):
            if value:
                self.send_header(key, value)
        if site.lengths:
            self.send_header("Content-Length", str(whole - (start or 0)))
        else:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        return self.send_body(site, body[start or 0 :])

    def send_body(self, site, body):
        self.close_connection = bool(site.cuts or site.stalls or site.claim)
        end = site.cuts.pop(0) if site.cuts else len(body)
        stall = site.stalls.pop(0) if site.stalls else None
        rest = body[: end if stall is None else stall]
        try:
            for first in range(0, len(rest), 4096):
                piece = rest[first : first + 4096]
                self.wfile.write(piece if site.lengths else b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.flush()
                time.sleep(site.pace)
            if not site.lengths and end >= len(body):
                self.wfile.write(b"0\r\n\r\n")
            if stall is not None:
                time.sleep(1.0)
        except (BrokenPipeError, ConnectionResetError):  # the client was killed
            self.close_connection = True

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    """Its clients may die."""

    daemon_threads = True

    def handle_error(self, *_):
        pass


@contextmanager
def served(files: dict[str, bytes], **behaviour) -> Iterator[Site]:
    """The files at site.address/<name> while the block runs."""
    server = Server(("127.0.0.1", 0), Handler)
    site = server.site = Site(files, f"http://127.0.0.1:{server.server_port}", **behaviour)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
