"""A padded batch gives in each image's cells what the image gives alone, for every norm and both pyramids."""

import pytest
import torch
from torch import nn

from rankdet.build import build_detector
from rankdet.config import compose
from rankdet.models.padding import in_padding, padding_unseen

SHOWN = [(96, 160), (71, 129), (33, 100), (96, 97), (1, 160)]


def made(*overrides):
    """A detector with random weights whose norms and biases are no identities, so that padding would be seen."""
    torch.manual_seed(0)
    cfg = compose(["model.backbone.frozen_stages=0", *overrides])
    model = build_detector(cfg, 3).model
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        for name in ("weight", "bias", "running_mean"):
            value = getattr(module, name, None)
            if value is not None and value.dim() == 1:
                nn.init.normal_(value.data if isinstance(value, nn.Parameter) else value, 0.5, 0.3)
    return model.eval()


@pytest.mark.parametrize(
    "overrides",
    [
        ["model.backbone.norm=bn"],
        ["model.backbone.norm=gn", "model.heads.norm=gn", "model.fpn.extra_levels=2"],
        ["model.backbone.norm=frozen_bn", "model.fpn.extra_levels=2", "model.backbone.name=resnet50"],
    ],
    ids=["bn", "gn", "frozen_bn"],
)
def test_cells_are_those_of_the_image_alone(overrides):
    """Images of odd sizes in an input of 96 x 160, noise in the padding, in float64."""
    model = made(*overrides).double()
    height, width = 96, 160
    images = 255 * torch.rand(len(SHOWN), 3, height, width, dtype=torch.float64)
    with torch.no_grad():
        with padding_unseen(model, (height, width), SHOWN):
            together = model(images)
        seen = model(images)
        for i, (h, w) in enumerate(SHOWN):
            alone = model(images[i : i + 1, :, :h, :w])
            kept = ~in_padding(together.anchors, together.level_sizes, (h, w))
            assert kept.sum() == alone.logits.shape[1]
            assert torch.equal(together.anchors[kept], alone.anchors)
            scale = alone.logits.abs().max()
            for ours, theirs in ((together.logits, alone.logits), (together.deltas, alone.deltas)):
                torch.testing.assert_close(ours[i][kept], theirs[0], rtol=1e-9, atol=1e-9 * scale.item())
            if (h, w) != (height, width):
                assert (seen.logits[i][kept] - alone.logits[0]).abs().max() > 1e-3 * scale


def test_the_model_is_left_as_it_was():
    """No hook stays, also after an error; without padding none is set."""
    model = made()
    modules = list(model.modules())

    def hooks():
        return sum(len(module._forward_pre_hooks) + len(module._forward_hooks) for module in modules)

    with padding_unseen(model, (96, 160), [(96, 160)] * 2):
        assert hooks() == 0
    with pytest.raises(RuntimeError, match="on purpose"), padding_unseen(model, (96, 160), [(96, 100)]):
        assert hooks() > 10
        raise RuntimeError("on purpose")
    assert hooks() == 0


def test_a_network_that_does_not_halve_is_refused():
    """A 3 x 3 convolution without padding leaves 94 of 96 rows, which is no number of cells that halving gives."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
    with pytest.raises(ValueError, match="94 cells"), padding_unseen(model, (96, 96), [(90, 90)]):
        model(torch.zeros(1, 3, 96, 96))
