"""python -m rankdet.train [key=value ...]: one training, from its config to its record. Also under torchrun.

The run's directory is a function of the config. The same command again continues a run that was broken off, and leaves
alone one that is finished (its record.json is there).
"""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch.nn.parallel import DistributedDataParallel

from rankdet.assess import assess
from rankdet.build import Detector, build_dataset, build_detector, build_optimizer, make, open_source
from rankdet.cli import command, hydra_command
from rankdet.config import run_directory, telling_settings
from rankdet.data.cleaning import describe_dirt
from rankdet.data.loader import train_loader
from rankdet.data.records import DetectionSet, data_hash
from rankdet.errors import UserError
from rankdet.evaluation.results import Result, headline, save_results
from rankdet.files import sweep, write_json, write_text
from rankdet.models.top_ranked import TopRanked
from rankdet.record import budget, identity_of_run
from rankdet.trained import load_ranker
from rankdet.training.checkpoint import (
    load_newest,
    random_state,
    restore_optimizer,
    restore_random_state,
    save_atomically,
    save_checkpoint,
)
from rankdet.training.compiled import compiled
from rankdet.training.dead import DeathWatch
from rankdet.training.distributed import World, world
from rankdet.training.init import initialise_from
from rankdet.training.lock import run_lock
from rankdet.training.log import RunLog
from rankdet.training.loop import StepReport, Training, train
from rankdet.training.monitor import Monitor, first_images
from rankdet.training.provenance import provenance
from rankdet.training.split import padded_alike, require_one_way_to_share, require_separate_images
from rankdet.training.stop import Stop

OTHER_BITS = ("threads", "compile", "channels_last", "split")  # of runtime: what rounding depends on


def run(cfg: DictConfig) -> None:
    """Trains, evaluates and records the run of cfg, or what is missing of it."""
    directory = run_directory(cfg)
    torch.set_num_threads(cfg.runtime.threads)
    scopes = {stage.loss.get("ranking_scope") for stage in (cfg, cfg.get("rpn")) if stage}
    require_one_way_to_share(cfg.gpus, cfg.runtime.split, scopes)
    with (
        world(cfg.runtime.device, max(cfg.gpus, cfg.runtime.split)) as here,
        run_lock(directory) if here.is_main else nullcontext(),
    ):
        here.barrier()
        if here.broadcast((directory / "record.json").is_file()):
            if here.is_main:
                print(f"{directory}: finished already")
            return
        if here.is_main:
            sweep(directory)
        stop = Stop(here)
        with stop.obeyed():
            Run(cfg, directory, here).to_the_end(stop)


class Run:
    """One run on one process: its data, its detector, and how far it has come."""

    def __init__(self, cfg: DictConfig, directory: Path, here: World) -> None:
        self.cfg, self.directory, self.here = cfg, directory, here
        source = open_source(cfg)
        self.train_set, self.test_set = source.read(cfg.splits.train), source.read(cfg.splits.test)
        self.monitor_set = None
        if cfg.splits.monitor is not None:
            self.monitor_set = first_images(source.read(cfg.splits.monitor), cfg.runtime.monitor_images)
        for split in filter(None, (self.test_set, self.monitor_set)):
            if not split.records:
                raise UserError(f"{split.name}: the split {split.split} has no image to evaluate on")
            if split.classes != self.train_set.classes:
                names = f"{cfg.splits.train} and {split.split}"
                raise UserError(f"{split.name}: the splits {names} have different classes; list the same in both")
        self.data_hash = data_hash(self.train_set, self.test_set)
        torch.manual_seed(cfg.seed)
        self.detector: Detector = build_detector(cfg, len(self.train_set.classes))
        layout = torch.channels_last if cfg.runtime.channels_last else torch.contiguous_format
        self.detector.model.to(here.device, memory_format=layout)
        if cfg.candidates:
            if len(self.detector.stages) > 1:
                raise UserError("candidates: a choice for detectors of one output; set candidates=all")
            ranker = load_ranker(Path(cfg.candidates.rpn), here.device)
            self.detector.model.register_forward_hook(TopRanked(ranker, cfg.candidates.num))
        for stage in self.detector.stages:
            stage.criterion.to(here.device)
        self.seconds = {"train_seconds": 0.0, "cpu_seconds": 0.0}
        self.log_state: dict[str, Any] | None = None  # of a checkpoint between two entries
        self.death_watch = DeathWatch(cfg.runtime.dead_after) if cfg.runtime.dead_after else None
        self.training = self.new_training()
        if here.rank:
            torch.manual_seed(cfg.seed + here.rank)  # else drop-out would spare the same in each process's images

    def new_training(self) -> Training:
        """The training at step 0."""
        cfg, model = self.cfg, self.detector.model
        if cfg.runtime.split > 1:
            require_separate_images(model)
        if cfg.runtime.compile:  # evaluation goes through the detector's own
            model = compiled(model, self.here.device)
        if self.here.size > 1:
            device_ids = [self.here.device] if self.here.device.type == "cuda" else None
            model = DistributedDataParallel(model, device_ids=device_ids)
        schedule = make(cfg.schedule).for_run(len(self.train_set.records), cfg.batch_size)
        for stage in self.detector.stages:
            stage.criterion.set_epoch_length(math.ceil(len(self.train_set.records) / cfg.batch_size))
        return Training(
            model,
            self.detector.stages,
            build_optimizer(cfg, self.detector.model, schedule.lr),
            schedule,
            self.here.device,
            cfg.precision,
            cfg.clip_grad_norm,
            self.here.size,
            cfg.micro_batch,
            self.here if cfg.runtime.split > 1 else None,
        )

    def to_the_end(self, stop: Stop) -> None:
        """Trains from where the run stands to its last step, then evaluates and records it; less if told to stop."""
        cfg, here, training = self.cfg, self.here, self.training
        total = training.schedule.total_steps
        notes = self.resume()
        steps = set(here.gather(training.step))
        if len(steps) > 1:
            raise UserError(
                f"{self.directory}: the processes found checkpoints of steps {steps}; they need one shared disk"
            )
        dataset = build_dataset(cfg, self.train_set, training=True)
        workers = cfg.runtime.num_workers
        batches = train_loader(dataset, cfg.batch_size, total, training.step, here.rank, here.size, workers)
        if training.split and dataset.augment.padding:
            batches = padded_alike(batches, dataset.augment.padding.fill, here)
        if here.is_main:
            text = OmegaConf.to_yaml(cfg)
            write_text(self.directory / "config.yaml", text)
            log = RunLog(self.directory, training.step, total, cfg.runtime.log_every, cfg.runtime.progress)
        with log if here.is_main else nullcontext() as log:
            hooks = [] if log is None else [log]
            if log:
                log.config(text)
                log.settings(telling_settings(cfg))
                if self.log_state is not None:
                    log.restore(self.log_state)
            read = filter(None, (self.train_set, self.monitor_set, self.test_set))
            for note in [f"run {self.directory}", *dict.fromkeys(map(describe_dirt, read)), *notes]:
                if log and note:
                    log.note(note)
            if self.monitor_set is not None:
                hooks.append(Monitor(self.monitor_set, self.evaluate, training.schedule.monitor_steps, total, log))
            if self.death_watch:
                hooks.append(self.death_watch)
            with stop.noted():
                train(training, batches, [*hooks, self.checkpoint_hook(stop, log)])
            results, metrics = self.evaluate(self.test_set)
            if log:
                self.record(results, metrics, log)
        here.barrier()

    def resume(self) -> list[str]:
        """Puts the run where its newest readable checkpoint left it; returns notes for the log."""
        checkpoint, notes = load_newest(self.directory / "checkpoints")
        if checkpoint is None:
            if self.cfg.init_from:
                start = Path(self.cfg.init_from)
                return notes + initialise_from(self.detector.model, start, self.cfg.fresh_class_head)
            backbone = self.cfg.model.backbone
            frozen = backbone.get("frozen_stages") or backbone.get("norm") == "frozen_bn"
            if backbone.weights is None and frozen:
                raise UserError(
                    "model.backbone.weights=null would freeze random layers: also set model.backbone.frozen_stages=0 "
                    "and model.backbone.norm=bn or gn, or give weights"
                )
            return notes
        if checkpoint["data_hash"] != self.data_hash:
            raise UserError(f"{self.directory}: was begun on other data; remove it, or give the data another data.name")
        for key in OTHER_BITS:
            now = self.cfg.runtime[key]
            before = checkpoint.get(key, now)
            if before != now:
                notes.append(f"begun with runtime.{key}={before}, continued with {now}: other bits")
        training = self.training
        self.detector.model.load_state_dict(checkpoint["model"])
        restore_optimizer(training.optimizer, checkpoint["optimizer"])
        training.scaler.load_state_dict(checkpoint["scaler"])
        training.step, self.seconds = checkpoint["step"], checkpoint["seconds"]
        self.log_state = checkpoint.get("log")
        states = checkpoint["processes"]
        own = states[self.here.rank % len(states)]  # of as many processes, or runtime.split changed
        for stage, state in zip(training.stages, own["criteria"], strict=True):
            stage.criterion.load_state_dict(state)
        if self.death_watch:
            self.death_watch.steps = dict(own["dead"])
        if self.here.rank < len(states):  # a further process draws for itself, not what another one does
            restore_random_state(own["random"])
        return [*notes, f"continuing at step {training.step}"]

    def checkpoint_hook(self, stop: Stop, log: RunLog | None) -> Callable[[StepReport], None]:
        """A hook that saves the run every runtime.checkpoint_every steps, at the last one, and when it is to stop."""
        before = dict(self.seconds)
        wall, cpu = time.monotonic(), time.process_time()

        def hook(report: StepReport) -> None:
            last = report.step == self.training.schedule.total_steps
            stopping = stop.after(report.step) and not last
            if report.step % self.cfg.runtime.checkpoint_every and not last and not stopping:
                return
            self.seconds = {
                "train_seconds": before["train_seconds"] + time.monotonic() - wall,
                "cpu_seconds": before["cpu_seconds"] + time.process_time() - cpu,
            }
            states = self.here.gather(self.own_state())
            if log:
                content = self.state() | {"processes": states, "log": log.state()}
                save_checkpoint(self.directory / "checkpoints", report.step, content)
            if stopping:
                self.here.barrier()  # the end of one process is that of all: not before the checkpoint is there
                stop.leave()

        return hook

    def own_state(self) -> dict[str, Any]:
        """What the remaining steps depend on and each process has for itself, on the CPU."""
        states = [stage.criterion.state_dict() for stage in self.training.stages]
        criteria = [{key: value.cpu() for key, value in state.items()} for state in states]
        dead = self.death_watch.steps if self.death_watch else {}
        return {"criteria": criteria, "random": random_state(), "dead": dead}

    def state(self) -> dict[str, Any]:
        """All that the remaining steps depend on and the processes have in common."""
        return {
            "model": self.detector.model.state_dict(),
            "optimizer": self.training.optimizer.state_dict(),
            "scaler": self.training.scaler.state_dict(),
            "data_hash": self.data_hash,
            **{key: self.cfg.runtime[key] for key in OTHER_BITS},
            "seconds": self.seconds,
        }

    def evaluate(self, split: DetectionSet) -> tuple[list[Result], dict[str, float | None]]:
        """COCO results and metrics of a split."""
        return assess(self.cfg, self.detector, split, self.here)

    def record(self, results: list[Result], metrics: dict[str, float | None], log: RunLog) -> None:
        """Writes weights, detections and, last, record.json, which makes the run a finished one."""
        cfg, training = self.cfg, self.training
        weights = {
            "model": self.detector.model.state_dict(),
            "classes": self.train_set.classes,
            "category_ids": self.train_set.category_ids,
        }
        save_atomically(weights, self.directory / "weights.pt")
        save_results(results, self.directory / "evaluation" / cfg.splits.test / "detections.json")
        write_json(self.directory / "evaluation" / cfg.splits.test / "metrics.json", metrics)
        shown = headline(metrics)
        results_shown = {f"{cfg.splits.test}/{k}": v for k, v in shown.items()}
        log.results(results_shown, training.step)
        log.note(f"{cfg.splits.test}: " + "  ".join(f"{k} {100 * v:.2f}" for k, v in shown.items()))
        counts = {"train": len(self.train_set.records), "test": len(self.test_set.records)}
        record = {
            **identity_of_run(cfg, self.data_hash),
            **budget(cfg, training.step, training.schedule.total_steps, self.here.size, counts),
            **{name: round(value, 1) for name, value in self.seconds.items()},
            **provenance(self.here.device),
            "metrics": metrics,
        }
        write_json(self.directory / "record.json", record)


@command
def main() -> None:
    """The command."""
    hydra_command(run)


if __name__ == "__main__":
    main()
