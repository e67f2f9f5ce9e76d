"""Several years of VOC as one set: what is joined, in which order, under which ids, and what each mistake is told."""

import shutil

import numpy as np
import pytest
from made_up_sets import STEMS, composed, voc_devkit

from rankdet.build import make
from rankdet.config import compose
from rankdet.data.layout import detect_source
from rankdet.data.voc import VOCSource
from rankdet.data.voc_devkit import VOCDevkit
from rankdet.errors import UserError

CLASSES = ["aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"]
CLASSES += ["horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"]


@pytest.fixture
def root(tmp_path):
    """Holds a VOCdevkit with both years."""
    voc_devkit(tmp_path / "VOC")
    return tmp_path / "VOC"


def source(root, data="voc0712"):
    """As data=... makes it."""
    cfg = composed([f"data={data}"])
    cfg.data.root = str(root)
    return make(cfg.data.source)


def stems(split):
    return [record.path.stem for record in split.records]


@pytest.mark.parametrize(
    ("data", "expected"),
    {
        "voc07": {"train": ["07train"], "val": ["07val"], "trainval": ["07train", "07val"], "test": ["07test"]},
        "voc0712": {
            "train": ["07train", "12train"],
            "val": ["07val", "12val"],
            "trainval": ["07train", "07val", "12train", "12val"],
            "test": ["07test"],
        },
        "voc07pp12": {
            "train": ["12train", "07train", "07val", "07test"],
            "val": ["12val"],
            "trainval": ["12train", "12val", "07train", "07val", "07test"],
            "test": ["12test"],
        },
    }.items(),
)
def test_splits(root, data, expected):
    made = source(root, data)
    for word, parts in expected.items():
        split = made.read(word)
        assert stems(split) == [stem for part in parts for stem in STEMS[f"VOC20{part[:2]}"][part[2:]]]
        assert [record.image_id for record in split.records] == list(range(len(split.records)))
        assert (split.name, split.split) == (data, word)
        assert split.classes == tuple(CLASSES) == tuple(sorted(CLASSES))
        assert split.category_ids == tuple(range(1, 21))
        assert split.labelled == (parts != ["12test"])
        assert split.dirt == {}


def test_an_object_by_hand(root):
    """A person's (1, 1, 10, 10) is [0, 10] x [0, 10]; person is the 15th class, cat the 8th."""
    record = source(root).read("trainval").records[-1]
    assert record.boxes.tolist() == [[0, 0, 10, 10], [19, 4, 32, 24]]
    assert record.labels.tolist() == [14, 7]
    assert record.difficult.tolist() == [False, True]


def test_a_split_without_annotations_has_images_and_nothing_else(root):
    """Also where files lie about: VOC2012's test archive has some for another task, which say nothing of ours."""
    (root / "VOCdevkit/VOC2012/Annotations/2008_000004.xml").write_text("<annotation><object/></annotation>")
    split = source(root, "voc07pp12").read("test")
    (record,) = split.records
    assert (record.height, record.width) == (24, 32)
    assert record.boxes.shape == (0, 4)
    assert record.boxes.dtype == np.float32
    assert record.labels.dtype == np.int64
    assert len(record.labels) == len(record.difficult) == len(record.crowd) == 0
    assert record.difficult.dtype == record.crowd.dtype == bool
    assert split.dirt == {}
    assert not split.labelled


def test_one_year_joined_with_nothing_is_that_year(root):
    """The fingerprint is that of the year's own source with the same classes."""
    for part, word in (("VOC2007/trainval", "trainval"), ("VOC2012/val", "val")):
        year, _, file = part.partition("/")
        alone = VOCSource(root / "VOCdevkit" / year, classes=CLASSES).read(file)
        joined = source(root).read(part)
        assert joined.fingerprint() == alone.fingerprint()
        assert joined.split == part
        assert source(root, "voc07" if year == "VOC2007" else "voc07pp12").read(word).name != alone.name


def test_fingerprints_do_not_depend_on_the_place(root, tmp_path):
    before = source(root).read("trainval").fingerprint()
    moved = shutil.move(root / "VOCdevkit", tmp_path / "kit")
    assert source(moved).read("trainval").fingerprint() == before
    assert source(moved).read("train").fingerprint() != before


def test_dirt_is_summed_over_the_parts(root):
    for path in ("VOC2007/Annotations/000001.xml", "VOC2012/Annotations/2008_000001.xml"):
        file = root / "VOCdevkit" / path
        file.write_text(file.read_text().replace("<xmax>32</xmax>", "<xmax>35</xmax>"))
    assert source(root).read("trainval").dirt == {"box clipped": 2}


def test_mistakes(root, tmp_path):
    def message(call):
        with pytest.raises(UserError) as caught:
            call()
        line = str(caught.value)
        assert "\n" not in line
        return line

    assert "voc0712 has no split 'tset': give one of test, train, trainval, val" in message(
        lambda: source(root).read("tset")
    )
    assert "VOC2007/ImageSets/Main/tset.txt does not exist" in message(lambda: source(root).read("VOC2007/tset"))
    line = message(lambda: source(tmp_path / "nowhere").read("train"))
    assert "nowhere/VOC2007 does not exist: `make data-voc` gets it, or set data.root" in line
    twice = VOCDevkit(root, "x", CLASSES, {"both": ["VOC2007/train", "VOC2007/trainval"]})
    assert "VOC2007/train and VOC2007/trainval share images" in message(lambda: twice.read("both"))
    mixed = VOCDevkit(root, "x", CLASSES, {"both": ["VOC2007/test", "VOC2012/test"]}, ["VOC2012/test"])
    assert "both joins VOC2007/test and VOC2012/test, of which one has no annotations" in message(
        lambda: mixed.read("both")
    )
    for folder in (root, root / "VOCdevkit"):
        line = message(lambda folder=folder: detect_source(folder))
        assert f"{folder} holds VOC2007 and VOC2012: give one of these folders, or data=voc07" in line
    assert detect_source(root / "VOCdevkit" / "VOC2007") == "voc"


@pytest.mark.parametrize(
    "data",
    ["voc07", "coco2017", *(pytest.param(name, marks=pytest.mark.full) for name in ("voc07pp12", "coco_trainval35k"))],
)
def test_each_set_goes_with_the_paper_protocol(data):
    cfg = compose([f"data={data}", "protocol=paper"])
    assert (cfg.data.name, list(cfg.data.image_size), cfg.protocol.name) == (data, [512, 512], "paper")


def test_the_paper_protocol_learns_from_both_years():
    """AP-loss, Sec. 4.1.2."""
    assert compose(["protocol=paper"]).data.name == "voc0712"
