"""The rule for dirt in boxes, its counts and its report."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from rankdet.data.cleaning import DIRT, clean_boxes, describe_dirt, image_size
from rankdet.data.records import DetectionSet
from rankdet.errors import UserError

HEIGHT, WIDTH = 10, 20


def cleaned(corners, first_pixel=0):
    dirt: Counter[str] = Counter()
    boxes, kept = clean_boxes(np.array(corners, np.float64).reshape(-1, 4), HEIGHT, WIDTH, dirt, first_pixel)
    return boxes.tolist(), kept.tolist(), dict(dirt)


@pytest.mark.parametrize(
    ("corners", "box", "kind"),
    [
        ([1, 2, 3, 4.5], [1, 2, 3, 4.5], None),
        ([0, 0, 20, 10], [0, 0, 20, 10], None),
        ([5, 2, 5, 4], None, "zero-area box dropped"),
        ([5, 2, 6, 2], None, "zero-area box dropped"),
        ([5, 2, 5, 2], None, "zero-area box dropped"),
        ([7, 2, 5, 4], None, "inverted box dropped"),
        ([5, 4, 7, 2], None, "inverted box dropped"),
        ([5, 4, 5, 2], None, "inverted box dropped"),
        ([np.nan, 0, 1, 1], None, "non-finite box dropped"),
        ([0, 0, np.inf, 1], None, "non-finite box dropped"),
        ([0, 0, 1e300, 1], None, "non-finite box dropped"),  # beyond float32
        ([20, 0, 25, 5], None, "box outside its image dropped"),  # touches the right border from outside
        ([-5, 0, 0, 5], None, "box outside its image dropped"),
        ([3, 11, 5, 15], None, "box outside its image dropped"),
        ([-2, 3, 4, 5], [0, 3, 4, 5], "box clipped"),
        ([15, 8, 23, 14], [15, 8, 20, 10], "box clipped"),
        ([0, 0, 20.005, 10], [0, 0, 20, 10], None),  # COCO's rounding
        ([0, 0, 20.02, 10], [0, 0, 20, 10], "box clipped"),
    ],
)
def test_each_kind_of_box_by_hand(corners, box, kind):
    """A 20 x 10 image; every box is kept as it is, clipped, or dropped for one reason."""
    boxes, kept, dirt = cleaned([corners])
    assert boxes == ([] if box is None else [box])
    assert kept == [box is not None]
    assert dirt == ({} if kind is None else {kind: 1})


def test_first_pixel_counts_from_one_and_both_corners_belong_to_the_box():
    """VOC's (1, 1, 20, 10) is the whole image; (3, 4, 4, 6) covers columns 2-3 and rows 3-5 counted from 0, that is
    [2, 4] x [3, 6]; (3, 4, 3, 6) is written with x1 = x2; (0, 1, 5, 5) begins a pixel before the first one; (21, 1, 25,
    5) is the first column beyond the image, (20, 1, 20.5, 5) the last one within, half a pixel of it outside."""
    corners = [[1, 1, 20, 10], [3, 4, 4, 6], [3, 4, 3, 6], [0, 1, 5, 5], [21, 1, 25, 5], [20, 1, 20.5, 5]]
    boxes, kept, dirt = cleaned(corners, first_pixel=1)
    assert boxes == [[0, 0, 20, 10], [2, 3, 4, 6], [0, 0, 5, 5], [19, 0, 20, 5]]
    assert kept == [True, True, False, True, False, True]
    assert dirt == {"zero-area box dropped": 1, "box outside its image dropped": 1, "box clipped": 2}


def test_no_boxes_are_clean():
    boxes, kept, dirt = cleaned([])
    assert (boxes, kept, dirt) == ([], [], {})


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(*[st.floats(-40, 40, width=32) | st.just(float("nan"))] * 4), max_size=6),
    st.sampled_from([0, 1]),
)
def test_what_comes_out_is_sound_and_what_goes_missing_is_counted(corners, first_pixel):
    dirt: Counter[str] = Counter()
    boxes, kept = clean_boxes(np.array(corners).reshape(-1, 4), HEIGHT, WIDTH, dirt, first_pixel)
    assert boxes.dtype == np.float32
    assert kept.sum() == len(boxes)
    assert (boxes >= 0).all()
    assert (boxes <= [WIDTH, HEIGHT, WIDTH, HEIGHT]).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert set(dirt) <= set(DIRT)
    assert sum(number for kind, number in dirt.items() if kind.endswith("dropped")) == len(corners) - len(boxes)


def test_input_is_left_alone():
    corners = np.array([[-2.0, 3, 4, 5]], np.float32)
    clean_boxes(corners, HEIGHT, WIDTH, Counter(), first_pixel=1)
    assert corners.tolist() == [[-2, 3, 4, 5]]


def test_report_is_one_line_that_names_set_split_and_every_kind():
    dirt = {"zero-area box dropped": 2, "box clipped": 1}
    data = DetectionSet("bccd", "train", ("cell",), (1,), (), dirt)
    assert describe_dirt(data) == "bccd/train: dropped 2 zero-area boxes, clipped 1 box to its image"
    everything = describe_dirt(DetectionSet("x", "val", (), (), (), dict.fromkeys(DIRT, 3)))
    assert everything.count("3") == len(DIRT) == 6
    assert "\n" not in everything
    assert describe_dirt(DetectionSet("bccd", "train", (), (), ())) == ""


@pytest.mark.parametrize("written", [(0, 0), (7, 0), (np.nan, 5), (-1, 5), (np.inf, 5)])
def test_image_size_that_is_missing_comes_from_the_file_and_is_counted(tmp_path: Path, written):
    path = tmp_path / "a.png"
    Image.new("RGB", (9, 7)).save(path)
    dirt: Counter[str] = Counter()
    assert image_size(path, *written, dirt) == (7, 9)
    assert dirt == {"image size missing": 1}


def test_image_size_that_is_there_is_believed_without_opening_the_file(tmp_path: Path):
    dirt: Counter[str] = Counter()
    assert image_size(tmp_path / "nowhere.png", 7.0, 9.0, dirt) == (7, 9)
    assert not dirt


def test_image_size_of_no_image_is_an_error_that_names_it(tmp_path: Path):
    path = tmp_path / "a.jpg"
    path.write_text("no image")
    with pytest.raises(UserError, match=r"a\.jpg is no readable image.* mend"):
        image_size(path, 0, 0, Counter())
