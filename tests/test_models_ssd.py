"""SSD as each configs/model/ssd*.yaml builds it, and with every loss."""

from functools import cache
from pathlib import Path

import pytest
import single_stage
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from rankdet.build import build_detector
from rankdet.config import compose
from rankdet.data.records import Target
from rankdet.errors import UserError
from rankdet.models.output import DetectorOutput
from rankdet.models.padding import in_padding, padding_unseen
from rankdet.models.ssd import SSD, ExtraLayers, L2Scale
from rankdet.models.ssd_heads import SSDHeads
from rankdet.training.init import initialise_from

LOSSES = sorted(path.stem for path in (Path(__file__).parents[1] / "configs" / "loss").glob("*.yaml"))
OFTEN_TRIED = {"alrp", "ap", "ce_ohem", "focal"}
OWN_BOX_LOSS = {"alrp", "harmonic", "parameterized_ap"}
WITH_BACKGROUND = {"ce_ohem", "cross_entropy", "harmonic"}  # a channel more than classes
REDUCED_VGG16 = 20_483_904  # see tests/test_models_vgg.py


def build(name: str, *overrides: str, num_classes: int = 20):
    """A detector without trained weights."""
    return build_detector(composed(name, *overrides), num_classes)


@cache
def composed(name: str, *overrides: str) -> DictConfig:
    return compose([f"model={name}", "model.backbone.weights=null", "matching=best_prior", *overrides])


def mini(*overrides: str, num_classes: int = 3) -> SSD:
    torch.manual_seed(0)
    return build("ssd_eighth", *overrides, num_classes=num_classes).model


def test_every_ssd_config_is_tested_here(repo):
    names = {path.stem for path in (repo / "configs" / "model").glob("ssd*.yaml")}
    assert names == {"ssd_eighth", "ssd512_vgg16_coco", *PAPER_CONFIGS}


# Side of the input, cells of the maps along a side, boxes per cell, channels and kernels of the extra layers.
PAPER_CONFIGS = {
    "ssd512_vgg16": (
        512,
        [64, 32, 16, 8, 4, 2, 1],
        [4, 6, 6, 6, 6, 4, 4],
        [(1024, 256, 512, 3), (512, 128, 256, 3), (256, 128, 256, 3), (256, 128, 256, 3), (256, 128, 256, 4)],
    ),
    "ssd300_vgg16": (
        300,
        [38, 19, 10, 5, 3, 1],
        [4, 6, 6, 6, 4, 4],
        [(1024, 256, 512, 3), (512, 128, 256, 3), (256, 128, 256, 3), (256, 128, 256, 3)],
    ),
}


@pytest.mark.parametrize("name", PAPER_CONFIGS)
def test_paper_configs(name):
    """Parameters: the backbone, conv4_3's 512 scales, a 1x1 and another convolution per extra map, two per head."""
    side, cells, boxes, extras = PAPER_CONFIGS[name]
    with torch.device("meta"):
        model = build(name).model
    extra = sum(a * b + b + b * c * k * k + c for a, b, c, k in extras)
    maps = [512, 1024, *(c for _, _, c, _ in extras)]
    heads = sum((9 * c + 1) * n * (20 + 4) for c, n in zip(maps, boxes, strict=True))
    assert sum(p.numel() for p in model.parameters()) == REDUCED_VGG16 + 512 + extra + heads
    assert all(p.requires_grad for p in model.parameters())
    assert not any(isinstance(module, nn.BatchNorm2d | nn.GroupNorm) for module in model.modules())
    output = model(torch.empty(2, 3, side, side, dtype=torch.uint8, device="meta"))
    total = {512: 24_564, 300: 8_732}[side]
    assert output.level_sizes == tuple(n * count**2 for n, count in zip(boxes, cells, strict=True))
    assert sum(output.level_sizes) == total
    assert output.logits.shape == (2, total, 20)
    assert output.deltas.shape == (2, total, 4)
    assert output.anchors.shape == (total, 4)
    assert model.coder.stds == (0.1, 0.1, 0.2, 0.2)


def test_coco_config_differs_in_its_boxes_alone():
    voc, coco = (OmegaConf.to_container(composed(name).model) for name in ("ssd512_vgg16", "ssd512_vgg16_coco"))
    assert voc["priors"].pop("sizes") != coco["priors"].pop("sizes")
    assert voc == coco


def test_mini_config():
    """160 x 120: cells 15 x 20, 8 x 10, 4 x 5, 2 x 3 with 4, 6, 6, 4 boxes: 1 200 + 480 + 120 + 24."""
    model = mini()
    output = model(torch.randint(0, 256, (2, 3, 120, 160), dtype=torch.uint8))
    assert isinstance(output, DetectorOutput)
    assert output.level_sizes == (1_200, 480, 120, 24)
    assert output.logits.shape == (2, 1_824, 3)
    assert output.deltas.shape == (2, 1_824, 4)
    torch.testing.assert_close(output.anchors[0], torch.tensor([-6.0, -6.0, 14.0, 14.0]))  # 20 x 20 around (4, 4)
    assert all(p.requires_grad for p in model.parameters())
    assert model.backbone.channels == {"conv4_3": 64, "conv7": 128}


def test_prior_bias_is_what_every_map_says():
    """A softmax's, so that the channels differ: three classes at 0.01 and background."""
    model = mini("loss=ce_ohem")
    expected = torch.tensor([0.0, 0.0, 0.0, 0.97 / 0.01]).where(torch.arange(4) < 3, torch.tensor(97.0).log())
    for conv, boxes in zip(model.heads.class_output, (4, 6, 6, 4), strict=True):
        torch.testing.assert_close(conv.bias.reshape(boxes, 4), expected.expand(boxes, 4))


def test_heads_are_in_the_boxes_order():
    """Maps of 2 x 3 and 1 x 2 cells with 2 and 1 boxes, 2 channels; convolutions that add 100 box + 10 channel to the
    cell's number."""
    heads = SSDHeads([1, 1], [2, 1], num_channels=2, prior_bias=torch.zeros(2))
    for convs, channels in ((heads.class_output, 2), (heads.box_output, 4)):
        for conv in convs:
            with torch.no_grad():
                conv.weight.zero_()[:, :, 1, 1] = 1.0
                i = torch.arange(len(conv.bias))
                conv.bias.copy_(100 * (i // channels) + 10 * (i % channels))
    maps = [torch.arange(6.0).reshape(1, 1, 2, 3), 6 + torch.arange(2.0).reshape(1, 1, 1, 2)]
    logits, deltas = heads(maps)
    rows = [(cell, box) for cell in range(6) for box in range(2)] + [(6, 0), (7, 0)]
    for found, channels in ((logits, 2), (deltas, 4)):
        expected = [[cell + 100 * box + 10 * channel for channel in range(channels)] for cell, box in rows]
        assert found.tolist() == [expected]


def test_heads_want_a_bias_per_channel():
    with pytest.raises(ValueError, match=r"prior_bias must have shape \[3\], not \[2\]"):
        SSDHeads([8], [4], num_channels=3, prior_bias=torch.zeros(2))


def test_scale_by_hand():
    """A cell (3, 4) becomes (0.6, 0.8) times 20, then times (20, 10); a cell of zeros stays, with a finite gradient."""
    layer = L2Scale(2, 20)
    x = torch.tensor([[3.0, 0.0], [4.0, 0.0]]).reshape(1, 2, 1, 2).requires_grad_()
    assert layer(x).flatten().tolist() == pytest.approx([12.0, 0.0, 16.0, 0.0])
    with torch.no_grad():
        layer.weight[1] = 10.0
    assert layer(x).flatten().tolist() == pytest.approx([12.0, 0.0, 8.0, 0.0])
    layer(x).sum().backward()
    assert x.grad.isfinite().all()
    assert layer.weight.grad.tolist() == pytest.approx([0.6, 0.8])


def test_only_the_first_map_is_scaled_and_the_others_come_of_it_unscaled():
    """With a scale of 0 conv4_3's scores are their bias, and nothing else changes."""
    model = mini().eval()
    images = torch.randint(0, 256, (1, 3, 120, 160), dtype=torch.uint8)
    before = model(images)
    nn.init.zeros_(model.scale.weight)
    after = model(images)
    assert torch.equal(after.logits[:, 1_200:], before.logits[:, 1_200:])
    bias = model.heads.class_output[0].bias.reshape(4, 3)
    torch.testing.assert_close(after.logits[0, :1_200].reshape(300, 4, 3), bias.expand(300, 4, 3))
    assert not torch.allclose(before.logits[:, :1_200], after.logits[:, :1_200])


class TestSmallImages:
    """Every map must have a cell."""

    @pytest.mark.parametrize(("name", "least"), [("ssd512_vgg16", 257), ("ssd300_vgg16", 257), ("ssd_eighth", 1)])
    def test_the_least_side(self, name, least):
        """SSD512: conv12_2 (4 x 4, padding 1) wants 2 cells, so the halvings before it 3, 5, 9 and, in conv7, 17: 16
        strides of 16 and a pixel. SSD300: two 3 x 3 without padding want 5, so the halvings 9 and 17."""
        with torch.device("meta"):
            model = build(name).model
            assert model.least_side == least
            assert min(model(torch.empty(2, 3, least, 512, dtype=torch.uint8)).level_sizes) > 0
            if least > 1:
                for height, width in ((least - 1, 512), (512, least - 1)):
                    with pytest.raises(UserError) as error:
                        model(torch.empty(2, 3, height, width, dtype=torch.uint8))
                    assert str(error.value) == (
                        f"an input of {height} x {width} pixels is too small for this SSD, whose last map needs at "
                        "least 257 x 257; set data.image_size or test_input, or fewer model.extras"
                    )

    def test_no_map_has_a_cell_less_by_hand(self):
        """Least sides that ExtraLayers says, tried: that many cells leave every map one, one less does not."""
        tried = 0
        for layers in ([[2, 2, 3, 1, 0]], [[2, 2, 3, 2, 1], [2, 2, 4, 1, 1]], [[2, 2, 5, 3, 0], [2, 2, 3, 2, 0]]):
            extras = ExtraLayers(1, layers)
            assert all(min(x.shape) > 0 for x in extras(torch.zeros(1, 1, extras.least_side, extras.least_side)))
            with pytest.raises(RuntimeError):
                extras(torch.zeros(1, 1, extras.least_side - 1, extras.least_side))
            tried += 1
        assert tried == 3


def test_priors_for_other_maps_are_refused():
    with pytest.raises(UserError, match=r"model\.priors are for 4 maps, the network has 3"):
        mini("model.extras.layers=[[64,128,3,2,1]]")


def target(*rows: tuple[float, float, float, float], labels: tuple[int, ...] = ()) -> Target:
    boxes = torch.tensor(rows).reshape(-1, 4)
    return Target(boxes, torch.tensor(labels, dtype=torch.int64), torch.zeros(len(rows), dtype=torch.bool), 0, (64, 96))


TARGETS = [
    target((10.0, 10.0, 50.0, 40.0), (60.0, 20.0, 90.0, 60.0), labels=(0, 2)),
    target(),  # an image without objects
    target((3.0, 3.0, 6.0, 6.0), labels=(1,)),  # smaller than any box
]


@pytest.mark.parametrize(
    "loss", [loss if loss in OFTEN_TRIED else pytest.param(loss, marks=pytest.mark.full) for loss in LOSSES]
)
def test_a_step_with_every_loss(loss):
    """As many channels as it asks for; every parameter gets a finite gradient, and the step lowers the loss."""
    torch.manual_seed(0)
    box = ["box_loss=none"] if loss in OWN_BOX_LOSS else []
    detector = build("ssd_eighth", f"loss={loss}", *box, num_classes=3)
    model = detector.model.train()
    images = torch.randint(0, 256, (3, 3, 64, 96), dtype=torch.uint8)
    stage = detector.last
    stage.criterion.set_epoch_length(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def value() -> Tensor:
        output = model(images)
        assert output.logits.shape[2] == (4 if loss in WITH_BACKGROUND else 3)
        return stage.loss(stage.assign(output, TARGETS)).total

    before = value()
    before.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert sum(bool((conv.weight.grad != 0).any()) for conv in model.heads.class_output) >= 2
    optimizer.step()
    with torch.no_grad():
        assert value() < before


def test_every_object_is_learnt_from():
    """Of 3 objects each has at least one prior, the one of 3 x 3 pixels too; there is nothing ignored."""
    detector = build("ssd_eighth", num_classes=3)
    inputs = detector.assign(detector.model(torch.zeros(3, 3, 64, 96)), TARGETS)
    assert (inputs.labels >= 0).all()
    assert (inputs.labels[0] == 1).any(dim=0).tolist() == [True, False, True]
    assert (inputs.labels[1] == 1).sum() == 0
    assert (inputs.labels[2] == 1).sum(dim=0).tolist() == [0, 1, 0]


def test_weights_for_another_number_of_classes(tmp_path):
    """As init_from wants it: all but the class head is taken over."""
    first, second = mini(num_classes=3), mini(num_classes=5)
    torch.save({"model": first.state_dict()}, tmp_path / "weights.pt")
    nn.init.zeros_(second.scale.weight)
    notes = initialise_from(second, tmp_path / "weights.pt")
    assert notes[1].startswith("another number of classes: heads.class_output.0.bias")
    assert torch.equal(second.scale.weight, first.scale.weight)
    assert torch.equal(second.heads.box_output[2].weight, first.heads.box_output[2].weight)


def test_images_as_bytes_or_floats():
    single_stage.assert_bytes_or_floats(mini())


def test_memory_format_changes_nothing():
    single_stage.assert_any_memory_format(mini())


def test_images_of_a_batch_do_not_mix():
    single_stage.assert_images_do_not_mix(mini("model.backbone.norm=gn", "model.extras.norm=gn"))


def test_training_after_evaluation_in_inference_mode():
    single_stage.assert_trains_after_inference(mini())


@pytest.mark.full
def test_one_graph_for_the_compiler():
    single_stage.assert_one_graph(mini())


class TestPadding:
    """A padded batch gives in each image's cells what the image gives alone."""

    @pytest.mark.parametrize(
        ("overrides", "size", "shown"),
        [
            (["ssd_eighth"], (96, 160), [(96, 160), (71, 129), (33, 100), (1, 160)]),
            (["ssd512_vgg16", "model.backbone.width=0.03"], (288, 512), [(288, 512), (257, 400), (280, 511)]),
            (["ssd300_vgg16", "model.backbone.width=0.03"], (300, 300), [(300, 300), (257, 299)]),
        ],
        ids=["quarter", "512", "300"],
    )
    def test_cells_are_those_of_the_image_alone(self, overrides, size, shown):
        """The last extra maps of SSD300 and SSD512 do not halve; for inputs this small it comes to the same."""
        torch.manual_seed(0)
        model = build(*overrides, num_classes=3).model
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1 and "heads" not in name:
                nn.init.normal_(parameter, 0.5, 0.3)
        for conv in (*model.heads.class_output, *model.heads.box_output):
            nn.init.kaiming_normal_(conv.weight)
        model = model.double().eval()
        images = 255 * torch.rand(len(shown), 3, *size, dtype=torch.float64)
        with torch.no_grad():
            with padding_unseen(model, size, shown):
                together = model(images)
            seen = model(images)
            for i, (h, w) in enumerate(shown):
                alone = model(images[i : i + 1, :, :h, :w])
                kept = ~in_padding(together.anchors, together.level_sizes, (h, w))
                scale = alone.logits.abs().max()
                assert torch.equal(together.anchors[kept], alone.anchors)
                for ours, theirs in ((together.logits, alone.logits), (together.deltas, alone.deltas)):
                    torch.testing.assert_close(ours[i][kept], theirs[0], rtol=1e-9, atol=1e-9 * scale.item())
                if (h, w) != size:
                    assert (seen.logits[i][kept] - alone.logits[0]).abs().max() > 1e-3 * scale

    def test_where_the_last_map_does_not_halve_it_says_so(self):
        """SSD512 on 1024 pixels: 4 cells in conv11_2 become 3 in conv12_2."""
        model = build("ssd512_vgg16", "model.backbone.width=0.01", num_classes=3).model
        with (
            pytest.raises(ValueError, match="a map of 3 cells does not come of halving the input"),
            padding_unseen(model, (1024, 1024), [(1000, 1024)]),
            torch.no_grad(),
        ):
            model(torch.zeros(1, 3, 1024, 1024))
