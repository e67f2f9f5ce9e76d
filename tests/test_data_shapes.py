"""The embedded set: the same pictures every time, what is in them, and no half of it ever taken for the whole."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rankdet.data import draw
from rankdet.data import shapes as shapes_module
from rankdet.data.draw import CLUTTER, OBJECTS, _box, _Layer, _visible, draw_picture
from rankdet.data.shapes import ABANDONED, ShapesSource
from rankdet.errors import UserError

SMALL = {"num_train": 6, "num_val": 2, "num_test": 4}
SIZES = (18.0, 64.0)
# Of SMALL with seed 0. Where a change of the pictures is meant, the mini protocols' versions change with these.
PIXELS = "13ec2bb28a909917"
FINGERPRINTS = {
    "train": "611ece0726f03782",
    "val": "6c7f6169cc5acc44",
    "trainval": "150fe5a2f14ba905",
    "test": "50d842e853e613bb",
}


def pixels(folder: Path) -> str:
    """A hash of all decoded pictures, in the order of their names."""
    digest = hashlib.sha256()
    paths = sorted((folder / "JPEGImages").iterdir())
    assert len(paths) == 12
    for path in paths:
        digest.update(np.asarray(Image.open(path)).tobytes())
    return digest.hexdigest()[:16]


def test_pictures_and_annotations_are_the_same_everywhere(tmp_path: Path):
    first, second = ShapesSource(tmp_path / "a", **SMALL), ShapesSource(tmp_path / "b", **SMALL)
    for source in (first, second):
        assert {split: source.read(split).fingerprint() for split in FINGERPRINTS} == FINGERPRINTS
        assert pixels(source.folder) == PIXELS
    names = sorted(path.relative_to(first.folder) for path in first.folder.rglob("*") if path.is_file())
    assert len(names) == 12 + 12 + 4 + 1  # pictures, annotations, split files, settings
    for name in names:
        assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes()


def test_splits_and_records(tmp_path: Path):
    source = ShapesSource(tmp_path / "data" / "shapes", "mine", **SMALL)
    told = {split: source.num_images(split) for split in ("train", "val", "trainval", "test", "minival")}
    assert told == {"train": 6, "val": 2, "trainval": 8, "test": 4, "minival": None}
    assert not source.folder.exists()
    splits = {split: source.read(split) for split in ("train", "val", "trainval", "test")}
    stems = {split: [record.path.stem for record in data.records] for split, data in splits.items()}
    assert {split: len(names) for split, names in stems.items()} == {"train": 6, "val": 2, "trainval": 8, "test": 4}
    assert stems["trainval"] == stems["train"] + stems["val"]
    assert len({*stems["trainval"], *stems["test"]}) == 12
    for data in splits.values():
        assert data.name == "mine"
        assert data.classes == ("cross", "disc", "ring", "square", "star", "triangle")
        assert data.dirt == {}
        assert {(record.height, record.width) for record in data.records} == {(120, 160)}
    with pytest.raises(UserError, match=r"minival\.txt does not exist"):
        source.read("minival")


def test_a_set_is_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ShapesSource(tmp_path / "shapes", **SMALL).read("train")
    monkeypatch.setattr(shapes_module, "draw_picture", None)
    assert len(ShapesSource(tmp_path / "shapes", **SMALL).read("test").records) == 4


def test_other_settings_get_another_folder_and_more_images_begin_with_the_same(tmp_path: Path):
    changes = [{}, {"seed": 1}, {"num_train": 7}, {"height": 96, "width": 128}, {"sizes": (20, 60)}]
    sources = [ShapesSource(tmp_path / "shapes", **SMALL | change) for change in changes]
    assert len({source.folder for source in sources}) == len(changes)
    plain, seeded, longer, smaller, _ = (source.read("train").records for source in sources)
    first = [np.asarray(Image.open(records[0].path)) for records in (plain, seeded, longer)]
    assert (first[0] == first[2]).all()
    assert (first[0] != first[1]).any()
    assert [record.path.name for record in longer][:6] == [record.path.name for record in plain]
    assert np.asarray(Image.open(smaller[0].path)).shape == (96, 128, 3)
    settings = json.loads((sources[1].folder / "settings.json").read_text())
    assert settings["seed"] == 1


def test_a_changed_program_draws_into_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    before = ShapesSource(tmp_path / "shapes", **SMALL).folder
    edited = tmp_path / "draw.py"
    edited.write_text(Path(draw.__file__).read_text() + "\n")
    monkeypatch.setattr(draw, "__file__", str(edited))
    assert ShapesSource(tmp_path / "shapes", **SMALL).folder != before


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"num_val": 0}, r"data\.source\.num_\*=300, 0, 200"),
        ({"seed": -1}, r"data\.source\.seed=-1"),
        ({"sizes": (64, 18)}, r"data\.source\.sizes=\[64, 18\].* from 4 to 120"),
        ({"sizes": (18,)}, r"data\.source\.sizes=\[18\]"),
        ({"sizes": (2, 18)}, r"data\.source\.sizes=\[2, 18\]"),
        ({"height": 50}, r"data\.source\.sizes=\[18\.0, 64\.0\].* from 4 to 50"),
    ],
)
def test_settings_that_cannot_be_drawn(settings, words: str):
    with pytest.raises(UserError, match=words):
        ShapesSource(**settings)


def layer(cover, top=0, left=0, is_object=True) -> _Layer:
    return _Layer("disc", top, left, np.array(cover, float), is_object)


def test_boxes_are_tight_around_half_covered_pixels_and_cut_at_the_border():
    """Covered by half or more: rows 0 and 1 and columns 1 and 2 of the patch. At top -1, left 2 these are rows -1 and 0
    and columns 3 and 4, so the box is [3, 5] x [-1, 1], cut to [3, 5] x [0, 1]."""
    cover = [[0.1, 0.4, 0.6], [0, 0.5, 1], [0, 0.2, 0.4]]
    assert _box(layer(cover, top=-1, left=2), 10, 10) == ((3, 0, 5, 1), True)
    assert _box(layer(cover, top=7, left=7), 10, 10) == ((8, 7, 10, 9), False)
    assert _box(layer(cover, top=8, left=8), 10, 10) == ((9, 8, 10, 10), True)


def test_visible_shares_by_hand():
    """An image of columns 0-9, later layers on top: the last one's columns 0-6 are all seen, of the third one's 5-9
    three in five. The second's 0-3 are covered; of the first's 6-10 the last is outside and the others are covered.
    Both are left out, object and clutter alike."""
    layers = [
        layer([[1] * 5], left=6),
        layer([[1] * 4], is_object=False),
        layer([[1] * 5], left=5),
        layer([[1] * 7], is_object=False),
    ]
    kept = _visible(layers, 1, 10)
    assert [(len(one.cover[0]), round(share, 6)) for one, share in kept] == [(5, 0.6), (7, 1.0)]


@pytest.mark.parametrize("outline", [*OBJECTS.values(), *CLUTTER.values()], ids=[*OBJECTS, *CLUTTER])
def test_outlines_lie_in_the_unit_circle_and_fill_some_of_it(outline):
    u, v = np.meshgrid(np.linspace(-1.5, 1.5, 301), np.linspace(-1.5, 1.5, 301))
    inside = outline(u, v) < 0
    assert not inside[np.hypot(u, v) > 1.001].any()
    share = inside.sum() * 0.01**2 / np.pi
    assert 0.1 < share < 0.9


@pytest.fixture(scope="module")
def many():
    """300 pictures as the default training split has them."""
    return [draw_picture(np.random.default_rng([0, 0, index]), 120, 160, SIZES) for index in range(300)]


def test_statistics_of_what_is_drawn(many):
    counts = np.array([len(shapes) for _, shapes in many])
    shapes = [shape for _, drawn in many for shape in drawn]
    boxes = np.array([shape.box for shape in shapes])
    sides = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    small, large = np.percentile(sides, [2, 98])
    assert 0.02 < (counts == 0).mean() < 0.10
    assert 3 < counts.mean() < 5
    assert counts.max() <= 8
    assert (boxes >= 0).all()
    assert (boxes <= [160, 120, 160, 120]).all()
    assert (boxes[:, 2:] - boxes[:, :2]).min() >= 3
    assert 10 < small < 18
    assert 50 < large < 64
    assert large / small > 3.5  # nearly two octaves, cut objects aside
    assert 0.08 < np.mean([shape.difficult for shape in shapes]) < 0.25
    assert 0.08 < np.mean([shape.truncated for shape in shapes]) < 0.35
    shares = [np.mean([shape.name == name for shape in shapes]) for name in OBJECTS]
    assert min(shares) > 0.11
    assert max(shares) < 0.23


def test_objects_stand_out_from_textured_grounds(many):
    """Within the box of an object that is not difficult, levels spread wider than over a picture without objects, where
    they spread, too: neither is flat."""
    inside = [
        picture[y1:y2, x1:x2].std(axis=(0, 1)).mean()
        for picture, shapes in many
        for x1, y1, x2, y2 in (shape.box for shape in shapes if not shape.difficult)
    ]
    empty = [picture.std(axis=(0, 1)).mean() for picture, shapes in many if not shapes]
    assert len(inside) > 700
    assert len(empty) > 5
    assert np.median(inside) > 15
    assert min(empty) > 2


def test_pictures_fill_the_range_and_hold_no_artefacts(many):
    pictures = np.stack([picture for picture, _ in many])
    assert pictures.shape == (300, 120, 160, 3)
    assert pictures.dtype == np.uint8
    assert 40 < pictures.mean() < 200
    assert np.mean((pictures == 0) | (pictures == 255)) < 0.05


DRAW = """
import sys
from rankdet.data.shapes import ShapesSource
source = ShapesSource(sys.argv[1], num_train=int(sys.argv[2]), num_val=2, num_test=4)
print("ready", flush=True)
sys.stdin.readline()
print(source.read("trainval").fingerprint(), flush=True)
"""


def start(root: Path, num_train: int) -> subprocess.Popen[str]:
    """A process that will draw once go() tells it to."""
    return subprocess.Popen(
        [sys.executable, "-c", DRAW, str(root), str(num_train)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def go(*processes: subprocess.Popen[str]):
    """Waits until all have imported what they need, so that they draw at the same time."""
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * len(processes)
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()


def test_two_processes_that_draw_at_once_end_with_one_set(tmp_path: Path):
    root = tmp_path / "shapes"
    processes = [start(root, 60) for _ in range(2)]
    go(*processes)
    answers = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    source = ShapesSource(root, num_train=60, num_val=2, num_test=4)
    assert answers == [source.read("trainval").fingerprint()] * 2
    assert [path.name for path in tmp_path.iterdir()] == [source.folder.name]
    assert len(list((source.folder / "JPEGImages").iterdir())) == 66


def test_a_killed_process_leaves_nothing_that_looks_like_the_set(tmp_path: Path):
    """The hidden rest of the killed process is swept away by a later drawing once it is old enough."""
    process = start(tmp_path / "shapes", 2000)
    go(process)
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob(".shapes-*/JPEGImages/train_00003.png")):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    source = ShapesSource(tmp_path / "shapes", num_train=2000, num_val=2, num_test=4)
    assert not source.folder.exists()
    (part,) = tmp_path.iterdir()
    assert part.name.startswith(f".{source.folder.name}.")
    young = tmp_path / f".{source.folder.name}.young"
    young.mkdir()
    os.utime(part, (time.time() - ABANDONED - 60,) * 2)
    shapes_module._remove_abandoned(source.folder)
    assert list(tmp_path.iterdir()) == [young]


def test_a_disk_that_fills_up_leaves_nothing_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shapes_module, "draw_picture", full)
    with pytest.raises(UserError, match=r"cannot write .*shapes-.* \(No space left on device\): set data\.root"):
        ShapesSource(tmp_path / "shapes", **SMALL).read("train")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "data").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write .*data/shapes-.*set data\.root"):
        ShapesSource(tmp_path / "data" / "shapes", **SMALL).read("train")
