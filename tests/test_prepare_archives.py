"""Unpacking: sound archives whole, everything else refused with one line and nothing outside the folder."""

import errno
import io
import random
import shutil
import tarfile
import zipfile

import pytest
from made_up_sets import tar, tree, zipped

from rankdet.errors import UserError
from rankdet.prepare.archives import BadArchive, require_md5, unpack

FILES = {"a/one.jpg": random.Random(0).randbytes(3000), "a/b/two.txt": b"2", "a/none": b""}


@pytest.fixture
def place(tmp_path):
    """A function that unpacks these bytes and returns the tree."""

    def unpacked(content):
        archive, folder = tmp_path / "archive", tmp_path / "folder"
        archive.write_bytes(content)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        unpack(archive, folder)
        return tree(folder)

    return unpacked


def one_line(caught):
    line = str(caught.value)
    assert "\n" not in line
    assert "archive" in line
    return line


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_tar(place, tmp_path, mode):
    content = tar(FILES, top="")
    if mode == "w:gz":
        with tarfile.open(tmp_path / "packed", mode) as packed, tarfile.open(fileobj=io.BytesIO(content)) as plain:
            for member in plain:
                packed.addfile(member, plain.extractfile(member))
        content = (tmp_path / "packed").read_bytes()
    assert place(content) == FILES


def test_zip(place):
    assert place(zipped(FILES)) == FILES


def test_no_archive(place):
    for content, words in (
        (b"", "is empty"),
        (b"\n <!DOCTYPE html>", "web page"),
        (b"12345" * 500, "neither a tar nor"),
    ):
        with pytest.raises(BadArchive) as caught:
            place(content)
        assert words in one_line(caught)


def test_a_zip_cut_anywhere(place):
    whole, visited = zipped(FILES), 0
    for length in range(10, len(whole), 97):
        with pytest.raises(BadArchive) as caught:
            place(whole[:length])
        assert "damaged or cut short" in one_line(caught)
        visited += 1
    assert visited > 30


def test_a_tar_cut_anywhere_in_a_file(place):
    """The first file fills the blocks from 512 to 3584: a cut there is found; the end of a tar that stops between two
    files is found by whoever knows what it should hold."""
    whole, visited = tar(FILES, top=""), 0
    for length in range(600, 3500, 97):
        with pytest.raises(BadArchive) as caught:
            place(whole[:length])
        assert "damaged or cut short" in one_line(caught)
        visited += 1
    assert visited >= 29
    assert place(whole[:3584]) == {"a/one.jpg": FILES["a/one.jpg"]}


def test_a_flipped_bit_in_a_zip_fails_its_crc(place):
    whole = bytearray(zipped(FILES))
    whole[1500] ^= 1
    with pytest.raises(BadArchive) as caught:
        place(bytes(whole))
    assert "one.jpg" in one_line(caught)


def test_a_zip_with_a_password(place):
    whole = bytearray(zipped({"a": b"secret"}))
    for flag in (6, whole.index(b"PK\x01\x02") + 8):
        whole[flag] |= 1
    with pytest.raises(BadArchive) as caught:
        place(bytes(whole))
    assert "encrypted" in one_line(caught)


@pytest.mark.parametrize("name", ["../out.txt", "a/../../out.txt", "/out.txt"])
def test_a_zip_that_climbs_out(place, tmp_path, name):
    with pytest.raises(BadArchive, match="outside its folder") as caught:
        place(zipped({"fine": b"", name: b"!"}))
    one_line(caught)
    assert tree(tmp_path / "folder") == {}
    assert not (tmp_path / "out.txt").exists()


def test_a_tar_that_climbs_out(place, tmp_path):
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        archive.addfile(link)
        member = tarfile.TarInfo("link/out.txt")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"!"))
    for content in (tar({"../out.txt": b"!"}, top=""), made.getvalue()):
        with pytest.raises(BadArchive, match="outside its folder") as caught:
            place(content)
        one_line(caught)
        assert not (tmp_path / "out.txt").exists()
    assert place(tar({"/out.txt": b"!"}, top="")) == {"out.txt": b"!"}  # tar's own rule: below the folder


def test_too_little_room(place, monkeypatch):
    """3 001 bytes are to come."""
    usage = shutil.disk_usage("/")
    for content in (tar(FILES, top=""), zipped(FILES)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=3000))
        with pytest.raises(UserError, match=r"3\.0 kB free, but what archive unpacks to needs 3\.0 kB"):
            place(content)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=3001))
        assert place(content) == FILES


def test_a_disk_that_fills_up_on_the_way(place, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    archives = tar(FILES, top=""), zipped(FILES)
    monkeypatch.setattr(shutil, "copyfileobj", full)
    monkeypatch.setattr(tarfile, "copyfileobj", full)
    for content in archives:
        with pytest.raises(UserError, match=r"folder/a/one\.jpg: the disk is full: make room, run again"):
            place(content)


def test_md5(tmp_path):
    """MD5 of "abc", by RFC 1321."""
    (tmp_path / "archive").write_bytes(b"abc")
    require_md5(tmp_path / "archive", "900150983cd24fb0d6963f7d28e17f72")
    with pytest.raises(
        BadArchive, match=r"not the published file.*900150983cd24fb0d6963f7d28e17f72, published is 0{32}"
    ):
        require_md5(tmp_path / "archive", "0" * 32)
    with pytest.raises(UserError, match="none: cannot be read"):
        require_md5(tmp_path / "none", "0" * 32)


def test_zipfile_itself_would_not_refuse(tmp_path):
    """Why the names are looked at: it puts ../out.txt inside without a word."""
    (tmp_path / "archive").write_bytes(zipped({"../out.txt": b"!"}))
    with zipfile.ZipFile(tmp_path / "archive") as archive:
        archive.extractall(tmp_path / "folder")
    assert tree(tmp_path / "folder") == {"out.txt": b"!"}
