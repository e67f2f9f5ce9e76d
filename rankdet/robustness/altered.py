"""A split's images as a test condition alters them."""

import numpy as np
import torch
from torch import Tensor

from rankdet.data.records import DetectionSet, Target
from rankdet.data.view_dataset import ViewDataset
from rankdet.data.views import Views
from rankdet.robustness.patches import Alteration, image_generator


class AlteredImages(ViewDataset):
    """Test images altered at the network's input, in the part that shows the image; targets are as they were.

    Crowds are regions and no objects: they get no patch. An image's random choices depend on the seed and its file's
    name alone, and so not on the order of the images, on batches or processes.
    """

    def __init__(self, detection_set: DetectionSet, views: Views, alter: Alteration, seed: int) -> None:
        super().__init__(detection_set, views)
        self.alter, self.seed = alter, seed

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Target]:
        """(view, index) -> image [3, H, W], uint8 or float32 in about 0..255, and its target."""
        image, target = super().__getitem__(key)
        height, width = target.shown or (image.shape[1], image.shape[2])
        boxes = target.boxes[~target.ignore].numpy()
        generator = image_generator(self.seed, self.detection_set.records[key[1]].path.name)
        altered = self.alter(image[:, :height, :width].permute(1, 2, 0).numpy(), boxes, generator)
        shown = torch.from_numpy(np.ascontiguousarray(altered.transpose(2, 0, 1)))
        if shown.shape == image.shape:
            return shown, target
        whole = image.to(shown.dtype)
        whole[:, :height, :width] = shown
        return whole, target
