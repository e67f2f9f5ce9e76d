"""Downloads from a real HTTP server that drops connections, forgets ranges, changes files and lies."""

import errno
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import served

from rankdet.errors import UserError
from rankdet.prepare import download as module
from rankdet.prepare.download import Partial, Version, download

BODY = random.Random(0).randbytes(50_000)
OTHER = random.Random(1).randbytes(50_000)


@pytest.fixture
def path(tmp_path):
    """Where the file is to go."""
    return tmp_path / "set.tar"


def fetch(site, path, **settings):
    """Without the waits of a real network."""
    download(f"{site.address}/set.tar", path, **{"pause": 0.0, "timeout": 5.0, **settings})


def ranges(site):
    """The Range header of each request, without its unit."""
    return [asked.range and asked.range.removeprefix("bytes=") for asked in site.asked]


def assert_whole(path, body=BODY):
    """The file, and nothing beside it."""
    assert path.read_bytes() == body
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def refused(site, path, **settings):
    """The one line of the UserError."""
    with pytest.raises(UserError) as caught:
        fetch(site, path, **settings)
    assert not path.exists()
    line = str(caught.value)
    assert "\n" not in line
    assert site.address in line or path.name in line
    return line


def test_a_file_is_fetched_once(path, capsys):
    with served({"set.tar": BODY}) as site:
        fetch(site, path)
        fetch(site, path)
        assert ranges(site) == [None]
    assert_whole(path)
    assert capsys.readouterr().out == f"{site.address}/set.tar: 50.0 kB\n"


def test_an_empty_file(path):
    with served({"set.tar": b""}) as site:
        fetch(site, path)
    assert_whole(path, b"")


@pytest.mark.parametrize("validators", [{}, {"etag": None}, {"etag": "weak"}, {"etag": None, "modified": None}])
def test_each_dropped_connection_is_taken_up_where_it_ended(path, validators):
    """Broken off after 10 000, then 1, then 20 000 bytes. If-Range carries a strong ETag, else the date, else is not
    there: RFC 9110 forbids weak ones."""
    with served({"set.tar": BODY}, cuts=[10_000, 1, 20_000], **validators) as site:
        fetch(site, path, attempts=2)
        assert ranges(site) == [None, "10000-", "10001-", "30001-"]
        strong = validators == {}
        date = None if validators.get("modified", site.modified) is None else site.modified
        expected = site.asked[1].if_range if strong else date
        assert [asked.if_range for asked in site.asked] == [None, *[expected] * 3]
        assert not strong or len(expected) == 34
    assert_whole(path)


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 30_000), max_size=4))
def test_wherever_connections_drop_the_bytes_are_right(tmp_path_factory, cuts):
    path = tmp_path_factory.mktemp("drops") / "set.tar"
    with served({"set.tar": BODY}, cuts=list(cuts)) as site:
        fetch(site, path, attempts=6)
    assert_whole(path)
    shutil.rmtree(path.parent)


def test_a_silent_server_is_asked_again(path):
    with served({"set.tar": BODY}, stalls=[30_000]) as site:
        fetch(site, path, timeout=0.3)
        assert ranges(site) == [None, "30000-"]
    assert_whole(path)


def test_no_length_and_chunks(path):
    """A chunked answer that breaks off is known by its missing end."""
    with served({"set.tar": BODY}, lengths=False, cuts=[20_000]) as site:
        fetch(site, path)
        assert ranges(site) == [None, "20000-"]
    assert_whole(path)


def test_a_server_without_ranges_sends_all_again(path, capsys):
    with served({"set.tar": BODY}, ranges=False, cuts=[40_000, 45_000]) as site:
        fetch(site, path)
        assert ranges(site) == [None, "40000-", "45000-"]
    assert_whole(path)
    assert capsys.readouterr().out.count("beginning anew") == 2


def test_a_server_without_ranges_that_always_breaks_off_at_the_same_byte(path):
    """Only the first of the attempts brought a byte more than ever before."""
    with served({"set.tar": BODY}, ranges=False, cuts=[40_000] * 10) as site:
        line = refused(site, path, attempts=3)
        assert len(site.asked) == 3
    assert "closed at 40.0 kB of 50.0 kB" in line
    assert "run again" in line


@pytest.mark.parametrize(
    ("behaviour", "other"),
    [
        ({}, OTHER),
        ({"etag": None}, OTHER),
        ({"if_range": False}, OTHER),
        ({"etag": None, "modified": None}, OTHER[:-1]),
        ({"etag": None, "modified": None}, OTHER[:5_000]),
    ],
    ids=["by its ETag", "by its date", "by the answer's ETag", "by its length", "by being too short"],
)
def test_a_file_that_changes_is_fetched_anew(path, behaviour, other):
    """Half of it has come when the server gets another one."""
    with served({"set.tar": BODY}, cuts=[25_000] + [0] * 9, **behaviour) as site:
        refused(site, path, attempts=3)
        assert Partial(path).size() == 25_000
        site.cuts.clear()
        site.files["set.tar"] = other
        if site.modified:
            site.modified = "Tue, 07 Nov 2017 10:00:00 GMT"
        fetch(site, path)
    assert_whole(path, other)


def test_a_length_that_is_too_large(path):
    """It can never be reached; what came stays, and once the server is right the next run takes it."""
    with served({"set.tar": BODY}, claim=7) as site:
        line = refused(site, path, attempts=3)
        assert "50.0 kB" in line
        site.claim = 0
        fetch(site, path)
    assert_whole(path)


def test_a_note_without_its_bytes_and_bytes_without_a_note(path):
    """Killed between the two: the bytes of a file that nobody knows are not built on."""
    part = Partial(path)
    part.file.write_bytes(OTHER[:1000])
    with served({"set.tar": BODY}) as site:
        fetch(site, path)
        assert ranges(site) == [None]
    assert_whole(path)
    path.unlink()
    part.note.write_text("{")
    part.file.write_bytes(OTHER[:1000])
    with served({"set.tar": BODY}) as site:
        fetch(site, path)
    assert_whole(path)


def test_killed_before_the_last_step(path):
    """All bytes are there: the server has nothing from there on (416), and says how long the file is."""
    part = Partial(path)
    part.begin(Version(None, None, len(BODY)))
    part.file.write_bytes(BODY)
    with served({"set.tar": BODY}) as site:
        fetch(site, path)
        assert ranges(site) == ["50000-"]
    assert_whole(path)


def test_a_busy_server_is_asked_again_and_a_refusal_is_final(path):
    with served({"set.tar": BODY}, statuses=[503, 429]) as site:
        fetch(site, path)
        assert len(site.asked) == 3
    assert_whole(path)
    path.unlink()
    with served({}) as site:
        line = refused(site, path)
        assert len(site.asked) == 1
    assert "404 Not Found" in line
    assert "--mirror" in line
    assert "--from" in line


def test_a_web_page_is_no_archive(path):
    with served({"set.tar": b"<html>Sorry</html>"}, kind="text/html; charset=utf-8") as site:
        assert "web page" in refused(site, path)
    assert list(path.parent.iterdir()) == []


def test_a_dead_host(path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(
        UserError, match=f"127.0.0.1:{port}/set.tar: no answer.*Connection refused.*run again"
    ) as caught:
        download(f"http://127.0.0.1:{port}/set.tar", path, attempts=2, pause=0.0)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="http:// or https://"):
        download("file:///etc/hostname", path)


def test_too_little_room_is_said_before_the_first_byte(path, monkeypatch):
    """10 000 bytes have come; 40 000 more, and 50 000 for what they unpack to, are a byte more than there is room."""
    with served({"set.tar": BODY}, cuts=[10_000, 0]) as site:
        refused(site, path, attempts=2)
        usage = shutil.disk_usage(path.parent)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=89_999))
        line = refused(site, path, copies=2)
        assert "90.0 kB free" in line
        assert Partial(path).size() == 10_000
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=90_000))
        fetch(site, path, copies=2)
    assert_whole(path)


def test_a_disk_that_fills_up_on_the_way(path, monkeypatch):
    """/dev/full in the file's place answers every write as a full disk does."""
    begin = Partial.begin

    def full(part, version):
        begin(part, version)
        part.file.symlink_to("/dev/full")

    with served({"set.tar": BODY}) as site:
        with monkeypatch.context() as patch:
            patch.setattr(Partial, "begin", full)
            line = refused(site, path)
        assert "the disk is full" in line
        fetch(site, path)
    assert_whole(path)
    assert os.strerror(errno.ENOSPC) not in line


def test_kill_9(path):
    """A process of its own, killed when some bytes are there; the next one asks for the rest only."""
    program = (
        "import sys; from pathlib import Path; from rankdet.prepare.download import download;"
        "download(sys.argv[1], Path(sys.argv[2]))"
    )
    with served({"set.tar": BODY}, pace=0.05) as site:
        command = [sys.executable, "-c", program, f"{site.address}/set.tar", str(path)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while Partial(path).size() < 8192 and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        have = Partial(path).size()
        assert 8192 <= have < len(BODY)
        assert not path.exists()
        site.pace = 0.0
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        assert ranges(site) == [None, f"{have}-"]
    assert_whole(path)


def test_progress_is_drawn_in_a_terminal_only(path, capsys, monkeypatch):
    with served({"set.tar": BODY}) as site:
        fetch(site, path)
        assert capsys.readouterr().err == ""
        path.unlink()
        monkeypatch.setattr(module.sys.stderr, "isatty", lambda: True)
        fetch(site, path)
        assert "set.tar" in capsys.readouterr().err
