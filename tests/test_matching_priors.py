"""SSD's default boxes: values and order by hand, the paper's counts, and the kept answer."""

import math

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from rankdet.matching.priors import PriorGenerator

CPU = torch.device("cpu")


def test_one_cell_by_hand():
    """Stride 32, centre (16, 16), size 36 with 64 next: squares of 36 and sqrt(36 * 64) = 48; for 4 a box of 72 x 18
    (width / height 4 at area 36^2) and one of 18 x 72."""
    priors = PriorGenerator([32], sizes=[36.0, 64.0], ratios=[[4.0]])([(1, 1)], CPU)
    sizes = [(36, 36), (48, 48), (72, 18), (18, 72)]
    expected = [[16 - w / 2, 16 - h / 2, 16 + w / 2, 16 + h / 2] for w, h in sizes]
    torch.testing.assert_close(priors, torch.tensor(expected))
    assert priors.dtype == torch.float32


def test_order_is_level_row_column_box():
    """2 x 3 cells of stride 8 with two boxes each, then 1 x 2 of stride 16 with four: the second level's are larger."""
    generator = PriorGenerator([8, 16], sizes=[4.0, 9.0, 16.0], ratios=[[], [9.0]])
    assert generator.num_per_cell == (2, 4)
    priors = generator([(2, 3), (1, 2)], CPU)
    centres = (priors[:, :2] + priors[:, 2:]) / 2
    fine = [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]]
    expected = [centre for centre in fine for _ in range(2)] + [[8, 8]] * 4 + [[24, 8]] * 4
    torch.testing.assert_close(centres, torch.tensor(expected, dtype=torch.float32))
    widths = [4.0, 6.0] * 6 + [9.0, 12.0, 27.0, 3.0] * 2
    torch.testing.assert_close(priors[:, 2] - priors[:, 0], torch.tensor(widths))


def of_config(repo, name: str) -> PriorGenerator:
    config = OmegaConf.load(repo / "configs" / "model" / "ssd512_vgg16.yaml")
    if name != "ssd512_vgg16":
        config = OmegaConf.merge(config, OmegaConf.load(repo / "configs" / "model" / f"{name}.yaml"))
    return instantiate(config.priors, _convert_="all")


def test_ssd512_has_24564(repo):
    """4 boxes a cell on 64^2, 2^2 and 1 cells, 6 on 32^2, 16^2, 8^2 and 4^2: 16 400 + 8 160 + 4 = 24 564."""
    generator = of_config(repo, "ssd512_vgg16")
    assert generator.num_per_cell == (4, 6, 6, 6, 6, 4, 4)
    priors = generator([(64, 64), (32, 32), (16, 16), (8, 8), (4, 4), (2, 2), (1, 1)], CPU)
    assert priors.shape == (24_564, 4)
    first, last = priors[:4], priors[-4:]
    torch.testing.assert_close(first[0], 4 + 0.07 * 512 / 2 * torch.tensor([-1.0, -1.0, 1.0, 1.0]))
    centres = torch.tensor([[4.0, 4.0]] * 4 + [[256.0, 256.0]] * 4)
    both = torch.cat([first, last])
    torch.testing.assert_close((both[:, :2] + both[:, 2:]) / 2, centres)
    width, height = (both[:, 2:] - both[:, :2]).unbind(1)
    small, large = (0.07, math.sqrt(0.07 * 0.15)), (0.9, math.sqrt(0.9 * 1.05))
    sides = torch.tensor([*small, small[0], small[0], *large, large[0], large[0]]) * 512
    torch.testing.assert_close((width * height).sqrt(), sides)
    torch.testing.assert_close(width / height, torch.tensor([1.0, 1.0, 2.0, 0.5] * 2))


def test_ssd300_has_8732(repo):
    """4 * 38^2 + 6 * (19^2 + 10^2 + 5^2) + 4 * (3^2 + 1) = 5 776 + 2 916 + 40."""
    generator = of_config(repo, "ssd300_vgg16")
    assert len(generator([(38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)], CPU)) == 8_732


@pytest.mark.parametrize(
    ("name", "side", "first", "second", "step"),
    [
        ("ssd512_vgg16", 512, 0.07, 0.15, 0.15),
        ("ssd512_vgg16_coco", 512, 0.04, 0.10, 0.16),
        ("ssd300_vgg16", 300, 0.10, 0.20, 0.17),
    ],
)
def test_sizes_are_the_papers_shares_of_the_input(name, side, first, second, step, repo):
    """SSD, Sec. 2.2, 3.1 and 3.4: conv4_3's, then one in every `step` from `second` on, one more than levels."""
    generator = of_config(repo, name)
    levels = len(generator.shapes)
    shares = [first] + [second + step * level for level in range(levels)]
    for level, shapes in enumerate(generator.shapes):
        assert shapes[0] == pytest.approx((shares[level] * side,) * 2)
        assert shapes[1] == pytest.approx((math.sqrt(shares[level] * shares[level + 1]) * side,) * 2)
    assert levels == (6 if side == 300 else 7)


def test_the_answer_is_kept_for_one_size():
    generator = PriorGenerator([8, 16], sizes=[10.0, 20.0, 40.0], ratios=[[2.0], [2.0]])
    first = generator([(4, 4), (2, 2)], CPU)
    assert generator([(4, 4), (2, 2)], CPU) is first
    other = generator([(4, 5), (2, 3)], CPU)
    assert len(other) == 4 * (20 + 6)
    torch.testing.assert_close(generator([(4, 4), (2, 2)], CPU), first)
    assert generator([(4, 4), (2, 2)], torch.device("meta")).device.type == "meta"


def test_priors_made_in_inference_mode_can_be_trained_on():
    generator = PriorGenerator([8], sizes=[10.0, 20.0], ratios=[[2.0]])
    with torch.inference_mode():
        priors = generator([(2, 2)], CPU)
    scale = torch.ones(1, requires_grad=True)
    (priors * scale).sum().backward()
    assert scale.grad.item() == pytest.approx(priors.sum().item())


def test_one_graph_for_the_compiler():
    generator = PriorGenerator([8], sizes=[10.0, 20.0], ratios=[[2.0]])
    compiled = torch.compile(lambda x: x + generator([(2, 2)], x.device), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(torch.zeros(16, 4)), generator([(2, 2)], CPU))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sizes": [10.0]}, "1 strides need as many sets of ratios and one size more, not 1 and 1"),
        ({"ratios": []}, "1 strides need as many sets of ratios and one size more, not 0 and 2"),
        ({"sizes": [10.0, 0.0]}, "sizes and ratios must be positive"),
        ({"ratios": [[-2.0]]}, "sizes and ratios must be positive"),
        ({"strides": [0]}, "must be positive"),
    ],
)
def test_bad_arguments(changed, message):
    with pytest.raises(ValueError, match=message):
        PriorGenerator(**{"strides": [8], "sizes": [10.0, 20.0], "ratios": [[2.0]], **changed})


def test_as_many_maps_as_strides():
    with pytest.raises(ValueError, match="sizes has 2 levels, strides 1"):
        PriorGenerator([8], sizes=[10.0, 20.0], ratios=[[2.0]])([(4, 4), (2, 2)], CPU)
