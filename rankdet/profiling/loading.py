"""How fast images are decoded and augmented on one core, beside torchvision's transforms on the same files."""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from rankdet.data.augment import Augment, sample_seed
from rankdet.data.image import read_image
from rankdet.data.records import Record

OURS = "rankdet"
STAGES = ("decode", "augment")
FILL = (123, 116, 103)  # ImageNet's mean colour, as in configs/augment/ssd.yaml
MIN_IOUS = (0.0, 0.1, 0.3, 0.7, 0.9, 1.0)  # the same choices as there; 1.0 is torchvision's "leave it whole"
WARM_UP = 8  # images that each pipeline sees before any is timed: lazy imports, caches, the allocator


class Pipeline(Protocol):
    """From a file to what a network is fed."""

    name: str

    def decode(self, record: Record) -> Any:  # noqa: ANN401
        """The file's pixels, in whatever form augment() wants them."""

    def augment(self, record: Record, image: Any, seed: int) -> Tensor:  # noqa: ANN401
        """uint8 [3, H, W] of the size asked for; the boxes go along and are dropped here."""


class OwnPipeline:
    """This project's: PIL decodes, OpenCV and albumentations work on arrays."""

    name = OURS

    def __init__(self, augment: Augment) -> None:
        self._augment = augment

    def decode(self, record: Record) -> np.ndarray:
        """uint8 [H, W, 3]; a damaged file and another size than annotated are errors here."""
        return read_image(record.path, (record.height, record.width))

    def augment(self, record: Record, image: np.ndarray, seed: int) -> Tensor:
        """As the training loader's dataset does it."""
        size = (record.height, record.width)
        result = self._augment(self._augment.prepare(image), record.boxes, size, seed)
        return torch.from_numpy(result.image.transpose(2, 0, 1).copy())


class TorchvisionPipeline:
    """torchvision.transforms.v2's parts of the SSD recipe in SSD's order, with the same ranges and probabilities.

    Different by nature: it may permute the colour channels and has no PCA lighting, and it resizes with antialiased
    bilinear interpolation where ours draws one of five. form: what the transforms work on, "tensor" (uint8, as
    torchvision recommends) or "PIL".
    """

    def __init__(self, form: str, height: int, width: int) -> None:
        self.name = f"torchvision v2, {form}"
        self._as_tensor = form == "tensor"
        self._transform = v2.Compose(
            [
                v2.RandomPhotometricDistort(p=0.5),
                v2.RandomZoomOut(fill=FILL, side_range=(1.0, 4.0), p=0.5),
                v2.RandomIoUCrop(sampler_options=list(MIN_IOUS), trials=50),
                v2.RandomHorizontalFlip(p=0.5),
                v2.Resize((height, width)),
                v2.SanitizeBoundingBoxes(),
            ]
        )

    def decode(self, record: Record) -> Tensor | Image.Image:
        """By PIL, which torchvision works with now that its own decoders are deprecated."""
        with Image.open(record.path) as file:
            image = file.convert("RGB")
        return v2.functional.pil_to_tensor(image) if self._as_tensor else image

    def augment(self, record: Record, image: Tensor | Image.Image, seed: int) -> Tensor:
        """torchvision draws from the global generators, which are seeded here."""
        torch.manual_seed(seed % 2**63)
        random.seed(seed)
        boxes = tv_tensors.BoundingBoxes(
            torch.from_numpy(record.boxes), format="XYXY", canvas_size=(record.height, record.width)
        )
        wrapped = tv_tensors.Image(image) if self._as_tensor else image
        result, _ = self._transform(wrapped, {"boxes": boxes, "labels": torch.from_numpy(record.labels)})
        return result if self._as_tensor else v2.functional.pil_to_tensor(result)


class Pass(NamedTuple):
    """What one pipeline took for all images once, on one core."""

    pipeline: str
    number: int  # of the pass, from 0
    images: int
    decode: float  # the processor's seconds, for all images
    augment: float

    @property
    def seconds(self) -> float:
        """Both stages."""
        return self.decode + self.augment

    @property
    def images_per_second(self) -> float:
        """On one core."""
        return self.images / self.seconds


class Speed(NamedTuple):
    """Medians over the passes."""

    pipeline: str
    decode_ms: float  # an image
    augment_ms: float
    images_per_second: float


def measure(
    pipelines: Sequence[Pipeline], records: Sequence[Record], passes: int, show: Callable[[], None] = lambda: None
) -> list[Pass]:
    """Times every pipeline on every image, in turns image by image, `passes` times with other random draws each time.

    Each image is one seed for all pipelines. The first of the turn changes with the image, since it finds the file
    colder. show is called after every image. Seconds are the processor's, those of all threads together, so that other
    programs on the machine take nothing away and no pipeline gains by threads.
    """
    for pipeline in pipelines:
        for record in records[:WARM_UP]:
            pipeline.augment(record, pipeline.decode(record), 0)
    results = []
    for number in range(passes):
        seconds = {pipeline.name: dict.fromkeys(STAGES, 0.0) for pipeline in pipelines}
        for index, record in enumerate(records):
            first = (index + number) % len(pipelines)
            for pipeline in (*pipelines[first:], *pipelines[:first]):
                start = time.process_time()
                image = pipeline.decode(record)
                middle = time.process_time()
                pipeline.augment(record, image, sample_seed(0, number, index))
                end = time.process_time()
                seconds[pipeline.name]["decode"] += middle - start
                seconds[pipeline.name]["augment"] += end - middle
            show()
        results += [Pass(pipeline.name, number, len(records), **seconds[pipeline.name]) for pipeline in pipelines]
    return results


def speeds(passes: Sequence[Pass]) -> list[Speed]:
    """Medians by pipeline, in order of appearance."""
    found = []
    for name in dict.fromkeys(each.pipeline for each in passes):
        own = [each for each in passes if each.pipeline == name]
        stages = [statistics.median(1000 * getattr(each, stage) / each.images for each in own) for stage in STAGES]
        found.append(Speed(name, *stages, statistics.median(each.images_per_second for each in own)))
    return found


def advantage(passes: Sequence[Pass]) -> dict[str, float]:
    """By each other pipeline's name: how many times faster ours is, the median over the passes of the ratio in one."""
    ours = {each.number: each.seconds for each in passes if each.pipeline == OURS}
    others = dict.fromkeys(each.pipeline for each in passes if each.pipeline != OURS)
    return {
        name: statistics.median(each.seconds / ours[each.number] for each in passes if each.pipeline == name)
        for name in others
    }
