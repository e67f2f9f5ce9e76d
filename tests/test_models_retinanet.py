"""RetinaNet as each configs/model/*.yaml builds it."""

import pytest
import single_stage
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import nn

from rankdet.models.output import DetectorOutput
from rankdet.models.retinanet import RetinaNet

PRIOR_BIAS = [-4.6, -4.5, -4.4]


@pytest.fixture
def build(repo):
    """build(config name, *overrides, num_channels=3) -> RetinaNet."""

    def builder(name: str, *overrides: str, num_channels: int = 3) -> RetinaNet:
        with initialize_config_dir(str(repo / "configs"), version_base=None):
            cfg = compose(overrides=[f"+model={name}", *overrides])
        bias = torch.tensor(PRIOR_BIAS) if num_channels == 3 else torch.full((num_channels,), -4.6)
        return instantiate(cfg.model, num_channels=num_channels, prior_bias=bias, _convert_="all")

    return builder


def test_every_model_config_is_tested_here(repo):
    names = {path.stem for path in (repo / "configs" / "model").glob("retinanet_*.yaml")}
    tested_elsewhere = {"retinanet_timm", "retinanet_r50_atss", "retinanet_quarter_atss"}  # _timm.py, _one_anchor.py
    assert names == {"retinanet_r18_quarter", *LARGER_MINI, *PAPER_PARAMETERS, *tested_elsewhere}


# torchvision's published parameter count, its classifier's, and BN's affines (no parameters under frozen BN); channels.
PAPER_PARAMETERS = {
    "retinanet_r18": (11_689_512 - 513_000 - 9_600, [128, 256, 512]),
    "retinanet_r50": (25_557_032 - 2_049_000 - 53_120, [512, 1024, 2048]),
    "retinanet_r101": (44_549_160 - 2_049_000 - 105_344, [512, 1024, 2048]),
    "retinanet_x101_32x8d": (88_791_336 - 2_049_000 - 202_880, [512, 1024, 2048]),
    "retinanet_x101_64x4d": (83_455_272 - 2_049_000 - 202_880, [512, 1024, 2048]),
}
# Deformable stages 3-5 add to each 3x3 conv another of its width to 27 channels: name -> the plain one, the widths.
DEFORMABLE = {
    "retinanet_r50_dcn": ("retinanet_r50", 4 * [128] + 6 * [256] + 3 * [512]),
    "retinanet_x101_64x4d_dcn": ("retinanet_x101_64x4d", 4 * [512] + 23 * [1024] + 3 * [2048]),
}
for name, (plain, widths) in DEFORMABLE.items():
    count, channels = PAPER_PARAMETERS[plain]
    PAPER_PARAMETERS[name] = (count + sum(27 * (9 * width + 1) for width in widths), channels)


@pytest.mark.parametrize("name", PAPER_PARAMETERS)
def test_paper_configs(name, build):
    """Parameters by layer: laterals c * 256 + 256, 3x3 convs of 5 levels, two towers of four, 6 anchors x 20."""
    with torch.device("meta"):
        model = build(name, "model.backbone.weights=null", num_channels=20)
    backbone, channels = PAPER_PARAMETERS[name]
    conv = 256 * 256 * 9 + 256
    fpn = sum(count * 256 + 256 for count in channels) + 3 * conv + (channels[-1] * 256 * 9 + 256) + conv
    heads = 8 * conv + (256 * 9 + 1) * 6 * 20 + (256 * 9 + 1) * 6 * 4
    assert sum(p.numel() for p in model.backbone.parameters()) == backbone
    assert sum(p.numel() for p in model.parameters()) == backbone + fpn + heads
    frozen = {name.split(".")[0] for name, p in model.backbone.named_parameters() if not p.requires_grad}
    assert frozen == {"conv1", "layer1"}
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    output = model(torch.empty(2, 3, 512, 512, dtype=torch.uint8, device="meta"))
    assert output.logits.shape == (2, 32_736, 20)
    assert output.deltas.shape == (2, 32_736, 4)
    assert output.anchors.shape == (32_736, 4)
    assert output.level_sizes == (24_576, 6_144, 1_536, 384, 96)
    assert model.fpn.strides == (8, 16, 32, 64, 128)


def test_mini_config(build):
    """160 x 120: cells 15 x 20, 8 x 10, 4 x 5 = 400, six anchors each; base side 2 x stride.

    Parameters: the stem; layer1; three stages of a widening conv, three plain ones and a 1x1 shortcut; BN affines (five
    layers of each width, with stem and shortcuts); FPN; heads.
    """
    model = build("retinanet_r18_quarter")
    output = model(torch.randint(0, 256, (2, 3, 120, 160), dtype=torch.uint8))
    assert isinstance(output, DetectorOutput)
    assert output.level_sizes == (1_800, 480, 120)
    assert output.logits.shape == (2, 2_400, 3)
    assert output.deltas.shape == (2, 2_400, 4)
    torch.testing.assert_close(output.anchors[1], torch.tensor([-4.0, -4.0, 12.0, 12.0]))  # ratio 1 around (4, 4)
    assert model.fpn.channels == 48
    assert sum(isinstance(m, nn.Conv2d) for m in model.heads.modules()) == 2 * 2 + 2
    assert all(p.requires_grad for p in model.parameters())
    stem, first = 3 * 16 * 49, 4 * 16 * 16 * 9
    later = sum((a * b + 3 * b * b) * 9 + a * b for a, b in ((16, 32), (32, 64), (64, 128)))
    affine = 2 * (5 * 16 + 5 * 32 + 5 * 64 + 5 * 128)
    conv = 48 * 48 * 9 + 48
    fpn = (32 + 64 + 128) * 48 + 3 * 48 + 3 * conv
    heads = 4 * conv + (48 * 9 + 1) * 6 * (3 + 4)
    assert sum(p.numel() for p in model.parameters()) == stem + first + later + affine + fpn + heads


# Widths that come out of stages 3-5; convolutions: the stem, 3 + 4 + 6 + 3 blocks, a shortcut into each wider stage.
LARGER_MINI = {
    "retinanet_r34_quarter": ([32, 64, 128], 1 + 2 * (3 + 4 + 6 + 3) + 3),
    "retinanet_r50_quarter": ([128, 256, 512], 1 + 3 * (3 + 4 + 6 + 3) + 4),
}


@pytest.mark.parametrize("name", LARGER_MINI)
def test_larger_mini_configs(name, build):
    """What stands for a ResNet-101 and a ResNeXt-101: as the smaller one but for the backbone."""
    widths, convs = LARGER_MINI[name]
    model = build(name)
    output = model(torch.randint(0, 256, (1, 3, 120, 160), dtype=torch.uint8))
    assert output.logits.shape == (1, 2_400, 3)
    assert output.level_sizes == (1_800, 480, 120)
    assert model.fpn.channels == 48
    assert all(p.requires_grad for p in model.parameters())
    assert sum(isinstance(module, nn.Conv2d) for module in model.backbone.modules()) == convs
    assert list(model.backbone.channels.values()) == widths


def test_prior_bias_is_what_an_untrained_model_says(build):
    model = build("retinanet_r18_quarter")
    bias = model.heads.class_output.bias.reshape(6, 3)
    torch.testing.assert_close(bias, torch.tensor(PRIOR_BIAS).expand(6, 3))


def test_images_as_bytes_or_floats(build):
    single_stage.assert_bytes_or_floats(build("retinanet_r18_quarter"))


def test_memory_format_changes_nothing(build):
    single_stage.assert_any_memory_format(build("retinanet_r18_quarter"))


def test_images_of_a_batch_do_not_mix(build):
    single_stage.assert_images_do_not_mix(build("retinanet_r18_quarter", "model.backbone.norm=gn"))


def test_training_after_evaluation_in_inference_mode(build):
    single_stage.assert_trains_after_inference(build("retinanet_r18_quarter"))


def test_one_graph_for_the_compiler(build):
    single_stage.assert_one_graph(build("retinanet_r18_quarter"))
