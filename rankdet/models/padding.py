"""A padded batch through a network as if each of its images came alone and without padding."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache

import torch
from torch import Tensor, nn


@contextmanager
def padding_unseen(model: nn.Module, input_size: tuple[int, int], shown: Sequence[tuple[int, int]]) -> Iterator[None]:
    """Within it, model(images) gives in every cell that an image has by itself what the image by itself would give.

    images [B, 3, H, W] of input_size (H, W), of which the top left (height, width) in `shown` is an image and the rest
    padding. Convolutions and max pools (these after a ReLU) see zeros there, as they do beyond an input's edge, and
    group norms take their statistics from the image alone. In each layer that halves a map, n cells must become
    ceil(n / 2), or the next one raises ValueError. Without padding the model is not touched.
    """
    if all(size == input_size for size in shown):
        yield
        return

    @lru_cache(maxsize=32)  # one a map size
    def mask(height: int, width: int, device: torch.device) -> Tensor:
        rows = torch.tensor([_cells(h, input_size[0], height) for h, _ in shown], device=device)
        columns = torch.tensor([_cells(w, input_size[1], width) for _, w in shown], device=device)
        down = torch.arange(height, device=device) < rows[:, None]
        across = torch.arange(width, device=device) < columns[:, None]
        return (down[:, :, None] & across[:, None, :])[:, None]

    def of(x: Tensor) -> Tensor:
        return mask(x.shape[-2], x.shape[-1], x.device)

    with ExitStack() as hooks:
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.MaxPool2d):
                hooks.callback(module.register_forward_pre_hook(_zeroing(of)).remove)
            elif isinstance(module, nn.GroupNorm):
                hooks.callback(module.register_forward_hook(_normalising(of)).remove)
        yield


def in_padding(anchors: Tensor, level_sizes: Sequence[int], shown: tuple[int, int]) -> Tensor:
    """bool [A]: whether an anchor's cell lies right of or below the shown (height, width), so that without padding
    there were no such cell. Anchors [A, 4] xyxy are centred in their level's cells, the first of which starts at 0."""
    ends = anchors.new_tensor([shown[1], shown[0]])
    outside = []
    for level in anchors.split(list(level_sizes)):
        centres = (level[:, :2] + level[:, 2:]) / 2
        first = centres.amin(dim=0) if len(centres) else centres.new_zeros(2)  # half a cell
        outside.append((centres - first >= ends).any(dim=1))
    return torch.cat(outside)


def _cells(shown: int, whole: int, cells: int) -> int:
    """How many of a map's cells along one axis show the image, where `cells` show the whole input."""
    while whole > cells:
        shown, whole = -(-shown // 2), -(-whole // 2)
    if whole != cells:
        raise ValueError(
            f"a map of {cells} cells does not come of halving the input; this network takes no padded images"
        )
    return shown


def _zeroing(mask: Callable[[Tensor], Tensor]) -> Callable[[nn.Module, tuple[Tensor]], Tensor]:
    return lambda _module, inputs: inputs[0] * mask(inputs[0])


def _normalising(mask: Callable[[Tensor], Tensor]) -> Callable[[nn.GroupNorm, tuple[Tensor], Tensor], Tensor]:
    def normalised(module: nn.GroupNorm, inputs: tuple[Tensor], _output: Tensor) -> Tensor:
        seen = mask(inputs[0])
        x = inputs[0].unflatten(1, (module.num_groups, -1))  # [B, groups, channels, h, w]
        inside = seen[:, None]
        count = inside.sum(dim=(2, 3, 4), keepdim=True) * x.shape[2]
        mean = (x * inside).sum(dim=(2, 3, 4), keepdim=True) / count
        variance = ((x - mean).square() * inside).sum(dim=(2, 3, 4), keepdim=True) / count
        x = ((x - mean) * (variance + module.eps).rsqrt()).flatten(1, 2)
        return x * module.weight[:, None, None] + module.bias[:, None, None]

    return normalised
