"""How test images are shown: sizes by hand, pixels, boxes, padding, and what is refused."""

import numpy as np
import pytest
import torch
from drawn_sets import COLOURS, GREY, drawn_set, paint, record
from hypothesis import given, settings
from hypothesis import strategies as st

from rankdet.build import build_views
from rankdet.config import compose, merge_dotlist
from rankdet.data.image import read_image
from rankdet.data.records import DetectionSet
from rankdet.data.view_dataset import ViewDataset, image_batches
from rankdet.data.views import KeepAspect, Stretch, View, show, show_boxes
from rankdet.errors import UserError

FILL = (1, 2, 3)


def keep(shorter, scales=(1.0,), flip=False, stride=1, cap=1.66):
    return KeepAspect(shorter, cap, scales, flip, stride, FILL)


@pytest.mark.parametrize(
    ("shorter", "stride", "size", "expected"),
    [
        (600, 1, (375, 500), (600, 800, 600, 800)),  # factor 1.6
        (600, 32, (375, 500), (600, 800, 608, 800)),
        (600, 128, (500, 375), (800, 600, 896, 640)),
        (500, 1, (200, 500), (332, 830, 332, 830)),  # capped: 1.66 * 500 = 830, factor 1.66
        (500, 32, (500, 200), (830, 332, 832, 352)),
        (500, 32, (512, 512), (500, 500, 512, 512)),
        (800, 32, (2000, 3000), (800, 1200, 800, 1216)),
        (10, 1, (1, 900), (1, 17, 1, 17)),  # 17 = 16.6 rounded; a side never vanishes
    ],
)
def test_sizes_by_hand(shorter, stride, size, expected):
    assert keep(shorter, stride=stride)(*size) == (View(*expected, False),)


def test_scales_and_mirror_images():
    """The scales in their order, each before its mirror image; the cap grows with the scale."""
    views = keep(100, [1.0, 0.5], flip=True)(100, 300)
    assert views == (
        View(55, 166, 55, 166, False),
        View(55, 166, 55, 166, True),
        View(28, 83, 28, 83, False),
        View(28, 83, 28, 83, True),
    )


def test_a_stretch_is_one_size_for_all():
    assert Stretch([120, 160])(33, 999) == Stretch([120, 160])(500, 1) == (View(120, 160, 120, 160, False),)


@settings(max_examples=200, deadline=None)
@given(
    height=st.integers(1, 4000),
    width=st.integers(1, 4000),
    shorter=st.integers(1, 1200),
    cap=st.floats(1, 3),
    stride=st.sampled_from([1, 2, 32, 128]),
    scale=st.floats(0.1, 3),
)
def test_every_view_keeps_its_promises(height, width, shorter, cap, stride, scale):
    """Within half a pixel: one scale on both axes, one of the two limits met and none passed, the least padding."""
    (view,) = KeepAspect(shorter, cap, [scale], False, stride, FILL)(height, width)
    short, long = sorted((view.height, view.width))
    assert short <= max(1, shorter * scale + 0.5)
    assert long <= max(1, cap * shorter * scale + 0.5)
    assert short >= shorter * scale - 0.5 or long >= cap * shorter * scale - 0.5
    factors = [view.height / height, view.width / width]
    assert abs(factors[0] - factors[1]) <= 0.5 / height + 0.5 / width or short == 1
    for shown, whole in ((view.height, view.input_height), (view.width, view.input_width)):
        assert whole % stride == 0
        assert 0 <= whole - shown < stride


def test_pixels_and_boxes_of_a_view():
    """40 x 60 at half the size, mirrored, padded to 32 x 32: a red box at x 0 ... 20 is at 20 ... 30 of 30 columns."""
    boxes = np.array([[0, 10, 20, 30]], dtype=np.float32)
    image = paint(40, 60, boxes, np.array([0]))
    view = View(20, 30, 32, 32, True)
    shown = show(image, view, FILL)
    assert (shown.shape, shown.dtype) == ((32, 32, 3), np.uint8)
    assert shown[5:15, 20:30].reshape(-1, 3).tolist() == [COLOURS[0].tolist()] * 100
    assert (shown[:20, :20] == GREY).all()
    assert (shown[20:] == FILL).all()
    assert (shown[:, 30:] == FILL).all()
    assert show_boxes(boxes, 40, 60, view).tolist() == [[20, 5, 30, 15]]
    assert show_boxes(boxes, 40, 60, view._replace(mirrored=False)).tolist() == [[0, 5, 10, 15]]
    assert boxes.tolist() == [[0, 10, 20, 30]]
    assert show(image, View(40, 60, 40, 60, False), FILL) is image


def test_the_dataset_s_samples(tmp_path):
    """80 x 120 at a shorter side of 40, padded to 64 x 64; the target says where the image is, and whose it is."""
    item = record(tmp_path / "a.png", 17, 80, 120, [[20, 10, 60, 50], [0, 0, 8, 8]], [2, 0], crowd=[False, True])
    dataset = ViewDataset(DetectionSet("one", "test", ("red",), (1,), (item,)), keep(40, flip=True, stride=64))
    assert (len(dataset), len(dataset.views_of(0))) == (1, 2)
    for place, left in ((0, 10), (1, 30)):
        image, target = dataset[place, 0]
        assert (image.shape, image.dtype, image.is_contiguous()) == ((3, 64, 64), torch.uint8, True)
        assert image[:, 20, left + 10].tolist() == COLOURS[2].tolist()
        assert image[:, 41, 5].tolist() == image[:, 5, 61].tolist() == list(FILL)
        assert target.boxes[0].tolist() == [left, 5, left + 20, 25]
        assert (target.labels.tolist(), target.ignore.tolist()) == ([2, 0], [False, True])
        assert (target.image_id, target.size, target.shown) == (17, (80, 120), (40, 60))
        assert target.mirrored == bool(place)


def test_an_image_of_no_data_set_is_shown_alike(tmp_path):
    """image_batches, as predictions use it, and the data set, as evaluation does."""
    dataset = ViewDataset(drawn_set(tmp_path, 4), keep(32, [1.0, 1.5], flip=True, stride=32))
    for index in range(4):
        item = dataset.detection_set.records[index]
        batches = image_batches(read_image(item.path), dataset.views)
        assert len(batches) == 4
        for place, batch in enumerate(batches):
            image, target = dataset[place, index]
            assert torch.equal(batch.images[0], image)
            assert batch.targets[0][4:] == target[4:]


@pytest.fixture(scope="module")
def plain():
    """What `python -m rankdet.train` runs."""
    return compose([])


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("shorter=0", r"test_input\.shorter=0"),
        ("cap=0.9", r"test_input\.cap=0\.9"),
        ("stride=0", r"test_input\.stride=0"),
        ("scales=[]", r"test_input\.scales=\[\]"),
        ("scales=[1.0,1.0]", r"test_input\.scales=\[1\.0, 1\.0\]"),
        ("scales=[-1.0]", r"test_input\.scales"),
        ("fill=[0,0]", r"test_input\.fill"),
        ("fill=[0,0,256]", r"test_input\.fill"),
    ],
)
def test_settings_out_of_range_are_named(override, named, plain):
    with pytest.raises(UserError, match=named):
        build_views(merge_dotlist(plain, ["test_input=keep_aspect", f"test_input.{override}"]))


def test_the_configs(repo, plain):
    """Each file, under mini (120 x 160) and under paper; the padding is what the model maps to zero."""
    shown = {}
    for path in sorted((repo / "configs" / "test_input").glob("*.yaml")):
        views = build_views(merge_dotlist(plain, [f"test_input={path.stem}"]))
        shown[path.stem] = [(view.height, view.width, view.mirrored) for view in views(300, 400)]
        assert path.stem == "stretch" or views.fill == (124, 116, 104)
    both = (False, True)
    assert shown == {
        "stretch": [(120, 160, False)],
        "keep_aspect": [(120, 160, False)],
        "keep_aspect_multi": [(h, h * 4 // 3, m) for h in (96, 120, 144, 168, 192) for m in both],
        "short_500": [(500, 667, False)],
        "short_500_multi": [(h, round(h * 4 / 3), m) for h in (400, 500, 600, 700, 800) for m in both],
        "short_600": [(600, 800, False)],
        "short_800": [(800, 1067, False)],
        "short_800_multi": [(h, round(h * 4 / 3), m) for h in (640, 800, 960, 1120, 1280) for m in both],
    }
    paper = build_views(compose(["protocol=paper", "data.root=somewhere"]))
    assert paper(375, 500) == (View(600, 800, 608, 800, False),)
