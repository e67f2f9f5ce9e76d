"""torch.compile, where it works."""

import torch
from torch import nn

from rankdet.errors import UserError


def compiled(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with its forward and backward pass compiled at its first call; the given one, whose weights it shares,
    stays as it is.

    The first size of images is compiled for, a second one for any size, which takes a minute each. UserError where a
    trivial function cannot be compiled for the device.
    """
    try:
        torch.compile(torch.square)(torch.ones(8, device=device))
    except Exception as error:  # without a C++ compiler, Python's headers or triton; each fails in its own way
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"runtime.compile=true: torch.compile does not work on this machine ({reason}); set runtime.compile=false"
        ) from error
    return torch.compile(model)
