"""Losses and gradients that go wrong on purpose."""

import math

import torch
from torch import nn

from rankdet.losses.inputs import LossOutput


class Spoilt(nn.Module):
    """A criterion that is right until `after` calls are done; then spoil(total) is its total."""

    def __init__(self, criterion, after, spoil):
        super().__init__()
        self.criterion, self.left, self.spoil = criterion, after, spoil

    def forward(self, inputs):
        output = self.criterion(inputs)
        self.left -= 1
        return output if self.left >= 0 else LossOutput(self.spoil(output.total), output.parts)


class InfiniteGradient(torch.autograd.Function):
    """The identity, whose gradient overflows."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * math.inf
