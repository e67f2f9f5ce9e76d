"""Reading images of all kinds, targets from records, and what broken files get."""

import numpy as np
import pytest
import torch
from drawn_sets import COLOURS, GREY, drawn_set, record
from PIL import Image

from rankdet.data.augment import Augment
from rankdet.data.dataset import DetectionDataset
from rankdet.data.image import read_image
from rankdet.data.records import DetectionSet
from rankdet.data.transforms import transform
from rankdet.errors import UserError


def single(item, **arguments) -> DetectionDataset:
    """A data set of one record, resized to 40 x 60."""
    return DetectionDataset(DetectionSet("one", "test", ("red",), (1,), (item,)), Augment((40, 60)), **arguments)


def test_sample_by_hand(tmp_path):
    """80 x 120 pixels to 40 x 60: coordinates halved; channels first, RGB; size and id are the record's."""
    item = record(tmp_path / "a.png", 17, 80, 120, [[20, 10, 60, 50]], [2])
    image, target = single(item)[3, 0]
    assert (image.shape, image.dtype, image.is_contiguous()) == ((3, 40, 60), torch.uint8, True)
    assert image[:, 20, 20].tolist() == COLOURS[2].tolist()
    assert image[:, 0, 0].tolist() == [GREY] * 3
    assert target.boxes.tolist() == [[10, 5, 30, 25]]
    assert (target.boxes.dtype, target.labels.dtype, target.ignore.dtype) == (torch.float32, torch.int64, torch.bool)
    assert (target.labels.tolist(), target.ignore.tolist()) == ([2], [False])
    assert (target.image_id, target.size) == (17, (80, 120))


def test_image_without_objects(tmp_path):
    _, target = single(record(tmp_path / "a.png", 0, 80, 120, [], []))[0, 0]
    assert (target.boxes.shape, target.labels.shape, target.ignore.shape) == ((0, 4), (0,), (0,))


@pytest.mark.parametrize(
    ("train_difficult", "ignore", "objects"), [(True, [False, False, True], 2), (False, [False, True, True], 1)]
)
def test_ignored_objects(tmp_path, train_difficult, ignore, objects):
    """Crowds always; difficult objects where they are not to be learnt from."""
    boxes = [[0, 0, 20, 20], [30, 0, 50, 20], [0, 20, 40, 40]]
    flags = {"difficult": [False, True, False], "crowd": [False, False, True]}
    dataset = single(record(tmp_path / "a.png", 0, 40, 60, boxes, [0, 0, 0], **flags), train_difficult=train_difficult)
    assert dataset[0, 0][1].ignore.tolist() == ignore
    assert dataset.num_objects() == objects


def test_labels_and_flags_follow_their_boxes(tmp_path):
    """A crop to the left half drops the first box: the second one's label and crowd flag come first."""
    item = record(tmp_path / "a.png", 0, 40, 60, [[40, 0, 60, 20], [0, 0, 20, 20]], [2, 1], crowd=[False, True])
    crop = transform("Crop", x_min=0, y_min=0, x_max=30, y_max=40)
    dataset = DetectionDataset(
        DetectionSet("one", "train", ("red",), (1,), (item,)), Augment((40, 30), [crop], resize="last")
    )
    _, target = dataset[0, 0]
    assert (target.boxes.tolist(), target.labels.tolist(), target.ignore.tolist()) == ([[0, 0, 20, 20]], [1], [True])


@pytest.mark.parametrize("resize", ["first", "last"])
def test_cache_changes_nothing(tmp_path, resize):
    """Same samples with and without, in any order and over two epochs; the cached file is read once."""
    steps = [transform("HorizontalFlip", p=0.5), transform("RandomBrightnessContrast", p=0.5)]
    arguments = {"augment": Augment((24, 32), steps, resize=resize), "seed": 5}
    plain = DetectionDataset(drawn_set(tmp_path, 6), **arguments)
    cached = DetectionDataset(drawn_set(tmp_path, 6), **arguments, cache="ram")
    keys = [(0, 3), (0, 1), (1, 3), (0, 3), (1, 1), (7, 5)]
    expected = [plain[key] for key in keys]
    for _ in range(2):
        for key, (image, target) in zip(keys, expected, strict=True):
            again, other = cached[key]
            assert torch.equal(again, image)
            assert torch.equal(other.boxes, target.boxes)
        for index in (1, 3, 5):
            (tmp_path / f"{index}.png").unlink(missing_ok=True)
    with pytest.raises(UserError, match=r"3\.png: no such image"):
        plain[0, 3]
    with pytest.raises(UserError, match=r"data\.cache"):
        DetectionDataset(drawn_set(tmp_path, 1), **arguments, cache="disk")


def test_a_returned_image_is_a_copy(tmp_path):
    dataset = single(record(tmp_path / "a.png", 0, 40, 60, [], []), cache="ram")
    dataset[0, 0][0].zero_()
    assert dataset[0, 0][0].unique().tolist() == [GREY]


def test_every_pixel_format_becomes_rgb(tmp_path):
    """Colour (200, 100, 50); its grey is .299 * 200 + .587 * 100 + .114 * 50 = 124.2; 16 bits keep the upper byte."""
    colour = Image.new("RGB", (5, 4), (200, 100, 50))
    palette = colour.quantize(4)
    alpha = colour.convert("RGBA")
    alpha.putalpha(10)
    cases = {
        "rgb.png": (colour, (200, 100, 50)),
        "grey.png": (colour.convert("L"), (124, 124, 124)),
        "grey_alpha.png": (colour.convert("LA"), (124, 124, 124)),
        "rgba.png": (alpha, (200, 100, 50)),
        "palette.png": (palette, (200, 100, 50)),
        "bits.png": (colour.convert("1", dither=Image.Dither.NONE), (0, 0, 0)),
        "sixteen.png": (Image.fromarray(np.full((4, 5), 77 * 256 + 200, dtype=np.uint16)), (77, 77, 77)),
        "grey.jpg": (colour.convert("L"), (124, 124, 124)),
        "cmyk.jpg": (colour.convert("CMYK"), (200, 100, 50)),
    }
    for name, (image, expected) in cases.items():
        image.save(tmp_path / name)
        pixels = read_image(tmp_path / name, (4, 5))
        assert (pixels.shape, pixels.dtype) == ((4, 5, 3), np.uint8), name
        np.testing.assert_allclose(pixels, np.broadcast_to(expected, (4, 5, 3)), atol=3, err_msg=name)


def test_exif_orientation_is_ignored(tmp_path):
    """Orientation 6 would turn the stored 4 x 5 pixels into 5 x 4."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (5, 4)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (4, 5, 3)
    with pytest.raises(UserError, match="EXIF"):
        read_image(tmp_path / "a.jpg", (5, 4))


def test_broken_files_are_named(tmp_path):
    """Missing, empty, no image at all, a JPEG and a PNG cut in half, another size than annotated."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8))
    for suffix in ("jpg", "png"):
        noise.save(tmp_path / f"whole.{suffix}")
        data = (tmp_path / f"whole.{suffix}").read_bytes()
        (tmp_path / f"cut.{suffix}").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("not an image")
    for name in ("missing.jpg", "cut.jpg", "cut.png", "empty.jpg", "text.jpg", "whole.jpg"):
        with pytest.raises(UserError) as failure:
            read_image(tmp_path / name, (120, 80))
        message = str(failure.value)
        assert str(tmp_path / name) in message
        assert "\n" not in message
    assert "120 x 80" in message
    assert "80 x 120" in message
    with pytest.raises(UserError, match="cannot be decoded"):
        read_image(tmp_path)


def test_a_wrong_size_is_found_on_the_way(tmp_path):
    item = record(tmp_path / "a.png", 0, 40, 60, [], [])
    Image.new("RGB", (61, 40)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"a\.png: the image is 61 x 40 pixels but its annotation says 60 x 40"):
        single(item)[0, 0]
