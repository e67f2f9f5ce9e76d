"""Images of drawn sizes: lengths by hand, one share for each length, padded batches, and what is refused."""

from collections import Counter

import numpy as np
import pytest
import torch
from drawn_sets import COLOURS, GREY, drawn_set, paint, record
from torch import Tensor

from rankdet.build import build_dataset, make
from rankdet.config import compose
from rankdet.data.augment import Augment, Padding
from rankdet.data.dataset import DetectionDataset
from rankdet.data.loader import collate, train_loader, without_padding
from rankdet.data.records import Batch, DetectionSet
from rankdet.data.scale_jitter import ShortSideJitter
from rankdet.data.transforms import A, transform
from rankdet.errors import UserError

FILL = (1, 2, 3)
NO_BOXES = np.zeros((0, 4), dtype=np.float32)


def jitter(shorter=(20, 24, 28, 40), longest=66, stride=8, transforms=(), **more) -> ShortSideJitter:
    return ShortSideJitter(shorter, longest, stride, FILL, transforms, **more)


@pytest.fixture
def dataset(tmp_path) -> DetectionDataset:
    """10 images of 40 x 60 or 50 x 30, mirrored and brightened at random."""
    steps = [transform("HorizontalFlip", p=0.5), transform("RandomBrightnessContrast", p=0.9)]
    return DetectionDataset(drawn_set(tmp_path, 10), jitter(transforms=steps), seed=3)


def content(batch: Batch) -> list[list | bytes]:
    """All that a batch holds, comparable by ==."""
    return [batch.images.shape, batch.images.numpy().tobytes()] + [
        [part.tolist() if isinstance(part, Tensor) else part for part in target] for target in batch.targets
    ]


@pytest.mark.parametrize(
    ("shorter", "longest", "size", "expected"),
    [
        (480, 1333, (375, 500), (480, 640)),  # factor 1.28
        (800, 1333, (500, 375), (1067, 800)),  # 1066.7
        (800, 1333, (300, 600), (666, 1333)),  # capped: 1333 / 600 = 2.2217, where 800 would take 2.67
        (480, 1333, (1, 3000), (1, 1333)),  # a side never vanishes
        (60, 60, (90, 90), (60, 60)),
    ],
)
def test_sizes_by_hand(shorter, longest, size, expected):
    image = np.zeros((*size, 3), dtype=np.uint8)
    assert jitter([shorter], longest)(image, NO_BOXES, size, 0).image.shape == (*expected, 3)


def test_pixels_and_boxes_by_hand():
    """40 x 60 to 20 x 30, mirrored: a red box at x 0 ... 20, y 10 ... 30 is at x 20 ... 30, y 5 ... 15."""
    boxes = np.array([[0, 10, 20, 30]], dtype=np.float32)
    image = paint(40, 60, boxes, np.array([0]))
    augment = jitter([20], transforms=[transform("HorizontalFlip", p=1.0)])
    result = augment(augment.prepare(image), boxes, (40, 60), 0)
    assert result.boxes.tolist() == [[20, 5, 30, 15]]
    assert result.kept.tolist() == [0]
    np.testing.assert_array_equal(result.image, paint(20, 30, result.boxes, np.array([0])))


def test_small_objects_go_by_the_size_that_they_are_shown_at():
    """2 pixels of 40 rows are 1 pixel of 20 rows and 2 of 40: of min_side 1.5 only the latter is left."""
    boxes = np.array([[0, 0, 30, 2], [10, 10, 30, 30]], dtype=np.float32)
    image = paint(40, 60, boxes, np.array([0, 1]))
    kept = {side: jitter([side], min_side=1.5)(image, boxes, (40, 60), 0).kept.tolist() for side in (20, 40)}
    assert kept == {20: [1], 40: [0, 1]}


def test_every_length_is_drawn_alike_often_and_from_the_seed_alone(tmp_path):
    """400 draws of four lengths: each 100 times, give or take four standard deviations of 8.7."""
    item = record(tmp_path / "a.png", 0, 40, 60, [], [])
    dataset = DetectionDataset(DetectionSet("one", "train", ("red",), (1,), (item,)), jitter(), seed=1, cache="ram")
    heights = Counter(dataset[epoch, 0][0].shape[1] for epoch in range(400))
    assert heights.keys() == {20, 24, 28, 40}
    assert all(65 <= count <= 135 for count in heights.values())
    assert [dataset[epoch, 0][0].shape for epoch in (3, 2, 1)] == [dataset[epoch, 0][0].shape for epoch in (3, 2, 1)]


def test_a_batch_is_padded_at_the_right_and_below(dataset):
    """The least multiple of 8 that holds all of its images, each as the data set gives it; targets say how large."""
    batches = list(train_loader(dataset, 4, total_steps=5))
    keys = list(train_loader(dataset, 4, total_steps=5).batch_sampler)
    padded = 0
    for batch, of_batch in zip(batches, keys, strict=True):
        alone = [dataset[key] for key in of_batch]
        largest = [max(image.shape[axis] for image, _ in alone) for axis in (1, 2)]
        assert list(batch.images.shape[2:]) == [-(-side // 8) * 8 for side in largest]
        for whole, target, (image, expected) in zip(batch.images, batch.targets, alone, strict=True):
            height, width = image.shape[1:]
            assert target.shown == (height, width)
            assert torch.equal(whole[:, :height, :width], image)
            for channel, value in zip(whole, FILL, strict=True):
                outside = torch.cat([channel[height:].flatten(), channel[:height, width:].flatten()])
                assert (outside == value).all()
                padded += len(outside)
            assert torch.equal(target.boxes, expected.boxes)
            assert (target.image_id, target.size) == (expected.image_id, expected.size)
            assert (target.boxes <= torch.tensor([width, height, width, height])).all()
    assert padded > 10_000
    parts = [part for batch in batches for part in without_padding([batch])]
    assert sum(len(part.targets) for part in parts) == 20
    assert not any(torch.equal(part.images[:, :, -1, -1], torch.tensor([FILL]).byte()) for part in parts)


def test_a_batch_without_padding_stays_as_it_is(tmp_path):
    """One length, one shape, sides that are multiples of the stride; and fixed sizes, where nothing may be padded."""
    samples = [DetectionDataset(drawn_set(tmp_path, 3), jitter([40], stride=20))[0, index] for index in range(3)]
    batch = collate(samples, Padding(20, FILL))
    assert batch.images.shape == (3, 3, 40, 60)
    assert [target.shown for target in batch.targets] == [None] * 3
    assert content(batch) == content(collate(samples))
    assert Augment((8, 8)).padding is None
    with pytest.raises(RuntimeError, match="size"):
        collate([samples[0], (samples[1][0][:, :9], samples[1][1])])


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes")
def test_workers_restarts_and_the_cache_change_nothing(dataset):
    expected = [content(batch) for batch in train_loader(dataset, 4, total_steps=6)]
    assert len({tuple(each[0]) for each in expected}) > 1
    assert [content(batch) for batch in train_loader(dataset, 4, total_steps=6, num_workers=2)] == expected
    for start in (1, 4):
        assert [content(batch) for batch in train_loader(dataset, 4, 6, start)] == expected[start:]
    cached = DetectionDataset(dataset.detection_set, dataset.augment, seed=3, cache="ram")
    assert [content(batch) for batch in train_loader(cached, 4, total_steps=6)] == expected


def test_ranks_share_the_images_and_pad_each_their_own(dataset):
    whole = list(train_loader(dataset, 4, total_steps=4))
    shares = [list(train_loader(dataset, 4, total_steps=4, rank=rank, world_size=2)) for rank in range(2)]
    sizes = set()
    for step, batch in enumerate(whole):
        images = [image for share in shares for image in share[step].images]
        targets = [target for share in shares for target in share[step].targets]
        for ours, theirs, target, expected in zip(images, batch.images, targets, batch.targets, strict=True):
            height, width = target.shown
            assert (target.image_id, target.shown) == (expected.image_id, expected.shown)
            assert torch.equal(ours[:, :height, :width], theirs[:, :height, :width])
        sizes |= {tuple(share[step].images.shape[2:]) == tuple(batch.images.shape[2:]) for share in shares}
    assert sizes == {False, True}


def test_seeds_and_epochs_differ(dataset):
    first, second = list(train_loader(dataset, 10, total_steps=2))
    shown = [{target.image_id: target.shown for target in batch.targets} for batch in (first, second)]
    dataset.seed = 4
    (other,) = train_loader(dataset, 10, total_steps=1)
    assert shown[0].keys() == shown[1].keys()
    assert shown[0] != shown[1] != {target.image_id: target.shown for target in other.targets} != shown[0]


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("shorter=[]", r"augment\.shorter=\[\]"),
        ("shorter=[0,96]", r"augment\.shorter=\[0, 96\]"),
        ("shorter=[96.5]", r"augment\.shorter=\[96\.5\]"),
        ("longest=159", r"augment\.longest=159: must be a whole number, 160 \(of shorter\) or more"),
        ("longest=999.5", r"augment\.longest"),
        ("longest=null", r"augment\.longest=None"),
        ("stride=0", r"augment\.stride=0"),
        ("fill=[0,0]", r"augment\.fill"),
        ("fill=[0,0,256]", r"augment\.fill"),
        ("interpolation=[bilinear]", r"augment\.interpolation .* not \['bilinear'\]"),
    ],
)
def test_values_out_of_range_are_named(override, named):
    cfg = compose(["augment=short_side_jitter_mini", f"augment.{override}"])
    with pytest.raises(UserError, match=named) as caught:
        make(cfg.augment)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:Argument")
def test_an_argument_that_a_transform_ignores_is_refused():
    with pytest.raises(UserError, match="HorizontalFlip has no argument q"):
        jitter(transforms=[A.HorizontalFlip(q=0.5)])


def test_the_configs(tmp_path):
    """Detectron2's lengths; the padding is what the model maps to about zero."""
    large, small = (make(compose([f"augment=short_side_jitter{name}"]).augment) for name in ("", "_mini"))
    assert large.shorter == tuple(range(480, 801, 32))
    assert (large.longest, large.padding) == (1333, Padding(32, (124, 116, 104)))
    assert (small.shorter, small.longest) == ((96, 112, 128, 144, 160), 266)
    assert [t.__class__.__name__ for t in large.transforms] == ["HorizontalFlip"]
    cfg = compose(["augment=short_side_jitter_mini"])
    dataset = build_dataset(cfg, drawn_set(tmp_path, 4), training=True)
    (batch,) = train_loader(dataset, 4, total_steps=1)
    assert batch.images.shape[2] % 32 == batch.images.shape[3] % 32 == 0
    assert {min(target.shown) for target in batch.targets} <= set(small.shorter)


def test_colours_survive(tmp_path):
    """A green object stays green in a padded batch, at the place that its box says."""
    dataset = DetectionDataset(drawn_set(tmp_path, 10), jitter(stride=64))
    (batch,) = train_loader(dataset, 10, total_steps=1)
    seen = 0
    for image, target in zip(batch.images, batch.targets, strict=True):
        for box, label in zip(target.boxes, target.labels, strict=True):
            x, y = ((box[:2] + box[2:]) / 2).long().tolist()
            if (target.boxes[:, :2] <= torch.tensor([x, y])).all(1).sum() > 1:
                continue  # perhaps below another
            assert (image[:, y, x].int() - torch.tensor(COLOURS[label]).int()).abs().max() < 40
            seen += 1
        assert (image[:, 0, 0] == GREY).all()
    assert seen >= 6
