"""Which sample goes into which step on which process, and the data loaders that follow."""

import signal
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import count

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from rankdet.data.augment import Padding
from rankdet.data.dataset import DetectionDataset
from rankdet.data.records import Batch, Target
from rankdet.data.view_dataset import ViewDataset
from rankdet.errors import UserError


class TrainBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) keys: step s takes samples s*B ... (s+1)*B - 1 of an endless stream of epochs.

    Each epoch is one permutation of the images, a function of (seed, epoch); a batch may end one epoch and begin the
    next, so nothing is dropped and B may exceed the number of images. The keys of a step depend on the step alone:
    starting at start_step resumes exactly. batch_size B counts the images of all ranks; rank r takes the r-th of
    world_size equal, contiguous parts, which together are the single-process batch in its order.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        seed: int,
        total_steps: int | None = None,
        start_step: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """total_steps: where to stop, counted from step 0; None: never. Raises UserError for an indivisible batch."""
        if num_images < 1:
            raise UserError("the training set has no image")
        if batch_size < 1 or batch_size % world_size:
            raise UserError(
                f"batch_size={batch_size} cannot be split evenly over {world_size} processes; "
                f"choose a positive multiple of {world_size}"
            )
        self.num_images = num_images
        self.batch_size = batch_size
        self.seed = seed
        self.total_steps = total_steps
        self.start_step = start_step
        self.rank = rank
        self.world_size = world_size

    def __len__(self) -> int:
        """Batches that iterating yields; TypeError if endless."""
        if self.total_steps is None:
            raise TypeError("an endless stream of batches has no length")
        return max(0, self.total_steps - self.start_step)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """This rank's keys of each step, from start_step on."""
        share = self.batch_size // self.world_size
        epoch, order = -1, np.empty(0, dtype=np.int64)
        for step in count(self.start_step) if self.total_steps is None else range(self.start_step, self.total_steps):
            first = step * self.batch_size + self.rank * share
            keys = []
            for position in range(first, first + share):
                if position // self.num_images != epoch:
                    epoch = position // self.num_images
                    order = np.random.default_rng((self.seed, epoch)).permutation(self.num_images)
                keys.append((epoch, int(order[position % self.num_images])))
            yield keys


def train_loader(
    dataset: DetectionDataset,
    batch_size: int,
    total_steps: int | None = None,
    start_step: int = 0,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
) -> DataLoader[Batch]:
    """Batches for the steps from start_step on, as TrainBatches deals them out with the dataset's seed.

    The number of workers changes no batch. Images of different sizes are padded as the dataset's augmentation says.
    They are not grouped by aspect ratio, by which Detectron2 pads less: which images a step sees stays a function of
    (seed, step) alone. Raises UserError if there is no image, or no object to learn from.
    """
    name = f"data set {dataset.detection_set.name!r}, split {dataset.detection_set.split!r}"
    if len(dataset) == 0:
        raise UserError(f"{name}: no image to train on; check the split file")
    if dataset.num_objects() == 0:
        raise UserError(f"{name}: {len(dataset)} images but no object to learn from; check annotations and class names")
    batches = TrainBatches(len(dataset), batch_size, dataset.seed, total_steps, start_step, rank, world_size)
    return _loader(dataset, batches, num_workers, dataset.augment.padding)


def evaluation_loader(
    dataset: ViewDataset, batch_size: int, rank: int = 0, world_size: int = 1, num_workers: int = 0
) -> DataLoader[Batch]:
    """Every view of every image once over all ranks: rank r takes images r, r + world_size, ... and groups them.

    Up to batch_size images whose views have the same input sizes make a group, and each view of a group is one batch;
    the batches of a group follow each other, so that an image's views can be merged as they come. Groups, and images
    within one, go by first appearance: where all inputs have one size, as with a stretch, that is the data set's order.
    A rank may have no batch at all.
    """
    groups: dict[tuple[tuple[int, int], ...], list[int]] = {}
    for index in range(rank, len(dataset), world_size):
        sizes = tuple((view.input_height, view.input_width) for view in dataset.views_of(index))
        groups.setdefault(sizes, []).append(index)
    batches = [
        [(view, index) for index in indices[first : first + batch_size]]
        for sizes, indices in groups.items()
        for first in range(0, len(indices), batch_size)
        for view in range(len(sizes))
    ]
    return _loader(dataset, batches, num_workers)


def without_padding(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The same images as if they had come without padding, those of a batch that are shown at one size together.

    For what looks at a network's whole output, or changes its input: nothing is left to leave out. A batch without
    padding stays as it is.
    """
    for images, targets in batches:
        sizes = [target.shown or (images.shape[2], images.shape[3]) for target in targets]
        for height, width in dict.fromkeys(sizes):
            rows = [row for row, size in enumerate(sizes) if size == (height, width)]
            yield Batch(images[rows, :, :height, :width], [targets[row] for row in rows])


def collate(samples: list[tuple[Tensor, Target]], padding: Padding | None = None) -> Batch:
    """B samples -> one batch. Without padding all images must have one size.

    With it each image lies at the top left of its input, and where any is padded `shown` of each target says how large
    the image is. In training the network sees the padding, near zero after its normalisation, as in Detectron2: only
    anchors in it are ignored. (At test time it does not: models/padding.py.)
    """
    images, targets = zip(*samples, strict=True)
    sizes = [(image.shape[1], image.shape[2]) for image in images]
    if padding is None:
        return Batch(images=torch.stack(images), targets=list(targets))
    height, width = (-(-max(sides) // padding.stride) * padding.stride for sides in zip(*sizes, strict=True))
    if all(size == (height, width) for size in sizes):
        return Batch(images=torch.stack(images), targets=list(targets))
    batch = torch.tensor(padding.fill, dtype=torch.uint8).view(3, 1, 1).repeat(len(images), 1, height, width)
    for whole, image in zip(batch, images, strict=True):
        whole[:, : image.shape[1], : image.shape[2]] = image
    return Batch(batch, [target._replace(shown=size) for target, size in zip(targets, sizes, strict=True)])


class _Loader(DataLoader[Batch]):
    """A data loader whose workers' UserErrors arrive as they were raised, not wrapped in a printed traceback."""

    def __iter__(self) -> Iterator[Batch]:
        try:
            yield from super().__iter__()
        except UserError as error:
            raise UserError(str(error).rsplit(f"{UserError.__qualname__}: ", 1)[-1].strip()) from error


def _loader(
    dataset: DetectionDataset | ViewDataset,
    batches: Sampler[list[tuple[int, int]]] | list[list[tuple[int, int]]],
    num_workers: int,
    padding: Padding | None = None,
) -> DataLoader[Batch]:
    _single_threaded()
    return _Loader(
        dataset,
        batch_sampler=batches,
        collate_fn=partial(collate, padding=padding),
        num_workers=num_workers,
        pin_memory=torch.cuda.is_initialized(),  # else a run on the CPU would take memory of a GPU that is there
        persistent_workers=num_workers > 0,
        worker_init_fn=_begin_worker,
        generator=torch.Generator(),  # else each iterator advances torch's global generator, which resuming restores
    )


def _single_threaded() -> None:
    """Workers are the parallelism: OpenCV's own threads would only compete, and do not survive a fork."""
    cv2.setNumThreads(0)


def _begin_worker(_worker_id: int) -> None:
    """A signal to the whole group of processes is the training's to act on: it has a step to finish with our batches.

    Only the first one is let pass: a training that cannot end its workers otherwise sends them one, and another.
    """
    _single_threaded()
    signal.signal(signal.SIGTERM, lambda signum, _frame: signal.signal(signum, signal.SIG_DFL))
    for signum in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(signum, signal.SIG_IGN)
