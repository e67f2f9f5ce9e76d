"""The adversarial patch: pasted where patches go, trained on toy detectors whose worst texture is known."""

import numpy as np
import torch
from torch import nn

from rankdet.data.records import Batch, Target
from rankdet.losses.inputs import LossInputs
from rankdet.models.output import DetectorOutput
from rankdet.robustness.adversarial import SIDE, paste, textured_patch, train_texture
from rankdet.robustness.patches import image_generator


def test_a_texture_fills_every_window_and_nothing_else():
    """A constant texture stays constant however it is stretched: windows of 1 x 1, 4 x 6 and 64 x 64 pixels."""
    image = torch.full((3, 70, 70), 7.0)
    texture = torch.full((3, SIDE, SIDE), 200.0)
    windows = np.array([[0, 0, 1, 1], [10, 2, 16, 6], [3, 5, 67, 69]])
    altered = paste(image, texture, windows)
    expected = image.clone()
    for left, top, right, bottom in windows:
        expected[:, top:bottom, left:right] = 200
    assert torch.allclose(altered, expected)
    assert image.unique().tolist() == [7]


def test_a_texture_of_the_windows_size_arrives_unchanged():
    """A box of 64 x 64 has a window of 32 x 32, the texture's own size."""
    texture = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    image = np.zeros((80, 90, 3), np.uint8)
    altered = textured_patch(texture)(image, np.array([[10.0, 8.0, 74.0, 72.0]]), image_generator(0, "a"))
    assert altered.dtype == np.uint8
    assert np.array_equal(altered[24:56, 26:58], texture)
    altered[24:56, 26:58] = 0
    assert not altered.any()


class Brightness(nn.Module):
    """One anchor whose logit for the one class grows with the image's red and falls with its green."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.02))
        self.norm = nn.BatchNorm1d(1)

    def forward(self, images):
        red, green, _ = images.mean(dim=(2, 3)).unbind(1)
        logits = self.norm((self.scale * (red - green))[:, None])[:, :, None]
        return DetectorOutput(logits, torch.zeros(len(images), 1, 4), torch.zeros(1, 4), (1,))


class Toy:
    """Every image's object is its anchor's."""

    def __init__(self, num_positives=1):
        self.model, self.num_positives = Brightness(), num_positives

    def assign(self, output, targets):
        positives = torch.arange(len(targets) * self.num_positives)
        return LossInputs(output.logits, *[None] * 6)._replace(positives=positives)

    def probabilities(self, logits):
        return logits.sigmoid()


def batches(number, device="cpu"):
    target = Target(torch.tensor([[4.0, 4.0, 28.0, 28.0]]), torch.tensor([0]), torch.tensor([False]), 0, (32, 32))
    return [Batch(torch.full((2, 3, 32, 32), 100, dtype=torch.uint8), [target, target])] * number


def test_the_worst_texture_is_found():
    """Red has to go and green to come, everywhere; blue is of no use, so it stays as it was drawn."""
    texture = train_texture(Toy(), batches(80), 0, torch.device("cpu"))
    assert texture.shape == (SIDE, SIDE, 3)
    assert texture.dtype == np.uint8
    assert texture[..., 0].max() == 0
    assert texture[..., 1].min() == 255
    assert texture[..., 2].std() > 60


def test_the_model_is_left_as_it_was_and_the_seed_decides():
    toy = Toy()
    toy.model.train()
    toy.model.norm.weight.requires_grad_(False)
    before = {key: value.clone() for key, value in toy.model.state_dict().items()}
    first = train_texture(toy, batches(3), 0, torch.device("cpu"))
    assert toy.model.training
    assert [parameter.requires_grad for parameter in toy.model.parameters()] == [True, False, True]
    assert all(parameter.grad is None for parameter in toy.model.parameters())
    assert all(torch.equal(value, before[key]) for key, value in toy.model.state_dict().items())
    assert np.array_equal(train_texture(toy, batches(3), 0, torch.device("cpu")), first)
    assert not np.array_equal(train_texture(toy, batches(3), 1, torch.device("cpu")), first)


def test_batches_without_objects_teach_nothing():
    untrained = train_texture(Toy(), [], 3, torch.device("cpu"))
    assert np.array_equal(train_texture(Toy(num_positives=0), batches(2), 3, torch.device("cpu")), untrained)
