"""A run in short: what it was and what it scored, as rows of text."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from rankdet.config import telling_settings
from rankdet.data.records import DetectionSet
from rankdet.evaluation.metrics import PLAIN

Row = tuple[str, str]
HEADLINES = ("AP", "AP50", "AP75")


def percent(value: float | None, digits: int = 1) -> str:
    """A fraction as a percentage without its sign; a dash where it is undefined."""
    return "-" if value is None or value != value else f"{100 * value:.{digits}f}"


def shown(name: str, value: float | None) -> str:
    """A metric as the page shows it: in percent, but for scores and correlations."""
    return f"{value:.3f}" if name in PLAIN and value is not None else percent(value)


def facts(cfg: DictConfig, record: Mapping[str, Any], split: DetectionSet) -> list[Row]:
    """Name and value of what tells this run from another, and of where its numbers come from."""
    settings = telling_settings(cfg)
    loss = ", ".join(f"{key} {value}" for key, value in settings["loss_settings"].items())
    box_loss = str(cfg.box_loss._target_).rpartition(".")[2] if cfg.box_loss else None
    detector = str(cfg.model._target_).rpartition(".")[2]
    height, width = cfg.data.image_size
    num_objects = sum(int((~(each.difficult | each.crowd)).sum()) for each in split.records)
    dirty = ", with uncommitted changes" if record["dirty"] else ""
    return [
        ("data", f"{cfg.data.name}, split {split.split}: {len(split.records):,} images, {num_objects:,} objects"),
        ("classes", f"{len(split.classes)}"),
        ("data hash", record["data_hash"]),
        ("protocol", f"{record['protocol_name']}, version {record['protocol_version']}"),
        ("detector", f"{detector}, {cfg.model.backbone.name}, trained at {height} x {width} (height x width)"),
        ("loss", f"{settings['loss']}" + (f" ({loss})" if loss else "")),
        ("box loss", f"{box_loss}, weight {settings['box_weight']}" if box_loss else "none"),
        ("training", f"{record['steps']:,} steps of {cfg.batch_size} images, learning rate {settings['lr']}"),
        ("seed", f"{cfg.seed}"),
        ("config hash", record["config_hash"]),
        ("commit", f"{record['commit']}{dirty}"),
        ("software", f"torch {record['torch']}"),
        ("hardware", f"{record['hardware']}; threads: {record['threads']}"),
        ("training time", f"{record['train_seconds']:,.0f} s"),
        ("date", record["date"]),
    ]


def overall_metrics(metrics: Mapping[str, float | None]) -> list[Row]:
    """Every metric of all classes together, in the order given."""
    return [(name, shown(name, value)) for name, value in metrics.items() if "/" not in name]


def class_metrics(metrics: Mapping[str, float | None], split: DetectionSet) -> tuple[list[str], list[list[str]]]:
    """(headers, rows): for each class its objects that count, then every metric `<metric>/<class>`; see shown."""
    names = list(dict.fromkeys(key.partition("/")[0] for key in metrics if "/" in key))
    names.sort(key=lambda name: HEADLINES.index(name) if name in HEADLINES else len(HEADLINES))
    rows = []
    for label, name in enumerate(split.classes):
        number = sum(int(((each.labels == label) & ~(each.difficult | each.crowd)).sum()) for each in split.records)
        rows.append([name, f"{number:,}", *(shown(key, metrics.get(f"{key}/{name}")) for key in names)])
    return ["class", "objects", *names], rows
