"""Test images as the network sees them, view by view, and batches of one for an image of no data set."""

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from rankdet.data.image import read_image
from rankdet.data.records import Batch, DetectionSet, Target
from rankdet.data.views import View, Views, show, show_boxes


class ViewDataset(Dataset[tuple[Tensor, Target]]):
    """A split of a data set as (image, target) pairs, one for each view of each image; nothing is drawn at random."""

    def __init__(self, detection_set: DetectionSet, views: Views, train_difficult: bool = True) -> None:
        """train_difficult: false: difficult objects are ignored, as crowds always are; it concerns targets alone."""
        self.detection_set = detection_set
        self.views = views
        self.train_difficult = train_difficult

    def __len__(self) -> int:
        """Images of the split."""
        return len(self.detection_set.records)

    def views_of(self, index: int) -> tuple[View, ...]:
        """How image `index` is shown; needs no pixels."""
        record = self.detection_set.records[index]
        return self.views(record.height, record.width)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Target]:
        """(view, index) -> image uint8 [3, H, W] RGB and its target, boxes in pixels of that input.

        Raises UserError naming the file if it cannot be decoded or has another size than annotated.
        """
        place, index = key
        record = self.detection_set.records[index]
        size = (record.height, record.width)
        view = self.views(*size)[place]
        target = Target(
            boxes=torch.from_numpy(show_boxes(record.boxes, *size, view)),
            labels=torch.from_numpy(record.labels.copy()),
            ignore=torch.from_numpy(record.crowd.copy() if self.train_difficult else record.crowd | record.difficult),
            image_id=record.image_id,
            size=size,
            shown=(view.height, view.width),
            mirrored=view.mirrored,
        )
        return _pixels(read_image(record.path, size), view, self.views), target


def image_batches(image: np.ndarray, views: Views) -> list[Batch]:
    """The views of one image, uint8 [h, w, 3] RGB, each a batch of one; its targets have no object, its id is 0."""
    size = image.shape[0], image.shape[1]
    none = torch.zeros(0)
    batches = []
    for view in views(*size):
        target = Target(none.view(0, 4), none.long(), none.bool(), 0, size, (view.height, view.width), view.mirrored)
        batches.append(Batch(_pixels(image, view, views)[None], [target]))
    return batches


def _pixels(image: np.ndarray, view: View, views: Views) -> Tensor:
    return torch.from_numpy(show(image, view, views.fill).transpose(2, 0, 1).copy())
