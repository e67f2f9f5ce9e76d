"""Objects from configs: the one place that instantiates."""

from dataclasses import dataclass
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn import Parameter
from torch.optim import Optimizer

from rankdet.config import one_line
from rankdet.data.dataset import DetectionDataset
from rankdet.data.records import DetectionSet, Source, Target
from rankdet.data.view_dataset import ViewDataset
from rankdet.data.views import Stretch, Views
from rankdet.errors import UserError
from rankdet.evaluation.postprocess import PostProcess
from rankdet.losses.criterion import Criterion
from rankdet.losses.inputs import LossInputs
from rankdet.losses.sampling import Sampler
from rankdet.matching.assign import build_loss_inputs
from rankdet.matching.max_iou import MaxIoUMatcher
from rankdet.models.output import DetectorOutput


@dataclass
class Detector:
    """A network with what its outputs mean."""

    model: nn.Module
    criterion: Criterion
    matcher: MaxIoUMatcher
    postprocess: PostProcess
    num_classes: int
    sampler: Sampler | None = None

    def assign(self, output: DetectorOutput, targets: list[Target]) -> LossInputs:
        """Matches anchors with objects, and leaves out the negatives that the sampler does not keep."""
        inputs = build_loss_inputs(output, targets, self.matcher, self.model.coder, self.num_classes)
        return self.sampler(inputs) if self.sampler else inputs

    def probabilities(self, logits: Tensor) -> Tensor:
        """float [..., C] -> float [..., K] scores in [0, 1], as the loss means its logits."""
        return self.criterion.classification.probabilities(logits)


def make(node: DictConfig, **arguments: Any) -> Any:  # noqa: ANN401
    """instantiate() whose errors keep our own messages."""
    try:
        return instantiate(node, _convert_="all", **arguments)
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise UserError(f"config: {one_line(error)}") from error


def build_detector(cfg: DictConfig, num_classes: int) -> Detector:
    """The network of cfg.model for the scores that cfg.loss asks for, and the criterion of its loss terms."""
    if not (isinstance(cfg.prior, float) and 0 < cfg.prior < 1):
        raise UserError(f"prior={cfg.prior}: must be a number between 0 and 1")
    loss = make(cfg.loss)
    if cfg.box_loss and getattr(loss, "has_box_loss", False):
        name = str(cfg.loss._target_).split(".")[-2]
        raise UserError(f"config: loss={name} trains the boxes too: set box_loss=none")
    terms = [loss] + ([make(cfg.box_loss)] if cfg.box_loss else [])
    try:
        bias = loss.prior_bias(num_classes, cfg.prior)
    except ValueError as error:  # a softmax over many classes cannot start each of them at any prior
        raise UserError(f"config: {error}; lower prior") from error
    model = make(cfg.model, num_channels=loss.num_channels(num_classes), prior_bias=bias)
    sampler = make(cfg.sampler) if cfg.get("sampler") else None  # runs older than the key have none
    return Detector(model, Criterion(terms), make(cfg.matching), make(cfg.evaluation), num_classes, sampler)


def open_source(cfg: DictConfig) -> Source:
    """Where the splits (train, val, trainval, test) of cfg.data are read from."""
    return make(cfg.data.source)


def build_optimizer(cfg: DictConfig, parameters: list[Parameter], lr: float) -> Optimizer:
    """cfg.optimizer over the parameters. UserError for a value that it refuses."""
    try:
        return make(cfg.optimizer)(parameters, lr=lr)
    except (TypeError, ValueError) as error:
        raise UserError(f"config: optimizer: {one_line(error)}") from error


def build_views(cfg: DictConfig) -> Views:
    """How test images are shown to the network: as cfg.test_input says, which where empty or missing is a stretch."""
    return make(cfg.test_input) if cfg.get("test_input") else Stretch(list(cfg.data.image_size))


def build_dataset(cfg: DictConfig, detection_set: DetectionSet, training: bool) -> DetectionDataset | ViewDataset:
    """A split's images as the network sees them: augmented for training; otherwise in their views, and not cached."""
    if not training:
        return ViewDataset(detection_set, build_views(cfg), cfg.train_difficult)
    return DetectionDataset(detection_set, make(cfg.augment), cfg.seed, cfg.data.cache, cfg.train_difficult)
