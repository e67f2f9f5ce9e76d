"""scripts/prepare_coco.py as a user runs it, on made-up archives: from a folder, from a server, and misled."""

import pytest
import tiny
from made_up_sets import coco_files, coco_root, coco_zips, composed, tree, zipped
from serving import served

from rankdet.prepare import command as prepare_command
from rankdet.prepare.coco import SETS, coco_test_dev
from rankdet.prepare.install import install
from rankdet.prepare.supply import Supply

ARCHIVES = ("annotations_trainval2017", "val2017", "train2017")
OLD = ("annotations_trainval2017", "annotations_trainval2014", "val2014", "train2014")
TEST_DEV = ("image_info_test2017", "test2017")


@pytest.fixture
def script(front_end, monkeypatch):
    """The script's main, run in this process: arguments -> what it left."""
    monkeypatch.setattr(prepare_command, "compose", composed)
    main = front_end("prepare_coco")
    return lambda *arguments: tiny.call(main, list(map(str, arguments)))


@pytest.fixture
def at_hand(tmp_path):
    """A folder with the archives of 2017."""
    return fill(tmp_path / "at_hand", *ARCHIVES)


@pytest.fixture
def root(tmp_path):
    """Where the set is to go; nothing is there."""
    return tmp_path / "coco"


def fill(folder, *archives):
    """folder with these zip archives."""
    folder.mkdir(exist_ok=True)
    for name, content in coco_zips(*archives).items():
        (folder / name).write_bytes(content)
    return folder


def one_line(done):
    """The message of a command that a user's mistake ended."""
    assert done.code == 2, done
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    return done.err


def test_addresses():
    """As https://cocodataset.org/#download has them."""
    pieces = [*SETS["coco2017"](None), *coco_test_dev(None), *SETS["coco_trainval35k"](None)[1:]]
    assert [piece.archive.url.removeprefix("http://images.cocodataset.org/") for piece in pieces] == [
        "annotations/annotations_trainval2017.zip",
        "zips/val2017.zip",
        "zips/train2017.zip",
        "annotations/image_info_test2017.zip",
        "zips/test2017.zip",
        "annotations/annotations_trainval2014.zip",
        "zips/val2014.zip",
        "zips/train2014.zip",
    ]
    assert {piece.archive.md5 for piece in pieces} == {None}


def test_from_archives_with_the_test_set_that_a_server_keeps(script, at_hand, root, tmp_path):
    fill(at_hand, *TEST_DEV)
    done = script("--from", at_hand, "--root", root, "--test-dev")
    assert (done.code, done.err) == (0, "")
    assert tree(root) == tree(coco_root(tmp_path / "expected", *ARCHIVES, *TEST_DEV))
    assert done.out.splitlines()[-4:-1] == [
        "coco2017 trainval: 3 images, 3 objects",
        "coco2017 test: 2 images, 2 objects",
        "coco2017 test-dev: 2 images, annotations at a server",
    ]


def test_trainval35k_and_minival(script, root, tmp_path):
    """Of the five images of 2014, the two of val2017 are minival: 7 and 40."""
    at_hand = fill(tmp_path / "at_hand", *OLD)
    done = script("--from", at_hand, "--root", root, "--data", "coco_trainval35k")
    assert (done.code, done.err) == (0, "")
    assert "coco_trainval35k trainval: 3 images, 3 objects\ncoco_trainval35k test: 2 images, 2 objects\n" in done.out
    assert tree(root) == tree(coco_root(tmp_path / "expected", *OLD))
    assert "--test-dev: a split of data=coco2017" in one_line(script("--data", "coco_trainval35k", "--test-dev"))


def test_from_an_unpacked_root_and_one_with_its_images_apart(tmp_path, root):
    """Folders of images and single JSON files are linked to; what comes later finds its place beside them."""
    plain = coco_root(tmp_path / "plain", *ARCHIVES)
    apart = coco_root(tmp_path / "apart", *ARCHIVES)
    (apart / "images").mkdir()
    for split in ("train2017", "val2017"):
        (apart / split).rename(apart / "images" / split)
    for folder in (plain, apart):
        place = root / folder.name
        install(SETS["coco2017"](place), place, Supply(folder))
        assert (place / "train2017").is_symlink()
        assert not (place / "annotations").is_symlink()
        linked = place / "annotations" / "instances_val2017.json"
        assert linked.readlink() == folder / "annotations" / "instances_val2017.json"
        before = tree(folder)
        install(coco_test_dev(place), place, Supply(fill(tmp_path / "test-dev", *TEST_DEV)))
        assert (place / "annotations" / "image_info_test-dev2017.json").is_file()
        assert tree(folder) == before


def test_by_download_broken_off_and_taken_up(script, root, tmp_path):
    """The second archive's connection drops each time until the command gives up; the next run fetches its rest."""
    files = coco_zips(*ARCHIVES)
    with served(files) as site:
        site.cuts = [len(files["annotations_trainval2017.zip"]), 100, 0, 0, 0, 0]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("time.sleep", lambda _: None)
            line = one_line(script("--mirror", site.address, "--root", root))
        assert f"{site.address}/val2017.zip: the connection closed at 100 bytes of " in line
        assert "(100 bytes are kept)" in line
        assert tree(root).keys() == {
            *coco_files("annotations_trainval2017"),
            "downloads/val2017.zip.part",
            "downloads/val2017.zip.part.json",
        }
        site.cuts.clear()
        site.asked.clear()
        assert script("--mirror", site.address, "--root", root).code == 0
        assert [(asked.name, asked.range) for asked in site.asked] == [
            ("val2017.zip", "bytes=100-"),
            ("train2017.zip", None),
        ]
    assert tree(root) == tree(coco_root(tmp_path / "expected", *ARCHIVES))


@pytest.mark.parametrize("wrong", ["cut short", "an image less", "a flipped bit"])
def test_a_bad_archive_at_hand_is_kept_and_nothing_of_it_is_unpacked(script, at_hand, root, wrong):
    whole = (at_hand / "val2017.zip").read_bytes()
    files = coco_files("val2017")
    del files["val2017/000000000040.jpg"]
    flipped = bytearray(whole)
    flipped[200] ^= 1
    bad, words = {
        "cut short": (whole[:-30], "is damaged or cut short"),
        "an image less": (zipped(files), "does not hold val2017/000000000040.jpg"),
        "a flipped bit": (bytes(flipped), "is damaged or cut short"),
    }[wrong]
    (at_hand / "val2017.zip").write_bytes(bad)
    line = one_line(script("--from", at_hand, "--root", root))
    assert f"{at_hand}/val2017.zip: {words}" in line
    assert "replace it" in line
    assert (at_hand / "val2017.zip").read_bytes() == bad
    assert tree(root) == coco_files("annotations_trainval2017")


def test_a_folder_at_hand_that_lacks_an_image(script, tmp_path, root):
    folder = coco_root(tmp_path / "elsewhere", *ARCHIVES)
    (folder / "train2017" / "000000000025.jpg").unlink()
    line = one_line(script("--from", folder, "--root", root))
    assert f"{folder} lacks train2017/000000000025.jpg" in line


def test_a_list_that_is_none(script, at_hand, root):
    files = {**coco_files("annotations_trainval2017"), "annotations/instances_val2017.json": b"[]"}
    (at_hand / "annotations_trainval2017.zip").write_bytes(zipped(files))
    assert "instances_val2017.json: is no list of COCO's images" in one_line(script("--from", at_hand, "--root", root))
