"""What all contestants share: the data, the number of classes, and the batches, the same for each."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from omegaconf import DictConfig

from rankdet.build import build_dataset, open_source
from rankdet.config import compose
from rankdet.data.dataset import DetectionDataset
from rankdet.data.loader import train_loader
from rankdet.data.records import Batch

VOC_CLASSES = 20


class Setup(NamedTuple):
    """data: overrides that choose a data set; num_classes: of the detectors, at least as many as the data have;
    backbone: a ResNet that both sides know.
    """

    data: tuple[str, ...] = ("data=shapes",)
    num_classes: int = VOC_CLASSES
    backbone: str = "resnet50"

    def config(self, overrides: Sequence[str] = ()) -> DictConfig:
        """The paper protocol's config on these data, without ImageNet weights."""
        network = [f"model.backbone.name={self.backbone}", "model.backbone.weights=null"]
        return compose(["protocol=paper", *self.data, *network, *overrides])


def make_setup(data: tuple[str, ...], backbone: str = "resnet50") -> Setup:
    """VOC's number of classes, or the data's own if they have more. UserError for data that cannot be read."""
    setup = Setup(data, backbone=backbone)
    cfg = setup.config()
    return setup._replace(num_classes=max(VOC_CLASSES, len(open_source(cfg).read(cfg.splits.train).classes)))


def batches(setup: Setup, size: int, images: int) -> Iterator[Batch]:
    """An endless stream of so many images at size x size, read and augmented as they are asked for.

    Every stream of the same arguments has the same batches.
    """
    return iter(train_loader(dataset(setup, size), images))


@lru_cache(maxsize=4)
def dataset(setup: Setup, size: int) -> DetectionDataset:
    """The training images under the SSD recipe."""
    cfg = setup.config([f"data.image_size=[{size},{size}]"])
    return build_dataset(cfg, open_source(cfg).read(cfg.splits.train), training=True)
