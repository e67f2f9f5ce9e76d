"""What a training will take, from its config alone: steps, images, and GPU hours where the benchmark has been run."""

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from rankdet.build import open_source
from rankdet.config import compose
from rankdet.data.shapes import ShapesSource
from rankdet.errors import UserError
from rankdet.results.reading import read_json, read_yaml
from rankdet.results.runs import Run, config_of
from rankdet.training.schedule import Schedule

SIZES = Path("experiments") / "images.yaml"
PARTS = ["model", "augment", "sampler", "rpn", "candidates"]
BENCHMARKS = ("runs/benchmark*/benchmark.json", "experiments/benchmark*/benchmark.json")


class Step(NamedTuple):
    """What a training step's time depends on. parts: PARTS of the config as JSON, without where weights come from."""

    parts: str
    loss: str
    num_classes: int | None
    height: int
    width: int
    precision: str
    channels_last: bool
    compiled: bool
    micro_batch: int


@dataclass(frozen=True)
class Work:
    """A training's length. None where it is counted in epochs and nobody knows how many images one has."""

    steps: int | None
    image_passes: int | None
    batch_size: int
    step: Step

    def gpu_hours(self, speeds: "Speeds", gpus: int = 1) -> float | None:
        """Of training steps alone, on such a GPU, the batch shared by `gpus` of them; None where not measured."""
        rate = speeds.images_per_second.get((self.step, math.ceil(self.batch_size / max(gpus, 1))))
        return None if rate is None or self.image_passes is None else self.image_passes / rate / 3600


@dataclass(frozen=True)
class Speeds:
    """What make benchmark measured on one kind of GPU: (step, images on the GPU at a time) -> images a second."""

    hardware: str
    images_per_second: dict[tuple[Step, int], float]


def work(run: Run, root: Path) -> Work:
    """Reads the config, and of the data at most how many images there are."""
    return _work(run.overrides, root)


@lru_cache(maxsize=1024)
def _work(overrides: tuple[str, ...], root: Path) -> Work:
    cfg = config_of(overrides)
    plain = OmegaConf.to_container(cfg.schedule, resolve=True)
    assert isinstance(plain, dict)
    schedule = Schedule(**{str(key): value for key, value in plain.items() if key != "_target_"})
    num_images = 1 if schedule.unit == "images" else count_images(cfg, root)
    if num_images is None:
        return Work(None, None, cfg.batch_size, _step(cfg))
    steps = schedule.for_run(num_images, cfg.batch_size).total_steps
    return Work(steps, steps * cfg.batch_size, cfg.batch_size, _step(cfg))


def count_images(cfg: DictConfig, root: Path) -> int | None:
    """Of the split that cfg trains on: as experiments/images.yaml or a drawn set's settings say, else by reading a
    folder that is there."""
    known = _sizes(root / SIZES).get(cfg.data.name, {}).get(cfg.splits.train)
    if known is not None:
        return known
    try:
        source = open_source(cfg)
        if isinstance(source, ShapesSource):
            return source.num_images(cfg.splits.train)
        return len(source.read(cfg.splits.train).records) if Path(cfg.data.root).is_dir() else None
    except UserError:
        return None


@lru_cache(maxsize=4)
def _sizes(path: Path) -> dict[str, dict[str, int]]:
    return read_yaml(path) if path.is_file() else {}


def read_speeds(root: Path) -> list[Speeds]:
    """What was measured on GPUs, one entry for each kind; of two measurements of the same the later file's holds."""
    found: dict[str, dict[tuple[Step, int], float]] = {}
    for path in sorted(path for pattern in reversed(BENCHMARKS) for path in root.glob(pattern)):
        content = read_json(path)
        if content["about"]["device"] != "cuda":
            continue
        rates = found.setdefault(content["about"]["hardware"], {})
        for row in content["measurements"]:
            if row["side"] == "rankdet" and row["loss"] != "none":
                rates[_measured(content, row), row["images"]] = row["images_per_second"]
    return [Speeds(hardware, rates) for hardware, rates in found.items()]


def _measured(content: dict[str, Any], row: dict[str, Any]) -> Step:
    options = [f"model.backbone.checkpoint={str(row['checkpoint']).lower()}", f"precision={row['precision']}"]
    step = _benchmarked((f"model.backbone.name={content['backbone']}", f"loss={row['loss']}", *options))
    return step._replace(
        num_classes=content["num_classes"],
        height=row["size"],
        width=row["size"],
        channels_last=row["channels_last"],
        compiled=row["compiled"],
        micro_batch=row["micro_batch"],
    )


@lru_cache(maxsize=256)
def _benchmarked(options: tuple[str, ...]) -> Step:
    return _step(compose(["protocol=paper", *options]))


def _step(cfg: DictConfig) -> Step:
    parts: dict[str, Any] = {key: OmegaConf.to_container(cfg[key], resolve=True) for key in PARTS}
    parts["model"].get("backbone", {}).pop("weights", None)
    classes = cfg.data.source.get("classes")
    return Step(
        json.dumps(parts, sort_keys=True),
        str(cfg.loss._target_).split(".")[-2],
        None if classes is None else len(classes),
        *cfg.data.image_size,
        cfg.precision,
        cfg.runtime.channels_last,
        cfg.runtime.compile,
        cfg.micro_batch,
    )
