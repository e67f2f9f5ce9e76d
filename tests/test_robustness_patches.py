"""What patches and noise do to an image, worked by hand; and that it depends on nothing but image, seed and name."""

import numpy as np
import pytest
import torch
from drawn_sets import drawn_set, record
from hypothesis import given
from hypothesis import strategies as st

from rankdet.data.loader import evaluation_loader
from rankdet.data.records import DetectionSet
from rankdet.data.views import KeepAspect, Stretch
from rankdet.robustness.altered import AlteredImages
from rankdet.robustness.noise import gaussian_noise
from rankdet.robustness.patches import black_patch, flip_patch, image_generator, patch_windows, random_patch

PATCHES = (black_patch, flip_patch, random_patch)
NONE = np.zeros((0, 4), np.float32)


def numbered(height, width, dtype=np.uint8):
    """An image whose pixels are all different, at least in one channel."""
    place = np.arange(height * width).reshape(height, width)
    return np.stack([place % 251, place // 251, place * 7 % 253], axis=2).astype(dtype)


@pytest.mark.parametrize(
    ("box", "window"),
    [
        ((10, 20, 30, 60), (15, 30, 25, 50)),  # 20 x 40 about (20, 40): 10 x 20
        ((0, 0, 5, 7), (1, 2, 4, 5)),  # about (2.5, 3.5), quarters 1.25 and 1.75: 1.25 to 3.75, 1.75 to 5.25
        ((0, 0, 1, 1), (0, 0, 1, 1)),  # 0.25 to 0.75: never empty
        ((79.2, 59.4, 80, 60), (79, 59, 80, 60)),  # in the last pixel: inside the image
        ((0, 0, 80, 60), (20, 15, 60, 45)),
    ],
)
def test_half_the_width_and_half_the_height_at_the_centre(box, window):
    assert patch_windows(np.array([box], np.float32), (60, 80)).tolist() == [list(window)]


@given(st.data())
def test_windows_lie_in_the_image_and_hold_a_pixel(data):
    height, width = data.draw(st.integers(1, 50)), data.draw(st.integers(1, 50))
    x, y = (sorted(data.draw(st.tuples(*2 * [st.floats(0, side)]))) for side in (width, height))
    left, top, right, bottom = patch_windows(np.array([[x[0], y[0], x[1], y[1]]]), (height, width))[0]
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


def test_black_is_black_inside_and_leaves_the_rest():
    image = numbered(60, 80) | 1  # nowhere black
    altered = black_patch(image, np.array([[10, 20, 30, 60], [40, 0, 80, 20]], np.float32), image_generator(0, "a"))
    expected = image.copy()
    expected[30:50, 15:25] = 0
    expected[5:15, 50:70] = 0
    assert np.array_equal(altered, expected)


def test_flips_are_the_three_and_each_as_frequent():
    """600 names of one image: a window's content is flipped one way in about a third of the draws (sd 12)."""
    image = numbered(12, 16)
    box = np.array([[0, 0, 16, 12]], np.float32)  # window: columns 4 to 11, rows 3 to 8
    content = image[3:9, 4:12]
    wanted = [content[:, ::-1], content[::-1], content[::-1, ::-1]]
    counts = [0, 0, 0]
    for index in range(600):
        altered = flip_patch(image, box, image_generator(5, f"{index}.png"))
        counts[[np.array_equal(altered[3:9, 4:12], each) for each in wanted].index(True)] += 1
        altered[3:9, 4:12] = content
        assert np.array_equal(altered, image)
    assert all(abs(count - 200) < 4 * 12 for count in counts)


@given(st.integers(0, 10_000), st.data())
def test_random_content_comes_from_outside_the_box(seed, data):
    """Every pixel's value tells its place: the patch is one window of the image that shares no pixel with the box."""
    x, y = (sorted(data.draw(st.tuples(*2 * [st.floats(1, 19)]))) for _ in "xy")
    box = np.array([x[0], y[0], x[1] + 0.5, y[1] + 0.5])
    image = numbered(64, 48)
    left, top, right, bottom = patch_windows(box, (64, 48))[0]
    altered = random_patch(image, box[None], image_generator(seed, "a"))
    (row,), (column,) = np.where((image == altered[top, left]).all(axis=2))
    patch = altered[top:bottom, left:right]
    assert np.array_equal(patch, image[row : row + bottom - top, column : column + right - left])
    assert (
        column + right - left <= np.floor(box[0])
        or column >= np.ceil(box[2])
        or (row + bottom - top <= np.floor(box[1]) or row >= np.ceil(box[3]))
    )


def test_random_content_where_nothing_is_outside():
    """A box over all but the last 3 of 16 columns, window 6 or 7 wide: places furthest right share least with it."""
    image = numbered(8, 16)
    box = np.array([[0, 0, 13, 8]], np.float32)
    left, top, right, _ = patch_windows(box, (8, 16))[0]
    for seed in range(20):
        altered = random_patch(image, box, image_generator(seed, "a"))
        columns = np.where((image == altered[top, left]).all(axis=2))[1]
        assert columns.tolist() == [16 - (right - left)]
    whole = random_patch(image, np.array([[0, 0, 16, 8]], np.float32), image_generator(0, "a"))
    assert not np.array_equal(whole, image)  # displaced content of the object itself, and no error


@pytest.mark.parametrize("patch", PATCHES)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_type_is_kept_the_input_untouched_and_no_object_is_legal(patch, dtype):
    image = numbered(30, 40, dtype)
    before = image.copy()
    boxes = np.array([[4, 4, 20, 24], [10, 8, 38, 28]], np.float32)
    altered = patch(image, boxes, image_generator(1, "a"))
    assert altered.dtype == dtype
    assert not np.array_equal(altered, image)
    assert np.array_equal(image, before)
    assert np.array_equal(patch(image, NONE, image_generator(1, "a")), image)
    assert np.array_equal(patch(image, boxes, image_generator(1, "a")), altered)


@pytest.mark.parametrize("patch", [flip_patch, random_patch])
def test_seed_and_name_decide(patch):
    image, boxes = numbered(60, 80), np.array([[10, 20, 30, 60], [40, 0, 80, 20], [0, 0, 30, 20]], np.float32)
    results = {patch(image, boxes, image_generator(seed, name)).tobytes() for seed in (0, 1, 2) for name in "abc"}
    assert len(results) > 4


def test_overlapping_patches_show_the_unaltered_image():
    """Two equal boxes: flipping twice would undo itself; the second object's flip of the original stays."""
    image = numbered(12, 16)
    twice = np.array([[0, 0, 16, 12]] * 2, np.float32)
    for seed in range(10):
        altered = flip_patch(image, twice, image_generator(seed, "a"))
        assert not np.array_equal(altered, image)


def test_noise_has_the_mean_and_the_variance():
    """480 000 values: the mean's standard error is 0.0001 of 1, the variance's 2e-5; they are not clipped at 0."""
    image = np.full((400, 400, 3), 10, np.uint8)
    altered = gaussian_noise(image, NONE, image_generator(0, "a"))
    noise = (altered.astype(np.float64) - 10) / 255
    assert altered.dtype == np.float32
    assert abs(noise.mean()) < 5e-4
    assert noise.var() == pytest.approx(0.01, abs=1e-4)
    assert altered.min() < 0
    assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.01


def pictures(dataset, batch_size, ranks=1, workers=0):
    """image id -> its altered picture, by a loader."""
    found = {}
    for rank in range(ranks):
        for batch in evaluation_loader(dataset, batch_size, rank, ranks, workers):
            found |= {target.image_id: image for image, target in zip(batch.images, batch.targets, strict=True)}
    return found


@pytest.mark.parametrize("alter", [flip_patch, random_patch, gaussian_noise])
def test_batches_order_and_processes_change_nothing(tmp_path, alter):
    split, views = drawn_set(tmp_path, 11), Stretch([40, 60])
    expected = pictures(AlteredImages(split, views, alter, 0), 4)
    assert len(expected) == 11
    turned = DetectionSet(split.name, "test", split.classes, split.category_ids, split.records[::-1])
    others = [
        pictures(AlteredImages(turned, views, alter, 0), 3),
        pictures(AlteredImages(split, views, alter, 0), 2, ranks=3),
        pictures(AlteredImages(split, views, alter, 0), 4, workers=2),
    ]
    for other in others:
        assert other.keys() == expected.keys()
        assert all(torch.equal(other[key], expected[key]) for key in expected)


def test_crowds_get_no_patch_and_padding_stays(tmp_path):
    """40 x 60 pixels shown as 20 x 30 in an input of 32 x 32; a crowd, and an object over the left half."""
    boxes = [[0, 0, 30, 40], [40, 0, 60, 40]]
    one = record(tmp_path / "a.png", 0, 40, 60, boxes, [0, 1], crowd=[False, True])
    split = DetectionSet("drawn", "test", ("red", "green"), (1, 2), (one,))
    views = KeepAspect(20, 2.0, [1.0], False, 32, [9, 9, 9])
    image, target = AlteredImages(split, views, black_patch, 0)[0, 0]
    assert image.shape == (3, 32, 32)
    black = (image == 0).all(dim=0).nonzero()
    assert black.min(dim=0).values.tolist() == [5, 4]  # the object is 15 x 20 pixels now: columns 3.75 to 11.25
    assert black.max(dim=0).values.tolist() == [14, 10]
    assert len(black) == 10 * 7
    assert (image[:, 20:] == 9).all()
    assert (image[:, :, 30:] == 9).all()
    assert target.boxes.tolist() == [[0, 0, 15, 20], [20, 0, 30, 20]]
    noisy = AlteredImages(split, views, gaussian_noise, 0)[0, 0][0]
    assert noisy.dtype == torch.float32
    assert (noisy[:, 20:] == 9).all()
    assert noisy[:, :20, :30].unique().numel() > 1000
