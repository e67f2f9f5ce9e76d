"""Configs: composed by Hydra, checked for unknown keys, hashed into the directory of their run."""

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from rankdet.errors import UserError
from rankdet.option_files import opened

CONFIG_DIR = Path(__file__).resolve().parents[1] / "configs"

# Where a run happens, how its data are reached and which of its siblings it is do not change what it computes.
NOT_IDENTITY = (
    "runtime",
    "seed",
    "data.root",
    "data.source.root",
    "data.cache",
    "model.backbone.checkpoint",
    "schedule.monitor_every",
    "splits.monitor",
)
# Keys younger than published records, each at the value that computes what was computed before there was the key.
NEUTRAL = {
    "loss.ranking_scope": "gpu",
    "sampler": {},
    "measure": {},
    "test_input": {},
    "rpn": {},
    "candidates": {},
    "hold_out": {},
    "one_class": False,
    "fresh_class_head": False,
    "micro_batch": 0,
    "lr_factors": [],
    "matching.claim_best": True,
    "model.backbone.outputs": ["c3", "c4", "c5"],
    "model.backbone.deformable": [],
}
# Groups that say how a run is tested: of a finished one another file of theirs may be chosen.
TEST_GROUPS = ("test_input", "evaluation")
# Settings counted in whole numbers, and the least that makes sense.
COUNTS = {
    "seed": 0,
    "batch_size": 1,
    "micro_batch": 0,
    "gpus": 0,
    "runtime.split": 1,
    "runtime.threads": 1,
    "runtime.num_workers": 0,
    "runtime.log_every": 1,
    "runtime.checkpoint_every": 1,
    "runtime.dead_after": 0,
    "runtime.monitor_images": 1,
}
SWITCHES = ("runtime.compile", "runtime.channels_last")  # true or false


def compose(overrides: list[str]) -> DictConfig:
    """configs/train.yaml with overrides, checked. UserError for a key or value that is not there.

    loss=PATH.yaml and rpn=PATH.yaml take a file of one's own: see option_files.opened."""
    try:
        with config_loader():
            full = hydra_compose("train", overrides=opened(overrides), return_hydra_config=True)
        return checked(OmegaConf.masked_copy(full, [key for key in full if key != "hydra"]), full.hydra.runtime.choices)
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # the last for a group set to no file's name
        raise UserError(f"config: {one_line(error)}") from error


@contextmanager
def config_loader() -> Iterator[None]:
    """Lets hydra.compose() read configs/, also within a run that Hydra's own command line started."""
    hydra = GlobalHydra.instance()
    outer = hydra.hydra
    hydra.clear()
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(CONFIG_DIR)):
            yield
    finally:
        hydra.hydra = outer


def checked(cfg: DictConfig, choices: Mapping[str, str | None]) -> DictConfig:
    """cfg with nothing missing and no key that the chosen groups lack; data without a name get their folder's."""
    OmegaConf.set_struct(cfg, False)
    if OmegaConf.is_missing(cfg.data, "root"):
        raise UserError("config: data.root is not set: give the data set's folder, e.g. data.root=path/to/VOC2007")
    if cfg.data.name is None:
        cfg.data.name = Path(cfg.data.root).resolve().name
    missing = OmegaConf.missing_keys(cfg)
    if missing:
        raise UserError(f"config: no value for {', '.join(sorted(missing))}: set it on the command line")
    groups = frozenset((k, v) for k, v in choices.items() if "/" not in k and k not in ("protocol", "experiment"))
    require_known_keys(cfg, known_keys(groups))
    for key, least in COUNTS.items():
        value = OmegaConf.select(cfg, key)
        if type(value) is not int or value < least:
            raise UserError(f"config: {key}={value}: must be a whole number from {least} on")
    for key in SWITCHES:
        value = OmegaConf.select(cfg, key)
        if type(value) is not bool:
            raise UserError(f"config: {key}={value}: must be true or false")
    OmegaConf.set_struct(cfg, True)
    return cfg


@lru_cache(maxsize=64)
def known_keys(groups: frozenset[tuple[str, str | None]]) -> dict[str, Any]:
    """What train.yaml and the chosen group files define, without protocol and experiment: the only keys there are."""
    overrides = ["~protocol", "~experiment"]
    overrides += [f"{group}={'null' if choice is None else choice}" for group, choice in sorted(groups)]
    with config_loader():
        base = OmegaConf.to_container(hydra_compose("train", overrides=overrides), resolve=False)
    return base | {"protocol": {"name": None, "version": None}}


def require_known_keys(cfg: DictConfig, known: dict[str, Any], prefix: str = "") -> None:
    """UserError for the first key of cfg that known lacks, or the reverse.

    Hydra merges a mistyped key of a file without a word, and ~key would leave a default of the code's to decide.
    """
    for key in known:
        if key not in cfg:
            raise UserError(f"config: {prefix}{key} was removed; give it a value instead")
    for key in cfg:
        name = f"{prefix}{key}"
        if key not in known:
            raise UserError(f"config: there is no key {name!r}; the keys beside it are: {', '.join(sorted(known))}")
        node = cfg._get_node(key)
        if isinstance(node, DictConfig) and not node._is_none() and isinstance(known[key], dict):
            require_known_keys(node, known[key], f"{name}.")


def identity(cfg: DictConfig) -> dict[str, Any]:
    """The resolved part of cfg that decides what a run computes, seed aside."""
    plain = OmegaConf.to_container(cfg, resolve=True)
    neutral = [key for key, value in NEUTRAL.items() if OmegaConf.select(cfg, key) == value]
    for dotted in (*NOT_IDENTITY, *neutral):
        *path, last = dotted.split(".")
        node = plain
        for key in path:
            node = node.get(key) or {}
        node.pop(last, None)
    plain["gpus"] = 0 if plain["gpus"] == 1 else plain["gpus"]  # one process either way
    return plain


def config_hash(cfg: DictConfig) -> str:
    """8 hex digits of the identity."""
    canonical = json.dumps(identity(cfg), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


def run_directory(cfg: DictConfig) -> Path:
    """runs/<data>/<protocol>/<detector>_<backbone>-<loss>-<hash>/seed<k>: a function of the config alone."""
    loss = str(cfg.loss._target_).split(".")[-2]
    run = f"{detector_name(cfg)}_{cfg.model.backbone.name}-{loss}-{config_hash(cfg)}"
    return Path(cfg.runtime.runs) / cfg.data.name / cfg.protocol.name / run / f"seed{cfg.seed}"


def detector_name(cfg: DictConfig) -> str:
    """retinanet, ssd, ...: the module that defines cfg's detector."""
    return str(cfg.model._target_).split(".")[-2]


def telling_settings(cfg: DictConfig) -> dict[str, Any]:
    """What tells one run from another in a list: few settings, the loss and the box weight by short names."""
    loss = OmegaConf.to_container(cfg.loss, resolve=True)
    return {
        "batch_size": cfg.batch_size,
        "box_weight": cfg.box_loss.weight if cfg.box_loss else 0.0,
        "data": cfg.data.name,
        "loss": str(loss.pop("_target_")).split(".")[-2],
        "loss_settings": loss,
        "lr": cfg.schedule.lr,
        "protocol": cfg.protocol.name,
        "seed": cfg.seed,
    }


def load(path: Path) -> DictConfig:
    """The config that a run saved beside its results."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; run= takes the directory of a run, e.g. runs/shapes/mini/.../seed0")
    try:
        cfg = OmegaConf.load(path)
    except (YAMLError, UnicodeDecodeError, OmegaConfBaseException) as error:
        raise UserError(f"{path}: cannot be read ({one_line(error)}); train the run again") from error
    if not isinstance(cfg, DictConfig):
        raise UserError(f"{path}: is not a config; train the run again")
    OmegaConf.set_struct(cfg, True)
    return cfg


def merge_dotlist(cfg: DictConfig, overrides: list[str]) -> DictConfig:
    """cfg with key=value settings on top; test_input=NAME and evaluation=NAME take that file of configs/ instead.

    UserError for a key that cfg lacks or a file that is not there.
    """
    settings = [item.partition("=") for item in overrides]
    chosen = {key: value for key, _, value in settings if key in TEST_GROUPS}
    others = [item for item in overrides if item.partition("=")[0] not in TEST_GROUPS]
    cfg = copy.deepcopy(cfg)
    with open_dict(cfg):
        for group, option in chosen.items():
            cfg[group] = option_of(group, option)
    idle = [item for item in others if item.startswith("test_input.") and not cfg.get("test_input")]
    if idle:
        raise UserError(f"config: {idle[0]}: the run's test stretches its images; give test_input=keep_aspect, too")
    try:
        merged = OmegaConf.merge(cfg, OmegaConf.from_dotlist(others))
    except (OmegaConfBaseException, YAMLError) as error:
        raise UserError(f"config: {one_line(error)}") from error
    assert not isinstance(merged, ListConfig)
    return merged


@lru_cache(maxsize=64)
def option_of(group: str, option: str) -> dict[str, Any]:
    """configs/<group>/<option>.yaml with what it builds on, unresolved; do not write into it. UserError for no such."""
    try:
        with config_loader():
            composed = hydra_compose("train", overrides=["~protocol", "~experiment", *opened([f"{group}={option}"])])
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # the last for no file's name
        raise UserError(f"config: {one_line(error)}") from error
    return OmegaConf.to_container(composed[group], resolve=False)


def one_line(error: BaseException) -> str:
    """An exception's message without Hydra's line breaks and padding."""
    return " ".join(str(error).split())
