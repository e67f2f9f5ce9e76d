"""Initial weights of a backbone: torchvision's ImageNet weights by name, or a local state-dict file."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights

from rankdet.errors import UserError

CLASSIFIER = "fc."  # torchvision's ImageNet classifier, which a detector has no use for
NUM_NAMED = 3  # keys that an error message spells out


def load_backbone_weights(module: nn.Module, name: str, source: str, new: str | None = None) -> None:
    """Fills `module`, which has the parameter names of torchvision's model `name` (without its classifier).

    source: "imagenet" for torchvision's IMAGENET1K_V1 (fetched once, then from torch.hub's cache), else the path of a
    file that torch.save wrote from such a state dict. Every parameter and buffer must be in it, in the right shape, and
    nothing else but the classifier and BN's batch counters. new: a part of the names of those parameters that
    torchvision's model lacks; if `source` lacks them all, they stay as they are. Raises UserError naming the file and
    the first keys that do not fit; the module is then untouched.
    """
    state = {key: value for key, value in read_weights(name, source).items() if not key.startswith(CLASSIFIER)}
    expected = module.state_dict()
    if new and not any(new in key for key in state):
        expected = {key: value for key, value in expected.items() if new not in key}
    require_fit(expected, state, source)
    module.load_state_dict(state, strict=False)


def read_weights(name: str, source: str) -> Mapping[str, Tensor]:
    """The state dict of torchvision's model `name`, classifier included: source as in load_backbone_weights."""
    return _imagenet(name) if source == "imagenet" else _read(Path(source))


def require_fit(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], source: str) -> None:
    """UserError naming `source` and the first keys or shapes of `found` that are not those of `expected`.

    BN's batch counters steer nothing here, and frozen BN has none: the only keys that may be lacking or spare.
    """
    expected, found = (
        {key: tuple(value.shape) for key, value in state.items() if not key.endswith("num_batches_tracked")}
        for state in (expected, found)
    )
    problems = [f"{key} missing" for key in expected if key not in found]
    problems += [f"{key} not in the model" for key in found if key not in expected]
    problems += [
        f"{key} is {list(found[key])}, not {list(shape)}"
        for key, shape in expected.items()
        if key in found and found[key] != shape
    ]
    if problems:
        more = f" and {len(problems) - NUM_NAMED} more" if len(problems) > NUM_NAMED else ""
        raise UserError(
            f"model.backbone.weights={source} does not fit the backbone's name, width and norm: "
            f"{'; '.join(problems[:NUM_NAMED])}{more}"
        )


def _imagenet(name: str) -> Mapping[str, Tensor]:
    try:
        return get_model_weights(name)["IMAGENET1K_V1"].get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"model.backbone.weights=imagenet: could not fetch torchvision's weights of {name} ({error}); give the "
            "path of a downloaded file instead, or null to start from scratch"
        ) from error


def _read(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise UserError(f"model.backbone.weights={path}: no such file; give a state-dict file, imagenet or null")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes torch.load raise nearly anything
        raise UserError(
            f"model.backbone.weights={path}: torch.load cannot read this file ({type(error).__name__}); is it whole?"
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"model.backbone.weights={path}: holds no state dict (parameter names and tensors)")
    return state
