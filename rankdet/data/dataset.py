"""Images and targets by (epoch, index): what a data loader's workers call."""

import torch
from numpy import ndarray
from torch import Tensor
from torch.utils.data import Dataset

from rankdet.data.augment import Augmentation, sample_seed
from rankdet.data.image import read_image
from rankdet.data.records import DetectionSet, Record, Target
from rankdet.errors import UserError


class DetectionDataset(Dataset[tuple[Tensor, Target]]):
    """A split of a data set as (image, target) pairs, of the size or sizes that the augmentation makes.

    dataset[epoch, index] is a function of the seed, epoch and index: it holds no state that a worker or a resumed run
    could have missed.
    """

    def __init__(
        self,
        detection_set: DetectionSet,
        augment: Augmentation,
        seed: int = 0,
        cache: str = "none",
        train_difficult: bool = True,
    ) -> None:
        """cache: "none", or "ram", which keeps each image as augment.prepare left it (already resized where the resize
        comes first) from its first use on, num_images * height * width * 3 bytes in each process that loads, and
        changes no result. train_difficult: whether difficult objects are learnt from or, like crowds, ignored.
        Raises UserError for another cache."""
        if cache not in ("none", "ram"):
            raise UserError(f"data.cache must be none or ram, not {cache!r}")
        self.detection_set = detection_set
        self.augment = augment
        self.seed = seed
        self.train_difficult = train_difficult
        self._cache: dict[int, ndarray] | None = {} if cache == "ram" else None

    def __len__(self) -> int:
        """Images of the split."""
        return len(self.detection_set.records)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Target]:
        """(epoch, index) -> image uint8 [3, H, W] RGB and its target, boxes in pixels of that image.

        Raises UserError naming the file if it cannot be decoded or has another size than annotated.
        """
        epoch, index = key
        record = self.detection_set.records[index]
        size = (record.height, record.width)
        seed = sample_seed(self.seed, epoch, index)
        image, boxes, kept = self.augment(self._prepared(index), record.boxes, size, seed)
        target = Target(
            boxes=torch.from_numpy(boxes),
            labels=torch.from_numpy(record.labels[kept]),
            ignore=torch.from_numpy(self._ignored(record)[kept]),
            image_id=record.image_id,
            size=size,
        )
        return torch.from_numpy(image.transpose(2, 0, 1).copy()), target

    def num_objects(self) -> int:
        """Objects to learn from before augmentation: all but the ignored ones."""
        return sum(int((~self._ignored(record)).sum()) for record in self.detection_set.records)

    def _ignored(self, record: Record) -> ndarray:
        return record.crowd.copy() if self.train_difficult else record.crowd | record.difficult

    def _prepared(self, index: int) -> ndarray:
        if self._cache is not None and index in self._cache:
            return self._cache[index]
        record = self.detection_set.records[index]
        image = self.augment.prepare(read_image(record.path, (record.height, record.width)))
        if self._cache is not None:
            image.flags.writeable = False  # a transform that works in place must fail, not change the next epoch
            self._cache[index] = image
        return image
