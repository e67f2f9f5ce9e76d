"""Parts of record.json, which is what is kept of a finished run."""

from typing import Any

from omegaconf import DictConfig

from rankdet.config import config_hash, run_directory


def identity_of_run(cfg: DictConfig, data_hash: str) -> dict[str, Any]:
    """Which run it is, and what it was tested on."""
    return {
        "run": str(run_directory(cfg).relative_to(cfg.runtime.runs)),
        "config_hash": config_hash(cfg),
        "data_name": cfg.data.name,
        "data_hash": data_hash,
        "protocol_name": cfg.protocol.name,
        "protocol_version": cfg.protocol.version,
        "seed": cfg.seed,
        "split": cfg.splits.test,
    }


def budget(
    cfg: DictConfig, steps: int, planned_steps: int, world_size: int, num_images: dict[str, int]
) -> dict[str, Any]:
    """What it was given to learn with. num_images: of the splits train and test."""
    return {
        "steps": steps,
        "planned_steps": planned_steps,
        "image_passes": steps * cfg.batch_size,
        "world_size": world_size,
        "threads": cfg.runtime.threads,
        "num_images": num_images,
    }
