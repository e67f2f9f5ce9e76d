"""What a training step of a finished run costs: its own network, loss and batches, from its final weights."""

import gc
import math
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import cycle, islice
from pathlib import Path
from statistics import median

import torch

from rankdet.benchmark.memory import resident
from rankdet.benchmark.steps import LR
from rankdet.build import build_dataset, build_optimizer, open_source
from rankdet.data.loader import train_loader
from rankdet.data.records import Batch
from rankdet.profiling.memory import gauge_process, peak_bytes
from rankdet.profiling.report import MIB
from rankdet.trained import load_trained
from rankdet.training.loop import Training, train
from rankdet.training.schedule import StepSchedule

BATCHES = 4  # the first of the training, in turns
WARM_UP, REPEATS = 4, 12


def step_cost(directory: Path, overrides: Sequence[str], device: torch.device) -> dict[str, float | None]:
    """ms and loss_ms: of a step of the run in `directory` and of its loss alone, medians over REPEATS steps without the
    reading of images; mib: weights, gradients, the optimiser's state, and what a step adds at its worst, None where the
    machine does not tell. overrides: key=value, of the run's config. No weight moves, so that every repeat has the same
    scores. UserError for a run that is not finished."""
    training, batches = prepared(directory, overrides, device)
    laps: list[dict[str, float]] = []
    train(training, islice(cycle(batches), WARM_UP + REPEATS), [lambda step: laps.append(step.stopwatch.totals())])
    kept = laps[WARM_UP:]
    seconds = median(sum(time for lap, time in each.items() if lap != "data") for each in kept)
    loss_seconds = median(each["loss"] for each in kept)
    del training
    with gauge_process() if device.type == "cpu" else nullcontext() as process:
        arguments = (directory, overrides, device)
        peak = step_peak(*arguments) if process is None else process.submit(step_peak, *arguments).result()
    return {"ms": 1000 * seconds, "loss_ms": 1000 * loss_seconds, "mib": None if peak is None else peak / MIB}


def step_peak(directory: Path, overrides: Sequence[str], device: torch.device) -> int | None:
    """Bytes; on the CPU only in a gauge_process()."""
    training, batches = prepared(directory, overrides, device)
    train(training, batches[:1], [])
    gc.collect()
    added = peak_bytes(lambda: train(training, batches[-1:], []), device)
    return None if added is None else resident(training.model, training.optimizer) + added


def prepared(directory: Path, overrides: Sequence[str], device: torch.device) -> tuple[Training, list[Batch]]:
    """The run's training with its final weights, and its first batches."""
    trained = load_trained(directory, device, list(overrides))
    cfg, detector = trained.cfg, trained.detector
    dataset = build_dataset(cfg, open_source(cfg).read(cfg.splits.train), training=True)
    for stage in detector.stages:
        stage.criterion.to(device)
        stage.criterion.set_epoch_length(math.ceil(len(dataset) / cfg.batch_size))
    training = Training(
        model=detector.model,
        stages=detector.stages,
        optimizer=build_optimizer(cfg, detector.model, LR),
        schedule=StepSchedule(LR, 1, (), 1.0, 0, 1.0, 1),
        device=device,
        precision=cfg.precision,
        clip_grad_norm=cfg.clip_grad_norm,
        micro_batch=cfg.get("micro_batch", 0),  # older runs lack the key
    )
    return training, list(islice(train_loader(dataset, cfg.batch_size), BATCHES))
