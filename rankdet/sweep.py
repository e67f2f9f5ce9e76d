"""A finished run tested under several settings: which ones, and the network run once for all that share its input."""

import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from rankdet.assess import assess_by_rules
from rankdet.build import build_views, make
from rankdet.config import TEST_GROUPS, config_hash, load, merge_dotlist, one_line
from rankdet.data.records import DetectionSet
from rankdet.errors import UserError
from rankdet.evaluation.metrics import all_metrics
from rankdet.evaluation.postprocess import PostProcess
from rankdet.evaluation.results import headline
from rankdet.files import write_json
from rankdet.results.reading import read_json
from rankdet.results.retests import file_hash
from rankdet.trained import TrainedRun
from rankdet.training.distributed import World
from rankdet.training.provenance import provenance


@dataclass(frozen=True)
class Setting:
    """One row of a sweep: what is set in it, and the whole config that follows."""

    axes: dict[str, Any]  # swept key -> value
    cfg: DictConfig
    rule: PostProcess

    @property
    def network_input(self) -> str:
        """Rows with the same answer see the same images, and differ in nothing but the post-processing."""
        views = OmegaConf.to_container(self.cfg, resolve=True).get("test_input")
        return json.dumps([views or None, list(self.cfg.data.image_size)])

    def __str__(self) -> str:
        return " ".join(f"{key}={value}" for key, value in self.axes.items())


def axes_of(overrides: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """key=value settings as (swept keys -> their values, the others as they are).

    Sweeps are written as Hydra writes them: key=0.1,0.2 or key=range(0,1,0.25). UserError where none is swept, or a key
    that does not change how a finished run is tested.
    """
    axes: dict[str, list[str]] = {}
    fixed = []
    for item in overrides:
        key = item.partition("=")[0]
        if key.partition(".")[0] not in TEST_GROUPS:
            if not key.startswith(("data.", "runtime.")):
                raise UserError(f"sweep: {item}: a finished run is tested by {' and '.join(TEST_GROUPS)} settings only")
            fixed.append(item)
            continue
        try:
            parsed = OverridesParser.create().parse_override(item)
        except HydraException as error:
            raise UserError(f"sweep: {item}: {one_line(error)}") from error
        if parsed.is_sweep_override():
            axes[key] = list(dict.fromkeys(parsed.sweep_string_iterator()))
        else:
            fixed.append(item)
    if not axes:
        raise UserError(
            "sweep: give several values to a setting, e.g. evaluation.score_threshold=0.0,0.01,0.05 or "
            "test_input=short_500,short_600,short_800"
        )
    return axes, fixed


def settings_of(directory: Path, axes: dict[str, list[str]], fixed: list[str]) -> list[Setting]:
    """Every combination of the axes' values, the first axis slowest. UserError for the first that cannot be."""
    saved = load(directory / "config.yaml")
    rows = []
    for values in itertools.product(*axes.values()):
        chosen = dict(zip(axes, values, strict=True))
        cfg = merge_dotlist(saved, [*fixed, *(f"{key}={value}" for key, value in chosen.items())])
        build_views(cfg)
        rows.append(Setting({k: yaml.safe_load(v) for k, v in chosen.items()}, cfg, make(cfg.evaluation)))
    return rows


class Sweep:
    """The rows of a run on one split, each in a file named by its config, the annotations and the weights.

    A row whose file is there is not measured again: a sweep that was broken off goes on with what is missing, and one
    with more values measures only these. What is lost by breaking off is at most one pass over the images. The
    candidates of a pass are not kept: they would take gigabytes for a few thousand images, and choosing from them under
    each rule as they come costs little beside the network.
    """

    def __init__(self, trained: TrainedRun, split: DetectionSet, weights: Path, folder: Path, here: World) -> None:
        """weights: the run's file. folder: of the rows."""
        self.trained, self.split, self.folder, self.here = trained, split, folder, here
        self.weights = file_hash(weights)[:8]

    def path(self, setting: Setting) -> Path:
        """Where a row is recorded."""
        return self.folder / f"{config_hash(setting.cfg)}-{self.split.fingerprint()}-{self.weights}.json"

    def measure(self, settings: list[Setting], note: Callable[[str], None]) -> list[dict[str, Any]]:
        """The records of the rows in their order, on the first rank (elsewhere none); what is missing is measured.

        note is told of each measured row.
        """
        missing = {path: setting for setting in settings if not (path := self.path(setting)).is_file()}
        missing = self.here.broadcast(missing)
        ordered = sorted(missing.values(), key=lambda setting: setting.network_input)
        count = itertools.count(1)
        for _, group in itertools.groupby(ordered, lambda setting: setting.network_input):
            for setting, record in self._pass(list(group)):
                write_json(self.path(setting), record)
                shown = headline(record["metrics"]).items()
                scores = "  ".join(f"{key} {100 * value:.2f}" for key, value in shown)
                note(f"[{next(count)}/{len(missing)}] {setting}: {scores}")
        return [read_json(self.path(setting)) for setting in settings] if self.here.is_main else []

    def _pass(self, settings: list[Setting]) -> Iterator[tuple[Setting, dict[str, Any]]]:
        """One pass of the network, and on the first rank the record of each row that it serves."""
        start = time.monotonic()
        rules, cfg = [setting.rule for setting in settings], settings[0].cfg
        results = assess_by_rules(cfg, self.trained.detector, self.split, self.here, rules, progress=True)
        seconds = time.monotonic() - start
        if not self.here.is_main:
            return
        for setting, found in zip(settings, results, strict=True):
            plain = OmegaConf.to_container(setting.cfg, resolve=True)
            yield (
                setting,
                {
                    "config_hash": config_hash(setting.cfg),
                    "data_name": setting.cfg.data.name,
                    "split": self.split.split,
                    "data_hash": self.split.fingerprint(),
                    "weights_hash": self.weights,
                    "seed": setting.cfg.seed,
                    "evaluation": plain["evaluation"],
                    "test_input": plain.get("test_input") or {},
                    "image_size": plain["data"]["image_size"],
                    "num_images": len(self.split.records),
                    "world_size": self.here.size,
                    "threads": setting.cfg.runtime.threads,
                    "pass_seconds": round(seconds, 3),
                    "pass_rows": len(settings),
                    **provenance(self.here.device),
                    "metrics": all_metrics(self.split, found),
                },
            )
