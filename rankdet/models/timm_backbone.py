"""Backbones from timm, an optional extra: any of its feature extractors that gives maps of the strides wanted."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rankdet.errors import UserError
from rankdet.models.backbones import STRIDES
from rankdet.models.weights import require_fit

NORMS = (None, "frozen_bn")


class TimmBackbone(nn.Module):
    """Normalised images [B, 3, H, W] -> maps by name, c2 to c5 of stride 4, 8, 16, 32, as ResNetBackbone gives them.

    Whether a map has ceil(H / stride) or floor(H / stride) rows is the architecture's affair. name: one that
    timm.list_models() lists. norm: null for the architecture's own layers, frozen_bn for constant batch norms in their
    place. weights: null for timm's initialisation, "imagenet" for the weights that timm has under this name (fetched
    once), or a file of theirs, .pth or .safetensors, classifier included or not. outputs: the maps wanted, finest
    first; of several of one stride the last. options: more arguments of timm.create_model, such as drop_path_rate, or
    strict_img_size=false for Swin. Some weights want other model.pixel_mean and model.pixel_std than ImageNet's.
    Raises UserError where timm is not installed or one of these does not fit.
    """

    def __init__(
        self,
        name: str,
        norm: str | None = None,
        weights: str | None = None,
        outputs: Sequence[str] = ("c3", "c4", "c5"),
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        timm = _timm()
        if not timm.is_model(name):
            near = get_close_matches(name, timm.list_models(), 5) or ["resnet50", "convnext_tiny"]
            raise UserError(f"model.backbone.name={name!r} is no model of timm; there are {', '.join(near)} and others")
        if norm not in NORMS:
            raise UserError(f"model.backbone.norm={norm!r} is unknown; choose null or frozen_bn")
        if not outputs or list(outputs) != [key for key in STRIDES if key in outputs]:
            raise UserError(f"model.backbone.outputs={list(outputs)} must be some of c2, c3, c4, c5 in this order")
        options = dict(options or {})
        with torch.device("meta"):
            reductions = _create(name, options).feature_info.reduction()
        self.strides = {key: STRIDES[key] for key in outputs}
        missing = [stride for stride in self.strides.values() if stride not in reductions]
        if missing:
            raise UserError(
                f"model.backbone.name={name} gives maps of stride {', '.join(map(str, reductions))}; "
                f"model.backbone.outputs={list(outputs)} needs {', '.join(map(str, self.strides.values()))}"
            )
        last = {stride: level for level, stride in enumerate(reductions)}
        options["out_indices"] = [last[stride] for stride in self.strides.values()]
        self.features = _create(name, options, pretrained=weights == "imagenet")
        self.channels = dict(zip(outputs, self.features.feature_info.channels(), strict=True))
        self.channels_last = str(getattr(self.features, "output_fmt", "NCHW")).endswith("NHWC")
        if weights not in (None, "imagenet"):
            _load(self.features, name, weights)
        if norm == "frozen_bn":
            if not any(isinstance(module, nn.BatchNorm2d) for module in self.features.modules()):
                raise UserError(
                    f"model.backbone.norm=frozen_bn: {name} has no batch norm; set model.backbone.norm=null"
                )
            self.features = timm.layers.freeze_batch_norm_2d(self.features)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """float [B, 3, H, W] -> maps [B, channels[key], about H / strides[key], about W / strides[key]]."""
        maps = self.features(images)
        if self.channels_last:
            maps = [x.permute(0, 3, 1, 2) for x in maps]
        return dict(zip(self.strides, maps, strict=True))


def _timm() -> Any:  # noqa: ANN401
    try:
        import timm
    except ImportError as error:
        raise UserError("model.backbone needs timm, which is not installed: pip install -e '.[timm]'") from error
    return timm


def _create(name: str, options: Mapping[str, Any], pretrained: bool = False) -> nn.Module:
    try:
        return _timm().create_model(name, pretrained=pretrained, features_only=True, **options)
    except Exception as error:  # timm raises nearly anything, also for weights that it cannot fetch
        if pretrained:
            raise UserError(
                f"model.backbone.weights=imagenet: timm could not provide weights of {name} ({_one_line(error)}); give "
                "the path of a downloaded file instead, or null to start from scratch"
            ) from error
        raise UserError(
            f"model.backbone: timm cannot make a feature extractor of {name} with options {dict(options)} "
            f"({_one_line(error)})"
        ) from error


def _load(features: nn.Module, name: str, path: str) -> None:
    """Fills `features`, whose parameters may have the full model's names with underscores for dots.

    The file must hold all of them, and nothing that the full model does not have.
    """
    if not Path(path).is_file():
        raise UserError(f"model.backbone.weights={path}: no such file; give a state-dict file, imagenet or null")
    try:
        state = _timm().models.load_state_dict(path, device="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises nearly anything
        raise UserError(
            f"model.backbone.weights={path}: timm cannot read this file ({type(error).__name__}); is it whole?"
        ) from error
    with torch.device("meta"):
        whole = {_plain(key) for key in _timm().create_model(name).state_dict()}
    expected = features.state_dict()
    names = {_plain(key): key for key in expected}
    state = {names.get(_plain(key), key): value for key, value in state.items()}
    found = {key: value for key, value in state.items() if key in expected or _plain(key) not in whole}
    require_fit(expected, found, path)
    features.load_state_dict(found, strict=False)


def _plain(key: str) -> str:
    """The name of a parameter, whether timm's extractor flattened the modules around it, wrapped them or neither."""
    return key.removeprefix("model.").replace(".", "_")


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
