"""A finished run as a detector again."""

from dataclasses import dataclass
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import nn

from rankdet.build import Detector, build_detector
from rankdet.config import load, merge_dotlist
from rankdet.errors import UserError


@dataclass
class TrainedRun:
    """A run's config and its detector with the final weights."""

    cfg: DictConfig
    detector: Detector
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]

    def require_classes(self, classes: tuple[str, ...], where: str) -> None:
        """UserError if data have other classes than those that the detector knows."""
        if tuple(classes) != self.classes:
            raise UserError(
                f"{where}: has the classes {', '.join(classes)}, but the run knows {', '.join(self.classes)}"
            )


def load_trained(directory: Path, device: torch.device, overrides: list[str]) -> TrainedRun:
    """The run in `directory`, with key=value overrides of its config (data.root, evaluation.*, runtime.*)."""
    cfg = merge_dotlist(load(directory / "config.yaml"), overrides)
    path = directory / "weights.pt"
    if not path.is_file():
        raise UserError(f"{path}: not there, so the run is not finished; start its training again to continue it")
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes torch.load raise nearly anything
        raise UserError(
            f"{path}: cannot be read ({type(error).__name__}); remove the run and train it again"
        ) from error
    cfg.model.backbone.weights = None  # the file holds them all
    detector = build_detector(cfg, len(weights["classes"]))
    try:
        detector.model.load_state_dict(weights["model"])
    except RuntimeError as error:
        raise UserError(f"{path}: does not fit the model of {', '.join(overrides) or 'config.yaml'}") from error
    detector.model.to(device, memory_format=torch.channels_last).eval()
    return TrainedRun(cfg, detector, tuple(weights["classes"]), tuple(weights["category_ids"]))


def load_ranker(weights: Path, device: torch.device) -> nn.Module:
    """The network of a finished run that tells objects from background, for candidates.rpn=.../weights.pt."""
    if weights.name != "weights.pt":
        raise UserError(f"candidates.rpn={weights}: give the weights.pt of a finished run with one_class=true")
    trained = load_trained(weights.parent, device, [])
    if len(trained.classes) > 1:
        raise UserError(
            f"candidates.rpn={weights}: knows the classes {', '.join(trained.classes)}; train it with one_class=true"
        )
    return trained.detector.model
