"""Adversarial patch (Brown et al., 2017) against a detector: one texture that hides whatever object bears it."""

from collections.abc import Iterable
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rankdet.data.records import Batch, Target
from rankdet.losses.inputs import LossInputs
from rankdet.models.output import DetectorOutput
from rankdet.robustness.patches import Alteration, patch_windows

SIDE = 32  # pixels of the square texture, stretched to each patch
STEPS = 100
BATCH_SIZE = 8
LEARNING_RATE = 0.05  # Adam's, for a texture in 0..1
LEAST = 1e-6  # of 1 - p: keeps its logarithm finite


class Detector(Protocol):
    """What is attacked."""

    model: nn.Module

    def assign(self, output: DetectorOutput, targets: list[Target]) -> LossInputs:
        """Which anchors stand for which object and class."""

    def probabilities(self, logits: Tensor) -> Tensor:
        """float [..., C] -> float [..., K] scores in [0, 1]."""


def train_texture(detector: Detector, batches: Iterable[Batch], seed: int, device: torch.device) -> np.ndarray:
    """uint8 [32, 32, 3]: the texture after a step on each batch. The model is left as it was.

    The patch paper maximises the expected log probability of a class of the attacker's choice over images, places and
    sizes of one texture. Here that class is "not this object's": the mean of log(1 - p) over all (anchor, class) that
    the matching makes positive, p the anchor's probability of the object's class, is climbed by Adam from a random
    start, the texture clipped to 0..1 after each step. Places and sizes are those of the patches; they stand upright
    in the test, so there are no rotations. The images must not be those of the test. Deterministic on a CPU.
    """
    generator = torch.Generator().manual_seed(seed)
    texture = torch.rand(3, SIDE, SIDE, generator=generator).to(device).requires_grad_()
    optimizer = torch.optim.Adam([texture], lr=LEARNING_RATE, maximize=True)
    model, was_training = detector.model, detector.model.training
    wanted_gradients = [parameter.requires_grad for parameter in model.parameters()]
    model.eval().requires_grad_(False)
    for images, targets in batches:
        images = images.to(device).float()
        pairs = zip(images, targets, strict=True)
        altered = [paste(image, 255 * texture, _windows(image, target)) for image, target in pairs]
        output = model(torch.stack(altered))
        positives = detector.assign(output, targets).positives
        if len(positives) == 0:
            continue
        probability = detector.probabilities(output.logits.float()).reshape(-1)[positives]
        optimizer.zero_grad()
        (1 - probability).clamp(min=LEAST).log().mean().backward()
        optimizer.step()
        with torch.no_grad():
            texture.clamp_(0, 1)
    model.train(was_training)
    for parameter, wanted in zip(model.parameters(), wanted_gradients, strict=True):
        parameter.requires_grad_(wanted)
    return (255 * texture.detach()).round().byte().permute(1, 2, 0).cpu().numpy()


def textured_patch(texture: np.ndarray) -> Alteration:
    """The alteration that shows a texture (uint8 [S, S, 3]) in every patch; it draws nothing from its generator."""
    pixels = torch.from_numpy(texture).permute(2, 0, 1).float()

    def alter(image: np.ndarray, boxes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        original = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float()
        altered = paste(original, pixels, patch_windows(boxes, image.shape[:2])).permute(1, 2, 0).numpy()
        return altered.round().astype(image.dtype) if image.dtype == np.uint8 else altered.astype(image.dtype)

    return alter


def paste(image: Tensor, texture: Tensor, windows: np.ndarray) -> Tensor:
    """A copy of image [3, H, W] with texture [3, S, S], averaged or stretched to fit, in each window (see
    patch_windows); gradients flow to the texture."""
    altered = image.clone()
    for left, top, right, bottom in windows.tolist():
        size = (bottom - top, right - left)
        altered[:, top:bottom, left:right] = F.interpolate(texture[None], size=size, mode="bilinear", antialias=True)[0]
    return altered


def _windows(image: Tensor, target: Target) -> np.ndarray:
    return patch_windows(target.boxes[~target.ignore].numpy(), (image.shape[1], image.shape[2]))
