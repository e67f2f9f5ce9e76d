"""Augmentation: geometry by hand, boxes that follow their pixels, seeds, and arguments that cannot be mistyped."""

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from drawn_sets import COLOURS, paint
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from torch import tensor
from torchvision.ops import box_iou

from rankdet.data.augment import Augment, resize_image, sample_seed
from rankdet.data.expand import Expand
from rankdet.data.min_iou_crop import MinIoUCrop, _iou
from rankdet.data.pca_lighting import PCALighting
from rankdet.data.transforms import A, transform
from rankdet.errors import UserError

SSD_IOUS = (None, 0.1, 0.3, 0.7, 0.9, 0.0)


def load(repo: Path, name: str, height: int, width: int) -> DictConfig:
    node = OmegaConf.load(repo / "configs" / "augment" / f"{name}.yaml")
    return OmegaConf.create({"data": {"image_size": [height, width]}, "augment": node})


def build(repo: Path, name: str, height: int, width: int) -> Augment:
    return instantiate(load(repo, name, height, width).augment, _convert_="all")


def run(augment: Augment, image: np.ndarray, boxes: list | np.ndarray, seed: int = 0):
    array = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    return augment(augment.prepare(image), array, image.shape[:2], seed)


def test_mirror_by_hand():
    """Width 8: columns 1 and 2 (box 1 ... 3) move to 8 - 3 = 5 ... 8 - 1 = 7; rows stay."""
    image = paint(4, 8, np.array([[1, 1, 3, 4]]), np.array([0]))
    result = run(Augment((4, 8), [transform("HorizontalFlip", p=1.0)]), image, [[1, 1, 3, 4]])
    np.testing.assert_array_equal(result.boxes, np.array([[5, 1, 7, 4]], dtype=np.float32))
    np.testing.assert_array_equal(result.image, paint(4, 8, np.array([[5, 1, 7, 4]]), np.array([0])))


def test_resize_only_by_hand():
    """40 x 80 to 20 x 20: y halved, x quartered: (8, 10, 24, 30) becomes (2, 5, 6, 15); area averages 2 x 4 pixels."""
    boxes = np.array([[8, 10, 24, 30]])
    result = run(Augment((20, 20)), paint(40, 80, boxes, np.array([2])), boxes)
    np.testing.assert_array_equal(result.boxes, np.array([[2, 5, 6, 15]], dtype=np.float32))
    assert result.boxes.dtype == np.float32
    np.testing.assert_array_equal(result.image, paint(20, 20, result.boxes, np.array([2])))


def test_area_interpolation_becomes_linear_where_a_side_grows():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    for height, width in ((40, 60), (10, 60), (40, 15)):
        np.testing.assert_array_equal(
            resize_image(image, height, width, "area"), resize_image(image, height, width, "linear")
        )
    assert (resize_image(image, 10, 15, "area") != resize_image(image, 10, 15, "nearest")).any()


def test_thin_boxes_are_dropped_after_the_resize():
    """80 wide to 20: sides of 4 and 3 pixels become 1 and 0.75; min_side 1 keeps the first, 0.5 both."""
    image = np.zeros((40, 80, 3), dtype=np.uint8)
    boxes = [[10, 0, 13, 40], [10, 0, 14, 40]]
    assert run(Augment((40, 20)), image, boxes).kept.tolist() == [1]
    assert run(Augment((40, 20), min_side=0.5), image, boxes).kept.tolist() == [0, 1]


def test_cropped_parts_do_not_come_back_by_padding():
    """A crop to 0 ... 10 leaves 6 ... 10 of the box 6 ... 16 and nothing of 12 ... 16; padding restores neither."""
    steps = [
        transform("Crop", x_min=0, y_min=0, x_max=10, y_max=10),
        transform("Pad", padding=[0, 0, 10, 0], p=1.0),
    ]
    augment = Augment((10, 20), steps, resize="last")
    result = run(augment, np.zeros((20, 20, 3), np.uint8), [[6, 2, 16, 8], [12, 2, 16, 8]])
    np.testing.assert_allclose(result.boxes, [[6, 2, 10, 8]], rtol=1e-6)
    assert result.kept.tolist() == [0]


def test_transforms_with_equal_probability_are_drawn_independently():
    """Of 400 samples each combination of two fair coins is due 100 times, standard deviation 8.7."""
    augment = Augment((2, 2), [transform("HorizontalFlip", p=0.5), transform("VerticalFlip", p=0.5)])
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    corners = [int(run(augment, image, [], seed).image[0, 0, 0]) for seed in range(400)]
    counts = [corners.count(value) for value in (0, 3, 6, 9)]
    assert sum(counts) == 400
    assert min(counts) > 60, counts


def test_the_seed_alone_decides(repo):
    """Also after other samples were drawn, and from a second instance; global generators are neither read nor moved."""
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    boxes = [[5, 5, 40, 40], [30, 10, 70, 50]]
    first, second = build(repo, "ssd", 64, 64), build(repo, "ssd", 64, 64)
    expected = [run(first, image, boxes, seed) for seed in range(12)]
    random.seed(1)
    state = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    for seed in reversed(range(12)):
        for actual, wanted in zip(run(second, image, boxes, seed), expected[seed], strict=True):
            np.testing.assert_array_equal(actual, wanted)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == state  # noqa: NPY002
    assert len({result.image.tobytes() for result in expected}) == 12


def test_sample_seeds_differ_in_each_argument():
    seeds = {sample_seed(*key) for key in np.ndindex(4, 20, 20)}
    assert len(seeds) == 1600
    assert sample_seed(0, 0, 0) == sample_seed(0, 0, 0) < 2**64


def test_boxes_bound_their_pixels_through_the_ssd_recipe(repo):
    """A red rectangle on grey: at half its largest redness, it spans the returned box within 2 pixels on every side.

    The rectangle is the only object, so no crop may lose it. Scales run from 512/(4 * 640) to 512/(0.3 * 480)."""
    augment = build(repo, "ssd", 512, 512)
    rng = np.random.default_rng(7)
    for seed in range(60):
        left, top = rng.integers(0, 400), rng.integers(0, 300)
        box = np.array([left, top, left + rng.integers(60, 240), top + rng.integers(60, 180)])
        result = run(augment, paint(480, 640, box[None], np.array([0])), box, seed)
        assert result.kept.tolist() == [0], seed
        red = result.image[:, :, 0].astype(int) - result.image[:, :, 1:].max(axis=2)
        rows, columns = np.nonzero(red > red.max() / 2)
        pixels = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(result.boxes[0], pixels, atol=2.0, err_msg=f"seed {seed}")


@pytest.mark.parametrize(
    "step",
    [
        transform("RandomResizedCrop", size=[100, 90], scale=[0.5, 1.0]),
        transform("Affine", scale=[0.8, 1.2], translate_percent=[-0.1, 0.1]),
        transform("RandomRotate90"),
        A.OneOf([A.Sequential([transform("Transpose", p=1.0), transform("RandomCrop", height=100, width=90)])], p=1.0),
    ],
    ids=["crop", "affine", "rotate", "nested"],
)
def test_other_transforms_of_albumentations_fit_in(step):
    """They see boxes as they expect them without albumentations' own pipeline around: a red box bounds its pixels."""
    augment = Augment((120, 120), [step], resize="last", interpolation=["linear"])
    box = np.array([50, 40, 90, 75])
    for seed in range(10):
        result = run(augment, paint(120, 140, box[None], np.array([0])), box, seed)
        red = result.image[:, :, 0].astype(int) - result.image[:, :, 1]
        rows, columns = np.nonzero(red > red.max() / 2)
        pixels = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(result.boxes[0], pixels, atol=1.5, err_msg=f"seed {seed}")


def test_indices_stay_with_their_boxes_when_crops_drop_some(repo):
    """Red, green and blue boxes: at each returned box's centre the strongest channel is the colour of its index."""
    augment = build(repo, "ssd", 128, 128)
    boxes = np.array([[10, 10, 60, 60], [90, 20, 150, 70], [40, 70, 100, 110]])
    image = paint(120, 160, boxes, np.arange(3))
    lost = 0
    for seed in range(150):
        result = run(augment, image, boxes, seed)
        lost += 3 - len(result.kept)
        assert (np.diff(result.kept) > 0).all()
        for box, index in zip(result.boxes, result.kept, strict=True):
            x, y = ((box[:2] + box[2:]) / 2).astype(int)
            assert result.image[y, x].argmax() == COLOURS[index].argmax(), seed
    assert lost > 30


@pytest.fixture(scope="module")
def small_recipes(repo) -> dict[str, Augment]:
    return {name: build(repo, name, 40, 56) for name in ("none", "flip_color", "ssd")}


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**63), num_boxes=st.integers(0, 6), height=st.integers(8, 90), width=st.integers(8, 90))
def test_every_result_is_legal(small_recipes, seed, num_boxes, height, width):
    """Whatever is drawn: size and type of the image, boxes inside it with sides of a pixel or more, input untouched."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    corners = rng.uniform(0, 1, (num_boxes, 2, 2)) * (width, height)
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.float32)
    for augment in small_recipes.values():
        prepared = augment.prepare(image)
        before = prepared.copy(), boxes.copy()
        prepared.flags.writeable = False
        result = augment(prepared, boxes, (height, width), seed)
        assert (result.image.shape, result.image.dtype) == ((40, 56, 3), np.uint8)
        assert result.boxes.shape == (len(result.kept), 4)
        assert ((result.boxes >= 0) & (result.boxes <= (56, 40, 56, 40))).all()
        assert (result.boxes[:, 2:] - result.boxes[:, :2] >= 1 - 1e-4).all()
        np.testing.assert_array_equal(prepared, before[0])
        np.testing.assert_array_equal(boxes, before[1])


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    num_boxes=st.integers(0, 5),
    height=st.integers(10, 300),
    width=st.integers(10, 300),
    min_iou=st.sampled_from(SSD_IOUS),
)
def test_min_iou_crop_keeps_its_contract(seed, num_boxes, height, width, min_iou):
    """Sides and aspect allowed (a pixel of rounding); exactly the boxes with their centre inside are kept, clipped;
    some kept box overlaps the crop by the IoU asked for, unless the whole image was taken or there is no box."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 1, (num_boxes, 2, 2)) * (width, height)
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    crop = MinIoUCrop((None, min_iou), min_scale=0.3, max_scale=1.0, max_aspect=2.0, num_trials=50)
    crop.set_random_seed(seed)
    rows = np.concatenate([boxes / (width, height, width, height), np.arange(num_boxes)[:, None]], axis=1)
    columns, lines = np.meshgrid(np.arange(width), np.arange(height))
    where = np.stack([columns, lines, columns], axis=2).astype(np.int32)
    result = crop(image=where, bboxes=rows)

    left, top = result["image"][0, 0, :2]
    right, bottom = result["image"][-1, -1, :2] + 1
    whole = (right - left, bottom - top) == (width, height)
    assert result["image"].shape[:2] == (bottom - top, right - left)
    if not whole:
        assert right - left >= 0.3 * width - 1
        assert bottom - top >= 0.3 * height - 1
        assert 0.5 <= (right - left) / (bottom - top) <= 2

    kept = result["bboxes"][:, 4].astype(int)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((centres >= (left, top)) & (centres < (right, bottom))).all(axis=1)
    assert kept.tolist() == np.nonzero(inside)[0].tolist()
    clipped = boxes[kept].clip((left, top, left, top), (right, bottom, right, bottom)) - (left, top, left, top)
    extent = np.array([right - left, bottom - top] * 2)
    np.testing.assert_allclose(result["bboxes"][:, :4] * extent, clipped, atol=1e-9)
    if num_boxes and not whole:
        iou = box_iou(tensor([[left, top, right, bottom]]).double(), tensor(boxes[kept]))
        assert iou.max() >= (min_iou or 0.0) - 1e-9


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), num_crops=st.integers(1, 50), num_boxes=st.integers(1, 20))
def test_iou_of_crops_is_torchvisions_to_the_bit(seed, num_crops, num_boxes):
    """So that no seed's crop depends on which of the two computed it."""
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 300, (num_crops, 2))
    crops = np.concatenate([corners, corners + rng.integers(1, 200, (num_crops, 2))], axis=1)
    ends = rng.uniform(0, 400, (num_boxes, 2, 2))
    boxes = np.concatenate([ends.min(axis=1), ends.max(axis=1)], axis=1)
    np.testing.assert_array_equal(_iou(crops, boxes), box_iou(tensor(crops).double(), tensor(boxes)).numpy())


def test_min_iou_crop_finds_crops_for_every_choice():
    """One object of 60 % of the sides in the middle: each choice of SSD's but .9 is met in some of 60 draws."""
    boxes = np.array([[0.2, 0.2, 0.8, 0.8, 0]])
    image = np.zeros((100, 100, 3), dtype=np.uint8)
    for min_iou in (0.0, 0.1, 0.3, 0.7):
        crop = MinIoUCrop((None, min_iou), min_scale=0.3, max_scale=1.0, max_aspect=2.0, num_trials=50)
        crop.set_random_seed(0)
        shapes = [crop(image=image, bboxes=boxes)["image"].shape[:2] for _ in range(60)]
        assert sum(shape != (100, 100) for shape in shapes) >= 15, min_iou


@pytest.mark.parametrize(
    "change", [{"min_ious": (0.1,)}, {"min_scale": 0.0}, {"max_scale": 1.5}, {"max_aspect": 0.5}, {"num_trials": 0}]
)
def test_min_iou_crop_refuses(change):
    good = {"min_ious": SSD_IOUS, "min_scale": 0.3, "max_scale": 1.0, "max_aspect": 2.0, "num_trials": 50}
    assert MinIoUCrop(**good).min_ious == SSD_IOUS
    with pytest.raises(UserError, match="MinIoUCrop"):
        MinIoUCrop(**(good | change))


def test_expand_fills_with_the_mean_and_moves_boxes():
    """Black image: all other pixels of the canvas have the fill, and the black ones span the box of the whole image."""
    expand = Expand(max_ratio=4.0, fill=(123, 116, 103), p=1.0)
    expand.set_random_seed(3)
    ratios = []
    for _ in range(50):
        result = expand(image=np.zeros((20, 30, 3), np.uint8), bboxes=np.array([[0.0, 0.0, 1.0, 1.0, 7.0]]))
        height, width = result["image"].shape[:2]
        rows, columns = np.nonzero((result["image"] == 0).all(axis=2))
        assert len(rows) == 600
        assert (result["image"] == (123, 116, 103)).all(axis=2).sum() == height * width - 600
        pixels = result["bboxes"][0] * (width, height, width, height, 1)
        np.testing.assert_allclose(pixels, [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1, 7])
        ratios.append(height / 20)
    assert 1 <= min(ratios) < 1.5
    assert 3.5 < max(ratios) <= 4


@pytest.mark.parametrize("change", [{"max_ratio": 0.5}, {"fill": (1, 2)}, {"fill": (0, 0, 256)}])
def test_expand_refuses(change):
    with pytest.raises(UserError, match="Expand"):
        Expand(**({"max_ratio": 4.0, "fill": (1, 2, 3)} | change))


def test_pca_lighting_by_hand():
    """One component (1, 0, -1) of value 0.1, alpha drawn: red rises by 25.5 alpha, blue falls by it, green stays."""
    lighting = PCALighting(std=0.5, eigenvalues=[0.1, 0, 0], eigenvectors=[[1, 0, 0], [0, 0, 0], [-1, 0, 0]])
    lighting.set_random_seed(0)
    alpha = np.random.default_rng(0).normal(0.0, 0.5, 3)[0]
    result = lighting(image=np.full((2, 2, 3), 100, np.uint8))["image"]
    shift = round(25.5 * alpha)
    assert shift != 0
    assert (result == (100 + shift, 100, 100 - shift)).all()
    assert (lighting(image=np.full((2, 2, 3), 255, np.uint8))["image"] >= 200).all()  # saturates, never wraps


def test_yaml_files_hold_the_recipes(repo):
    """Every file of the group is known; flip_color has no geometry but the mirror; ssd has FACTS' numbers."""
    names = sorted(path.stem for path in (repo / "configs" / "augment").glob("*.yaml"))
    assert names == ["flip_color", "none", "short_side_jitter", "short_side_jitter_mini", "ssd"]
    built = {name: build(repo, name, 120, 160) for name in ("flip_color", "none", "ssd")}  # the others set no size
    assert all((augment.height, augment.width) == (120, 160) for augment in built.values())
    kinds = {name: [type(t).__name__ for t in augment.transforms] for name, augment in built.items()}
    assert vars(built["none"]) == vars(Augment((120, 160)))  # what evaluation uses
    assert kinds["flip_color"] == ["HorizontalFlip", "RandomBrightnessContrast"]
    brightness, contrast, saturation, hue, lighting, expand, crop, mirror = built["ssd"].transforms
    assert np.allclose(np.array(brightness.brightness_limit) * 255, (-32, 32), atol=0.01)
    assert np.allclose(1 + np.array(contrast.contrast_limit), (0.5, 1.5))
    assert saturation.saturation == (0.5, 1.5)
    assert np.allclose(np.array(hue.hue) * 360, (-18, 18))
    assert lighting.std == 0.1
    assert (expand.max_ratio, expand.p) == (4.0, 0.5)
    assert set(crop.min_ious) == {None, 0.1, 0.3, 0.7, 0.9, 0.0}
    assert mirror.p == 0.5
    assert len(built["ssd"].interpolation) == 5


def test_no_argument_of_a_yaml_can_be_mistyped(repo):
    """Each argument of each transform of each file, renamed: never ignored."""
    tried = 0
    for name in ("flip_color", "ssd"):
        for i, spec in enumerate(load(repo, name, 64, 64).augment.transforms):
            for key in (key for key in spec if key not in ("_target_", "name")):
                config = load(repo, name, 64, 64)
                config.augment.transforms[i][f"{key}_"] = config.augment.transforms[i].pop(key)
                with pytest.raises(InstantiationException) as failure:
                    instantiate(config.augment, _convert_="all")
                assert isinstance(failure.value.__cause__, (UserError, TypeError)), (name, i, key)
                tried += 1
    assert tried == 34


def test_wrong_arguments_are_user_errors():
    with pytest.raises(UserError, match=r"HorizontalFlip.*probability"):
        transform("HorizontalFlip", probability=0.5)
    with pytest.raises(UserError, match=r"RandomBrightnessContrast.*brightness_limit"):
        transform("RandomBrightnessContrast", brightness_limit="strong")
    for name in ("HorizontalFlop", "BboxParams"):
        with pytest.raises(UserError, match=name):
            transform(name)
    with pytest.warns(UserWarning, match="probability"):
        ignored = A.HorizontalFlip(probability=0.5)
    for transforms in ([ignored], [A.OneOf([A.Sequential([ignored])])]):
        with pytest.raises(UserError, match=r"HorizontalFlip.*probability"):
            Augment((8, 8), transforms)


@pytest.mark.parametrize(
    "arguments",
    [
        {"image_size": [64]},
        {"image_size": [0, 64]},
        {"image_size": [64, 64], "resize": "middle"},
        {"image_size": [64, 64], "interpolation": ["bilinear"]},
        {"image_size": [64, 64], "interpolation": []},
        {"image_size": [64, 64], "interpolation": ["area", "linear"]},
    ],
)
def test_augment_refuses(arguments):
    with pytest.raises(UserError, match=r"image_size|resize|interpolation"):
        Augment(**arguments)


def test_resizing_needs_no_albumentations_and_albumentations_no_network(tmp_path):
    """Evaluation does not pay its seconds of import; where it is imported, its version check is switched off before.

    A stand-in package of that name, first on the path, looks at the environment as it is imported."""
    (tmp_path / "albumentations.py").write_text("import os\nassert os.environ['NO_ALBUMENTATIONS_UPDATE'] == '1'\n")
    code = """
import sys
import rankdet.data.loader
assert "albumentations" not in sys.modules
import rankdet.data.transforms
assert "albumentations" in sys.modules
"""
    environment = {key: value for key, value in os.environ.items() if key != "NO_ALBUMENTATIONS_UPDATE"}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), environment.get("PYTHONPATH", "")])
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env=environment)
