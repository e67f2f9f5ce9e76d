"""Detectors of several outputs in small: built, given images with few objects, trained by a step; a run continued."""

import shutil
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor

from rankdet import train
from rankdet.build import Detector, build_detector
from rankdet.config import compose, run_directory
from rankdet.data.records import Batch, Target
from rankdet.training.gradients import backpropagate
from rankdet.training.loop import Training
from rankdet.training.schedule import StepSchedule
from rankdet.training.timing import Stopwatch

CLASSES = 3
CPU = torch.device("cpu")
OBJECTS = (3, 0, 1, 2)  # of the four images


@lru_cache
def config(*overrides: str) -> DictConfig:
    return compose(list(overrides))


def built(*overrides: str, num_classes: int = CLASSES) -> Detector:
    torch.manual_seed(0)
    return build_detector(config(*overrides), num_classes)


def batch(objects=OBJECTS, height=48, width=64) -> Batch:
    """An image of random pixels a number of objects, in turn."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (len(objects), 3, height, width), generator=generator, dtype=torch.uint8)
    boxes = torch.tensor([[2.0, 2, 22, 20], [30, 10, 60, 44], [8, 24, 26, 44]])
    labels, none = torch.tensor([0, 1, 2]), torch.zeros(3, dtype=torch.bool)
    targets = [Target(boxes[:n], labels[:n], none[:n], 70 + i, (height, width)) for i, n in enumerate(objects)]
    return Batch(images, targets)


def training(detector: Detector, precision="fp32", micro_batch=0) -> Training:
    """At step 0; every stage knows an epoch."""
    for stage in detector.stages:
        stage.criterion.set_epoch_length(10)
    detector.model.train()
    optimizer = torch.optim.SGD(detector.model.parameters(), lr=0.01)
    schedule = StepSchedule(0.01, 10, (), 0.1, 0, 1.0, 10)
    return Training(detector.model, detector.stages, optimizer, schedule, CPU, precision, micro_batch=micro_batch)


def gradients(trained: Training, images: Batch) -> tuple[dict[str, Tensor], dict[str, float]]:
    """The gradient of each weight, and the loss's parts."""
    torch.manual_seed(5)
    parts = backpropagate(trained, images, Stopwatch(CPU))
    return {name: p.grad for name, p in trained.model.named_parameters()}, {k: float(v) for k, v in parts.items()}


def assert_continues(arguments: list[str], whole: Path, said: Callable[[], str]) -> None:
    """The finished run in `whole`, broken off at step 14 of 16 and continued by `arguments`, ends with the same bits.

    said: what was written to the screen since it was last asked."""
    broken = run_directory(compose(arguments))
    shutil.copytree(whole, broken)
    for name in ("record.json", "weights.pt", "checkpoints/step-00000016.pt"):
        (broken / name).unlink()
    train.run(compose(arguments))
    ours, theirs = (torch.load(folder / "weights.pt")["model"] for folder in (broken, whole))
    assert len(theirs) > 100
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
    assert "continuing at step 14" in said()
