"""One optimiser step of each contestant, with its laps."""

from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice
from typing import Protocol

import torch
from torch import nn
from torch.optim import SGD, Optimizer

from rankdet.benchmark.contestants import OURS, Contestant, our_detector, their_detector
from rankdet.benchmark.inputs import Setup
from rankdet.build import build_optimizer
from rankdet.data.records import Batch
from rankdet.training.compiled import compiled
from rankdet.training.loop import AUTOCAST, StepReport, Training, train
from rankdet.training.schedule import StepSchedule
from rankdet.training.timing import Stopwatch

LR = 0.0  # the optimiser does all its work, but no weight moves, so that every repeat has the same scores


class Step(Protocol):
    """A detector under training."""

    model: nn.Module
    optimizer: Optimizer
    laps: list[dict[str, float]]  # of every step so far: seconds of data, forward, matching, loss, backward

    def __call__(self, batches: Iterator[Batch]) -> None:
        """Takes the next batch, and a step on it."""


def make_step(contestant: Contestant, setup: Setup, device: torch.device) -> Step:
    """The contestant, ready to train on the device."""
    step = OurStep if contestant.side == OURS else TheirStep
    return step(contestant, setup, device)


class OurStep:
    """rankdet.training.loop.train, batch by batch, with the paper protocol's optimiser."""

    def __init__(self, contestant: Contestant, setup: Setup, device: torch.device) -> None:
        detector = our_detector(contestant, setup)
        self.model = _prepared(detector.model, contestant, device)
        self.optimizer = build_optimizer(setup.config(), self.model, LR)
        for stage in detector.stages:
            stage.criterion.to(device)
        self.laps: list[dict[str, float]] = []
        self.training = Training(
            model=self.model,
            stages=detector.stages,
            optimizer=self.optimizer,
            schedule=StepSchedule(LR, 1, (), 1.0, 0, 1.0, 1),
            device=device,
            precision=contestant.precision,
            micro_batch=contestant.micro_batch,
        )

    def __call__(self, batches: Iterator[Batch]) -> None:
        """See Step."""
        train(self.training, islice(batches, 1), [self._note])

    def _note(self, report: StepReport) -> None:
        self.laps.append(report.stopwatch.totals())


class TheirStep:
    """What torchvision's reference script does in a step; the laps "matching" and "loss" are one, of forward alone."""

    def __init__(self, contestant: Contestant, setup: Setup, device: torch.device) -> None:
        self.watch, self.device = Stopwatch(device), device
        self.model = _prepared(their_detector(setup, self.watch), contestant, device)
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = SGD(trained, lr=LR, momentum=0.9, weight_decay=1e-4)  # AP-loss, Sec. 4.1.1
        self.autocast_dtype = AUTOCAST[contestant.precision]
        self.laps: list[dict[str, float]] = []
        self.model.train()

    def __call__(self, batches: Iterator[Batch]) -> None:
        """See Step."""
        self.watch.start()
        batch = next(batches)
        self.watch.lap("data")
        self.optimizer.zero_grad(set_to_none=True)
        images = batch.images.to(self.device, non_blocking=True)
        targets = [
            {"boxes": target.boxes.to(self.device), "labels": target.labels.to(self.device)} for target in batch.targets
        ]
        dtype = self.autocast_dtype
        with nullcontext() if dtype is None else torch.autocast(self.device.type, dtype):
            losses = self.model(list(images / 255), targets)
            total = sum(losses.values())
        total.backward()
        self.optimizer.step()
        self.watch.lap("backward")
        self.laps.append(self.watch.totals())


def _prepared(model: nn.Module, contestant: Contestant, device: torch.device) -> nn.Module:
    layout = torch.channels_last if contestant.channels_last else torch.contiguous_format
    model.to(device, memory_format=layout)
    return compiled(model, device) if contestant.compiled else model
