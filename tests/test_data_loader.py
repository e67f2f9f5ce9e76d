"""Which image goes where: over epochs, ranks, workers and restarts."""

import numpy as np
import pytest
import torch
from drawn_sets import drawn_set
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rankdet.data.augment import Augment
from rankdet.data.dataset import DetectionDataset
from rankdet.data.loader import TrainBatches, evaluation_loader, train_loader, without_padding
from rankdet.data.min_iou_crop import MinIoUCrop
from rankdet.data.records import Batch, DetectionSet
from rankdet.data.transforms import transform
from rankdet.data.view_dataset import ViewDataset
from rankdet.data.views import KeepAspect, Stretch
from rankdet.errors import UserError


@pytest.fixture
def dataset(tmp_path) -> DetectionDataset:
    """10 images, randomly mirrored, brightened and cropped to 24 x 32."""
    steps = [
        transform("HorizontalFlip", p=0.5),
        transform("RandomBrightnessContrast", p=0.9),
        MinIoUCrop((None, 0.0, 0.3), min_scale=0.3, max_scale=1.0, max_aspect=2.0, num_trials=20),
    ]
    augment = Augment((24, 32), steps, resize="last", interpolation=["linear", "nearest"])
    return DetectionDataset(drawn_set(tmp_path, 10), augment, seed=3, cache="ram")


def content(batch: Batch) -> list[list | bytes]:
    """All that a batch holds, comparable by ==."""
    return [batch.images.numpy().tobytes()] + [
        [part.tolist() if isinstance(part, Tensor) else part for part in target] for target in batch.targets
    ]


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")  # where there are fewer cores
def test_workers_change_nothing(dataset):
    """None, two and four worker processes: the same six batches, which cover 2.4 epochs."""
    expected = [content(batch) for batch in train_loader(dataset, 4, total_steps=6)]
    assert len(expected) == 6
    for num_workers in (2, 4):
        loader = train_loader(dataset, 4, total_steps=6, num_workers=num_workers)
        assert [content(batch) for batch in loader] == expected


def test_shape_and_pairing(dataset):
    """Images and targets stand in the same order: each is what the data set gives for its key."""
    keys = next(iter(TrainBatches(10, 4, seed=3)))
    batch = next(iter(train_loader(dataset, 4)))
    assert (batch.images.shape, batch.images.dtype) == ((4, 3, 24, 32), torch.uint8)
    for image, target, key in zip(batch.images, batch.targets, keys, strict=True):
        assert torch.equal(image, dataset[key][0])
        assert torch.equal(target.boxes, dataset[key][1].boxes)
        assert target.image_id == 100 + key[1]


def test_epochs_differ_in_order_and_in_augmentation(dataset):
    """Batches of all ten images: the second epoch permutes them anew, and (nearly) every image is another one."""
    first, second = list(train_loader(dataset, 10, total_steps=2))
    ids = [[target.image_id for target in batch.targets] for batch in (first, second)]
    assert sorted(ids[0]) == sorted(ids[1]) == list(range(100, 110))
    assert ids[0] != ids[1]
    changed = sum(
        not torch.equal(first.images[ids[0].index(i)], second.images[ids[1].index(i)]) for i in range(100, 110)
    )
    assert changed >= 9


def test_seeds_differ(dataset):
    expected = content(next(iter(train_loader(dataset, 10))))
    dataset.seed = 4
    assert content(next(iter(train_loader(dataset, 10)))) != expected


def test_resuming_at_any_step_gives_the_same_batches(dataset):
    expected = [content(batch) for batch in train_loader(dataset, 4, total_steps=6)]
    for start in (1, 2, 3, 5, 6):
        loader = train_loader(dataset, 4, total_steps=6, start_step=start)
        assert len(loader) == 6 - start
        assert [content(batch) for batch in loader] == expected[start:]


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_the_batch(dataset, world_size):
    """Side by side, the ranks' images of a step are the single process's, in its order."""
    whole = list(train_loader(dataset, 6, total_steps=4))
    shares = [list(train_loader(dataset, 6, total_steps=4, rank=r, world_size=world_size)) for r in range(world_size)]
    for step in range(4):
        images = torch.cat([share[step].images for share in shares])
        assert torch.equal(images, whole[step].images)
        ids = [target.image_id for share in shares for target in share[step].targets]
        assert ids == [target.image_id for target in whole[step].targets]


@settings(max_examples=80, deadline=None)
@given(
    num_images=st.integers(1, 13),
    share=st.integers(1, 5),
    world_size=st.integers(1, 3),
    seed=st.integers(0, 99),
    start=st.integers(0, 9),
)
def test_the_stream_of_samples(num_images, share, world_size, seed, start):
    """Steps are consecutive pieces of epochs, each a permutation of all images, also where B > num_images; a rank that
    starts late and sees a third of it reads the same stream."""
    batch_size = share * world_size
    steps = list(TrainBatches(num_images, batch_size, seed, total_steps=10))
    assert [len(step) for step in steps] == [batch_size] * 10
    stream = [key for step in steps for key in step]
    assert [epoch for epoch, _ in stream] == [position // num_images for position in range(len(stream))]
    for first in range(0, len(stream) - num_images + 1, num_images):
        assert sorted(index for _, index in stream[first : first + num_images]) == list(range(num_images))
    ranks = [
        list(TrainBatches(num_images, batch_size, seed, 10, start_step=start, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    for step in range(10 - start):
        assert [key for rank in ranks for key in rank[step]] == steps[start + step]


def test_endless_stream():
    batches = TrainBatches(3, 2, seed=0)
    stream = iter(batches)
    assert max(next(stream)[-1][0] for _ in range(300)) == 199
    with pytest.raises(TypeError):
        len(batches)


def test_indivisible_batches_are_refused():
    with pytest.raises(UserError, match=r"batch_size=8 .* 3 processes"):
        TrainBatches(10, 8, seed=0, world_size=3)
    with pytest.raises(UserError, match="batch_size=0"):
        TrainBatches(10, 0, seed=0)


def test_evaluation_sees_every_image_once(tmp_path):
    """Awkward numbers of images, ranks and batch sizes; rank r gets r, r + world_size, ...; some ranks get nothing.

    Every fourth image stands upright, which a stretch does not mind, so its order is the data set's.
    """
    cases = 0
    for num_images in (0, 1, 2, 5, 8, 9):
        dataset = ViewDataset(drawn_set(tmp_path, num_images), Stretch((8, 8)))
        for world_size in (1, 2, 3, 4):
            for batch_size in (1, 3, 4):
                seen = []
                for rank in range(world_size):
                    loader = evaluation_loader(dataset, batch_size, rank, world_size)
                    ids = [target.image_id for batch in loader for target in batch.targets]
                    assert ids == list(range(100, 100 + num_images))[rank::world_size]
                    seen += ids
                assert sorted(seen) == list(range(100, 100 + num_images))
                cases += 1
    assert cases == 72


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_groups_images_of_one_input_size(tmp_path, world_size):
    """Two scales and their mirror images: every view once, the views of up to three images in four batches on end.

    Lying pictures of 40 x 60 and standing ones of 50 x 30 never share a batch.
    """
    dataset = ViewDataset(drawn_set(tmp_path, 11), KeepAspect(32, 1.66, [1.0, 2.0], True, 32, [0, 0, 0]))
    seen = []
    for rank in range(world_size):
        batches = list(evaluation_loader(dataset, 3, rank, world_size))
        assert len(batches) % 4 == 0
        for first in range(0, len(batches), 4):
            group = batches[first : first + 4]
            ids = [[target.image_id for target in batch.targets] for batch in group]
            assert ids == ids[:1] * 4
            assert [batch.targets[0].mirrored for batch in group] == [False, True, False, True]
            lying = all((image_id - 100) % 4 < 3 for image_id in ids[0])
            sizes = [(32, 64), (32, 64), (64, 96), (64, 96)] if lying else [(64, 32), (64, 32), (128, 64), (128, 64)]
            assert [tuple(batch.images.shape[2:]) for batch in group] == sizes
            seen += ids[0]
    assert sorted(seen) == list(range(100, 111))


def test_evaluation_with_workers_twice(tmp_path):
    """Persistent workers serve a second pass alike."""
    loader = evaluation_loader(ViewDataset(drawn_set(tmp_path, 5), Stretch((8, 8))), 2, num_workers=2)
    passes = [[content(batch) for batch in loader] for _ in range(2)]
    assert passes[0] == passes[1]
    assert [len(batch) - 1 for batch in passes[0]] == [2, 2, 1]


def test_loading_leaves_global_random_states_alone(dataset):
    """Resuming restores them; a loader that drew from them would make the restart differ."""
    torch.manual_seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    list(train_loader(dataset, 4, total_steps=2))
    list(evaluation_loader(ViewDataset(dataset.detection_set, Stretch((24, 32))), 4))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002


def test_training_sets_with_nothing_to_learn_are_refused(tmp_path):
    """No image; images without objects only; crowds and unwanted difficult objects only."""
    empty = DetectionSet("drawn", "train", ("red",), (1,), ())
    with pytest.raises(UserError, match=r"'drawn', split 'train': no image"):
        train_loader(DetectionDataset(empty, Augment((8, 8))), 2)
    with pytest.raises(UserError, match="1 images but no object"):
        train_loader(DetectionDataset(drawn_set(tmp_path, 1), Augment((8, 8))), 2)


def test_a_broken_file_is_one_line_from_workers_too(tmp_path):
    dataset = ViewDataset(drawn_set(tmp_path, 4), Stretch((8, 8)))
    (tmp_path / "2.png").unlink()
    messages = []
    for num_workers in (0, 1):
        with pytest.raises(UserError) as failure:
            list(evaluation_loader(dataset, 2, num_workers=num_workers))
        messages.append(str(failure.value))
    assert messages[0].startswith(f"{tmp_path / '2.png'}: no such image")
    assert messages[1] == messages[0]


def test_batches_without_padding(tmp_path):
    """Images shown at 20 x 30 and 33 x 20 in an input of 64 x 64: split by that, and each as it is without padding."""
    split = drawn_set(tmp_path, 8)
    padded, bare = (ViewDataset(split, KeepAspect(20, 1.66, [1.0], False, stride, [9, 9, 9])) for stride in (64, 1))
    (batch,) = evaluation_loader(padded, 8)
    assert batch.images.shape == (8, 3, 64, 64)
    wide, high = without_padding([batch])
    assert [wide.images.shape, high.images.shape] == [(6, 3, 20, 30), (2, 3, 33, 20)]
    places = [target.image_id - 100 for part in (wide, high) for target in part.targets]
    assert places == [0, 1, 2, 4, 5, 6, 3, 7]
    for image, place in zip([*wide.images, *high.images], places, strict=True):
        assert torch.equal(image, bare[0, place][0])
    stretched = next(iter(evaluation_loader(ViewDataset(split, Stretch((24, 32))), 5)))
    (same,) = without_padding([stretched])
    assert content(same) == content(stretched)
    no_size = stretched._replace(targets=[target._replace(shown=None) for target in stretched.targets])
    assert [content(part) for part in without_padding([no_size])] == [content(no_size)]
