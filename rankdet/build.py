"""Objects from configs: the one place that instantiates."""

from dataclasses import dataclass
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.optim import Optimizer

from rankdet.config import one_line
from rankdet.data.dataset import DetectionDataset
from rankdet.data.held_out import HeldOut
from rankdet.data.one_class import OneClass
from rankdet.data.records import DetectionSet, Source, Target
from rankdet.data.view_dataset import ViewDataset
from rankdet.data.views import Stretch, Views
from rankdet.errors import UserError
from rankdet.evaluation.postprocess import PostProcess
from rankdet.losses.criterion import Criterion
from rankdet.losses.inputs import LossInputs
from rankdet.models.output import DetectorOutput
from rankdet.training.parameter_groups import parameter_groups
from rankdet.training.stage import Stage


@dataclass
class Detector:
    """A network with what its outputs mean."""

    model: nn.Module
    stages: list[Stage]  # one an output; the detections' last
    postprocess: PostProcess

    @property
    def last(self) -> Stage:
        """The stage whose outputs become detections."""
        return self.stages[-1]

    def detections_output(self, images: Tensor, targets: list[Target]) -> DetectorOutput:
        """The last stage's output; of the targets only `shown` counts, and only where the model is in eval mode."""
        return self.model(images) if len(self.stages) == 1 else self.model(images, targets)[-1]

    def assign(self, output: DetectorOutput, targets: list[Target]) -> LossInputs:
        """What the last stage learns from."""
        return self.last.assign(output, targets)

    def probabilities(self, logits: Tensor) -> Tensor:
        """float [..., C] -> float [..., K] scores in [0, 1], as the last stage's loss means its logits."""
        return self.last.probabilities(logits)


def make(node: DictConfig, **arguments: Any) -> Any:  # noqa: ANN401
    """instantiate() whose errors keep our own messages."""
    try:
        return instantiate(node, _convert_="all", **arguments)
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise UserError(f"config: {one_line(error)}") from error


def build_detector(cfg: DictConfig, num_classes: int) -> Detector:
    """The network of cfg.model for the scores that its losses ask for, with these losses.

    cfg.rpn, where it is not empty, is what a first stage of proposals is matched with and trained by. A network with
    num_outputs, one a decoder layer, learns by all of them alike.
    """
    if not (isinstance(cfg.prior, float) and 0 < cfg.prior < 1):
        raise UserError(f"prior={cfg.prior}: must be a number between 0 and 1")
    criterion, scores = build_criterion(cfg, num_classes, cfg.prior)
    matcher, sampler = make(cfg.matching), make(cfg.sampler) if cfg.get("sampler") else None
    if not cfg.get("rpn"):
        model = make(cfg.model, **scores)
        stages = [Stage(criterion, matcher, model.coder, num_classes, sampler)]
        if hasattr(model, "num_outputs"):
            if not hasattr(matcher, "by_prediction"):
                raise UserError("config: this model's queries have no place to be matched by: set matching=hungarian")
            layers = [f"layer {number} " for number in range(1, model.num_outputs)]
            losses = [build_criterion(cfg, num_classes, cfg.prior)[0] for _ in layers]  # what a loss keeps, each has
            earlier = zip(losses, layers, strict=True)
            stages[:0] = [
                Stage(loss, matcher, model.coder, num_classes, sampler, name=layer) for loss, layer in earlier
            ]
    else:
        if "rpn" not in cfg.model:
            raise UserError("config: rpn is for a model that proposes regions: set rpn=none, or model=faster_rcnn_...")
        if hasattr(matcher, "by_prediction"):
            raise UserError("config: regions are matched by where they lie, not by what is predicted: set matching=roi")
        rpn_criterion, rpn_scores = build_criterion(cfg.rpn, 1, cfg.prior)
        named = {f"rpn_{name}": value for name, value in rpn_scores.items()}
        model = make(cfg.model, num_classes=num_classes, **scores, **named)
        rpn_sampler = make(cfg.rpn.sampler) if cfg.rpn.sampler else None
        first = Stage(rpn_criterion, make(cfg.rpn.matching), model.rpn_coder, 1, rpn_sampler, cfg.rpn.weight, "rpn ")
        stages = [first, Stage(criterion, matcher, model.coder, num_classes, sampler)]
    return Detector(model, stages, make(cfg.evaluation))


def build_criterion(cfg: DictConfig, num_classes: int, prior: float) -> tuple[Criterion, dict[str, Any]]:
    """The criterion of cfg.loss and cfg.box_loss, and the score channels that the former wants of a head."""
    loss = make(cfg.loss)
    if cfg.box_loss and getattr(loss, "has_box_loss", False):
        name = str(cfg.loss._target_).split(".")[-2]
        raise UserError(f"config: loss={name} trains the boxes too: set box_loss=none")
    terms = [loss] + ([make(cfg.box_loss)] if cfg.box_loss else [])
    terms += [make(cfg.measure)] if cfg.get("measure") else []  # runs older than the key have none, nor has an RPN
    try:
        bias = loss.prior_bias(num_classes, prior)
    except ValueError as error:  # a softmax over many classes cannot start each of them at any prior
        raise UserError(f"config: {error}; lower prior") from error
    return Criterion(terms), {"num_channels": loss.num_channels(num_classes), "prior_bias": bias}


def open_source(cfg: DictConfig) -> Source:
    """Where the splits (train, val, trainval, test; with cfg.hold_out two more) of cfg.data are read from."""
    source = make(cfg.data.source)
    if cfg.get("hold_out"):
        source = HeldOut(source, cfg.hold_out.of, cfg.hold_out.num)
    return OneClass(source) if "one_class" in cfg and cfg.one_class else source  # older runs lack the key


def build_optimizer(cfg: DictConfig, model: nn.Module, lr: float) -> Optimizer:
    """cfg.optimizer over what the model trains, by cfg.lr_factors. UserError for a value that it refuses."""
    parameters = parameter_groups(model, cfg.get("lr_factors") or [])  # runs older than the key lack it
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
