"""scripts/prepare_voc.py as a user runs it, on made-up archives: from a folder, from a server, killed, and misled."""

import os
import signal
import subprocess
import sys
import time

import pytest
import tiny
from made_up_sets import TARS, composed, tar, tree, voc_devkit, voc_files, voc_tars
from serving import served

from rankdet import train
from rankdet.prepare import command as prepare_command
from rankdet.prepare import install as module
from rankdet.prepare import voc
from rankdet.prepare.install import install
from rankdet.prepare.supply import Supply

TRAINVAL07, TEST07, TRAINVAL12, TEST12 = TARS
PUBLISHED = (TRAINVAL07, TEST07, TRAINVAL12)


@pytest.fixture
def script(front_end, monkeypatch):
    """The script's main, run in this process: arguments -> what it left."""
    monkeypatch.setattr(prepare_command, "compose", composed)
    main = front_end("prepare_voc")
    return lambda *arguments: tiny.call(main, list(map(str, arguments)))


@pytest.fixture
def at_hand(tmp_path):
    """A folder with the three published archives."""
    folder = tmp_path / "at_hand"
    folder.mkdir()
    for name, content in voc_tars(PUBLISHED).items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def root(tmp_path):
    """Where the set is to go; nothing is there."""
    return tmp_path / "VOC"


@pytest.fixture
def expected(tmp_path):
    """The tree of the three published archives."""
    return tree(voc_devkit(tmp_path / "expected", PUBLISHED))


def one_line(done):
    """The message of a command that a user's mistake ended."""
    assert done.code == 2, done
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    return done.err


def test_addresses_and_checksums_are_torchvisions():
    assert [piece.archive.name for piece in voc.SETS["voc0712"]] == [
        "VOCtrainval_06-Nov-2007.tar",
        "VOCtest_06-Nov-2007.tar",
        "VOCtrainval_11-May-2012.tar",
    ]
    for piece in voc.SETS["voc0712"]:
        assert piece.archive.url.startswith("https://")
        assert piece.archive.url.endswith(piece.archive.name)
        assert len(piece.archive.md5) == 32
    assert voc.TEST_2012.archive.url is voc.TEST_2012.archive.md5 is None


def test_from_archives(script, at_hand, root, expected):
    """07+12 is 3 + 3 images to learn from, two objects in each, and 2 to test on."""
    before = tree(at_hand)
    done = script("--from", at_hand, "--root", root, "--any-checksum")
    assert (done.code, done.err) == (0, "")
    assert tree(root / "VOCdevkit") == expected
    assert sorted(path.name for path in (root / "VOCdevkit").iterdir()) == [".lock", "VOC2007", "VOC2012"]
    assert tree(at_hand) == before
    assert done.out.splitlines()[-4:] == [
        "reading voc0712",
        "voc0712 trainval: 6 images, 12 objects",
        "voc0712 test: 2 images, 4 objects",
        f"ready for data=voc0712 data.root={root}, e.g. python -m rankdet.train data=voc0712 data.root={root} "
        "protocol=paper",
    ]
    again = script("--from", at_hand / "..", "--root", root)
    assert again.code == 0
    assert again.out.count("is there") == 3
    assert tree(root / "VOCdevkit") == expected


def test_archives_other_than_the_published_are_refused(script, at_hand, root):
    line = one_line(script("--from", at_hand, "--root", root))
    assert f"{TRAINVAL07}: is not the published file (MD5" in line
    assert "replace it" in line
    assert (at_hand / TRAINVAL07).is_file()
    assert tree(root) == {}


def test_from_an_unpacked_devkit(script, tmp_path, root):
    """It is linked to, whichever of its folders is named."""
    devkit = voc_devkit(tmp_path / "elsewhere")
    for position, folder in enumerate((devkit, devkit.parent)):
        place = root / str(position)
        done = script("--from", folder, "--root", place, "--data", "voc07pp12")
        assert done.code == 0, done.err
        assert (place / "VOCdevkit" / "VOC2012").readlink() == devkit / "VOC2012"
        assert f"linked to {folder}" in done.out
        assert "voc07pp12 trainval: 8 images, 16 objects\nvoc07pp12 test: 1 images, annotations at a" in done.out
    bare = tmp_path / "bare"  # years without a folder VOCdevkit around them
    (bare / "VOC2007").mkdir(parents=True)
    assert voc.devkit_to_fill(bare) == bare
    assert voc.devkit_to_fill(devkit) == devkit == voc.devkit_to_fill(devkit.parent)
    assert voc.devkit_to_fill(root / "new") == root / "new" / "VOCdevkit"


def test_nothing_is_unpacked_into_a_linked_folder(script, tmp_path, at_hand, root):
    devkit = voc_devkit(tmp_path / "elsewhere", PUBLISHED)
    assert script("--from", devkit, "--root", root).code == 0
    before = tree(devkit)
    (at_hand / TEST12).write_bytes(voc_tars()[TEST12])
    line = one_line(script("--from", at_hand, "--root", root, "--data", "voc07pp12"))
    assert f"VOC2012: a link to {devkit / 'VOC2012'}, but VOC2012/ImageSets/Main/test.txt is not there" in line
    assert tree(devkit) == before


def test_the_test_set_of_2012_joins_what_is_there(script, at_hand, root, tmp_path):
    assert script("--from", at_hand, "--root", root, "--any-checksum").code == 0
    line = one_line(script("--root", root, "--data", "voc07pp12"))
    assert "VOC2012test.tar: cannot be downloaded from here: its makers hand it out after registration" in line
    line = one_line(script("--from", at_hand, "--root", root, "--data", "voc07pp12"))
    assert f"{at_hand}: holds neither VOC2012test.tar nor what it unpacks to: its makers hand it out" in line
    (at_hand / TEST12).write_bytes(voc_tars()[TEST12])
    done = script("--from", at_hand, "--root", root, "--data", "voc07pp12")
    assert done.code == 0, done.err
    assert tree(root / "VOCdevkit") == tree(voc_devkit(tmp_path / "all"))


def test_what_is_missing_is_said_before_anything_is_done(script, at_hand, root, tmp_path):
    (at_hand / TRAINVAL12).unlink()
    assert f"{at_hand}: holds neither {TRAINVAL12} nor" in one_line(script("--from", at_hand, "--root", root))
    assert tree(root) == {}
    assert "nowhere: no such folder" in one_line(script("--from", tmp_path / "nowhere", "--root", root))
    devkit = voc_devkit(tmp_path / "elsewhere", PUBLISHED)
    (devkit / "VOC2012/Annotations/2009_000002.xml").unlink()
    line = one_line(script("--from", devkit, "--root", root))
    assert f"{devkit} lacks VOC2012/Annotations/2009_000002.xml" in line


def test_a_folder_that_cannot_be_written(script, at_hand, tmp_path):
    (tmp_path / "file").write_text("")
    line = one_line(script("--from", at_hand, "--root", tmp_path / "file"))
    assert "file/VOCdevkit: cannot be written" in line


def test_by_download(script, root, expected):
    with served(voc_tars(PUBLISHED)) as site:
        done = script("--mirror", f"{site.address}/", "--root", root, "--any-checksum")
        assert done.code == 0, done.err
        assert [asked.name for asked in site.asked] == list(PUBLISHED)
        assert tree(root / "VOCdevkit") == expected
        assert script("--mirror", site.address, "--root", root).code == 0
        assert len(site.asked) == 3


@pytest.mark.parametrize("wrong", ["cut short", "a web page", "another set", "without an image"])
def test_a_bad_download_is_deleted_and_the_next_run_mends_it(script, root, expected, wrong):
    """What went before it stays."""
    good = voc_tars(PUBLISHED)
    files = voc_files(*TARS[TEST07])
    del files["VOC2007/JPEGImages/000004.jpg"]
    bad, words = {
        "cut short": (good[TEST07][:900], "is damaged or cut short (unexpected end of data)"),
        "a web page": (b"<!DOCTYPE html><html>Moved</html>", "is a web page"),
        "another set": (good[TRAINVAL12], "does not hold VOC2007/ImageSets/Main/test.txt"),
        "without an image": (tar(files), "does not hold VOC2007/JPEGImages/000004.jpg"),
    }[wrong]
    with served({**good, TEST07: bad}) as site:
        line = one_line(script("--mirror", site.address, "--root", root, "--any-checksum"))
        assert f"downloads/{TEST07}: {words}" in line
        assert "deleted; run again" in line
        left = tree(root / "VOCdevkit")
        assert left == {path: content for path, content in expected.items() if path in voc_files(*TARS[TRAINVAL07])}
        site.files.update(good)
        assert script("--mirror", site.address, "--root", root, "--any-checksum").code == 0
        assert [asked.name for asked in site.asked] == [TRAINVAL07, TEST07, TEST07, TRAINVAL12]
    assert tree(root / "VOCdevkit") == expected


def test_a_download_is_checked_against_its_md5(script, root):
    with served(voc_tars(PUBLISHED)) as site:
        line = one_line(script("--mirror", site.address, "--root", root))
        assert "is not the published file (MD5" in line
        assert "deleted" in line
    assert tree(root) == {}


def test_one_process_at_a_time(script, at_hand, root):
    with module.alone(root / "VOCdevkit"):
        pid = os.fork()  # the lock is the process's
        if pid == 0:
            line = one_line(script("--from", at_hand, "--root", root))
            os._exit(0 if "VOCdevkit: another process is preparing data there; wait for it" in line else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert tree(root) == {}


def killed_at(step, pieces, base, supply):
    """Installs in a process that ends itself by SIGKILL when it is about to rename for the step-th time; its code."""
    pid = os.fork()
    if pid == 0:
        rename, renamed = module.Path.rename, []

        def counted(path, target):
            renamed.append(path)
            if len(renamed) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return rename(path, target)

        module.Path.rename = counted
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
        try:
            install(pieces, base, supply)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_killed_at_each_rename_the_next_run_ends_right(at_hand, root, expected):
    """3 archives: the first and third appear by one rename; the second joins the first file by file, its list last.

    After each kill a list of images is there only with all its images.
    """
    supply, pieces = Supply(at_hand, any_checksum=True), voc.SETS["voc0712"]
    steps = 0
    while True:
        base = root / str(steps)
        code = killed_at(steps + 1, pieces, base, supply)
        for piece in pieces:
            missing = piece.lacks(base)
            assert missing is None or "ImageSets" in missing
        if code == 0:
            break
        assert code == -signal.SIGKILL
        install(pieces, base, supply)
        assert tree(base) == expected
        steps += 1
    assert tree(base) == expected
    assert steps == 2 + len(voc_files(*TARS[TEST07]))


def test_kill_9_while_unpacking(tmp_path, root, capsys):
    """A process killed when some files lie in its own folder; the next one ends with everything and nothing more."""
    at_hand = tmp_path / "big"
    at_hand.mkdir()
    files = voc_files(*TARS[TRAINVAL07])
    stems = [f"{number:06}" for number in range(10, 800)]
    files |= {f"VOC2007/JPEGImages/{stem}.jpg": b"image" for stem in stems}
    (at_hand / TRAINVAL07).write_bytes(tar(files))
    supply, base = Supply(at_hand, any_checksum=True), root
    pid = os.fork()
    if pid == 0:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
        try:
            install([voc.TRAINVAL_2007], base, supply)
        finally:
            os._exit(0)
    images = base / ".unpacking" / "VOCdevkit" / "VOC2007" / "JPEGImages"
    deadline = time.monotonic() + 60
    while not images.is_dir() and time.monotonic() < deadline:
        pass
    os.kill(pid, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert images.is_dir()
    assert not (base / "VOC2007").exists()
    install([voc.TRAINVAL_2007], base, supply)
    assert tree(base) == files
    assert len(files) == 790 + 9


@pytest.mark.full
def test_the_real_command_killed_while_it_downloads(repo, root, expected):
    """The script in a process of its own; the second one asks for the rest of the archive that was under way."""
    with served(voc_tars(PUBLISHED), pace=0.3) as site:
        command = [sys.executable, str(repo / "scripts" / "prepare_voc.py"), "--mirror", site.address]
        command += ["--root", str(root), "--any-checksum"]
        process = subprocess.Popen(command, env=os.environ | tiny.ENVIRONMENT)
        part = root / "VOCdevkit" / "downloads" / f"{TEST07}.part"
        deadline = time.monotonic() + 120
        while not (part.is_file() and part.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        have = part.stat().st_size
        site.pace = 0.0
        done = subprocess.run(command, env=os.environ | tiny.ENVIRONMENT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        asked = [(asked.name, asked.range) for asked in site.asked]
    assert asked == [(TRAINVAL07, None), (TEST07, None), (TEST07, f"bytes={have}-"), (TRAINVAL12, None)]
    assert tree(root / "VOCdevkit") == expected
    assert "voc0712 trainval: 6 images, 12 objects" in done.stdout


@pytest.mark.parametrize("data", ["voc0712", pytest.param("voc07pp12", marks=pytest.mark.full)])
def test_both_years_train(tmp_path, data):
    """Two steps of two images, tested on 07's test set, or on 12's, of which nobody here knows the objects."""
    voc_devkit(tmp_path / "data")
    run = [f"data={data}", f"data.root={tmp_path}/data", f"runtime.runs={tmp_path}/runs", *tiny.settings()]
    run += ["batch_size=2", "schedule.length=4", "schedule.milestones=[3]", "splits.train=trainval"]
    done = tiny.call(train.main, [*run, "splits.monitor=null"])
    assert done.code == 0, done.err
    assert len(list((tmp_path / "runs" / data).rglob("record.json"))) == 1
