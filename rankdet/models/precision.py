"""Positions want more digits than autocast and half types leave them."""

from contextlib import nullcontext

import torch
from torch import Tensor


def without_autocast(device_type: str) -> torch.autocast | nullcontext[None]:
    """A context in which autocast is off. The meta device knows none to switch off."""
    available = torch.amp.is_autocast_available(device_type)
    return torch.autocast(device_type, enabled=False) if available else nullcontext()


def full_precision(x: Tensor) -> Tensor:
    """Half types as float32; float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
