"""Multi-scale deformable attention: by hand, a slow twin cell by cell, gradients, how it starts, padding, bfloat16."""

import math

import pytest
import torch
from torch import Tensor

from rankdet.errors import UserError
from rankdet.models.deformable_attention import DeformableAttention, attend, first_offsets

SIZES = [(3, 5), (2, 3), (1, 1)]  # (height, width) of three levels
NUM_CELLS = 22


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def slow_attend(values: Tensor, sizes, points: Tensor, weights: Tensor) -> Tensor:
    """The four cells about each point, one point at a time; a cell's centre lies half a cell from its edges."""
    batch, _, heads, width = values.shape
    num_queries, num_points = points.shape[1], points.shape[4]
    out = torch.zeros(batch, num_queries, heads, width, dtype=values.dtype)
    for b in range(batch):
        for q in range(num_queries):
            for m in range(heads):
                first = 0
                for level, (h, w) in enumerate(sizes):
                    for k in range(num_points):
                        x, y = (points[b, q, m, level, k] * torch.tensor([w, h]) - 0.5).tolist()
                        for row in (math.floor(y), math.floor(y) + 1):
                            for column in (math.floor(x), math.floor(x) + 1):
                                if 0 <= row < h and 0 <= column < w:
                                    share = (1 - abs(row - y)) * (1 - abs(column - x))
                                    value = values[b, first + row * w + column, m]
                                    out[b, q, m] += weights[b, q, m, level, k] * share * value
                    first += h * w
    return out.flatten(2)


def problem(batch=2, num_queries=4, heads=2, width=3, num_points=2) -> tuple[Tensor, Tensor, Tensor]:
    """Values, points (some outside the maps) and weights of the three levels."""
    torch.manual_seed(0)
    points = torch.rand(batch, num_queries, heads, len(SIZES), num_points, 2, dtype=torch.float64) * 1.6 - 0.3
    weights = random(batch, num_queries, heads, len(SIZES), num_points)
    return random(batch, NUM_CELLS, heads, width), points, weights


def test_by_hand():
    """A map of 2 x 2 cells with values 0, 1 | 2, 3, one head, one channel.

    Its middle is the mean, 1.5; (0.25, 0.25) is the first cell's centre; (1, 0.25) lies half a cell right of the second
    cell, where half of it and half of the zeros beyond the edge count: 0.5. Weighted 1, 2 and 4: 1.5 + 0 + 2 = 3.5.
    """
    values = torch.tensor([0.0, 1, 2, 3]).view(1, 4, 1, 1)
    points = torch.tensor([[0.5, 0.5], [0.25, 0.25], [1.0, 0.25]])
    for point, value in zip(points, (1.5, 0.0, 0.5), strict=True):
        found = attend(values, [(2, 2)], point.view(1, 1, 1, 1, 1, 2), torch.ones(1, 1, 1, 1, 1))
        assert found.item() == pytest.approx(value)
    weights = torch.tensor([1.0, 2, 4]).view(1, 1, 1, 1, 3)
    assert attend(values, [(2, 2)], points.view(1, 1, 1, 1, 3, 2), weights).item() == pytest.approx(3.5)


def test_slow_twin():
    values, points, weights = problem()
    found = attend(values, SIZES, points, weights)
    assert found.shape == (2, 4, 6)
    torch.testing.assert_close(found, slow_attend(values, SIZES, points, weights))
    outside = ((points < 0) | (points > 1)).any(-1)
    assert outside.any()
    assert not outside.all()


def test_gradients():
    values, points, weights = problem(batch=1, num_queries=2)
    inputs = [x.requires_grad_() for x in (values, points, weights)]
    assert torch.autograd.gradcheck(lambda v, p, w: attend(v, SIZES, p, w), inputs)


def enlivened(num_points: int = 2) -> DeformableAttention:
    """Of 8 channels and 2 heads, float64, all of its weights random."""
    torch.manual_seed(1)
    module = DeformableAttention(8, 2, len(SIZES), num_points).double()
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return module


@pytest.mark.parametrize("size", [2, 4])
def test_the_module_by_its_parts(size):
    """Offsets are in cells of their level; of a reference with width and height, K of them reach to half of these."""
    module, queries, tokens = enlivened(), random(2, 4, 8), random(2, NUM_CELLS, 8)
    references = torch.rand(2, 4, len(SIZES), size, dtype=torch.float64)
    padding = torch.rand(2, NUM_CELLS) < 0.3
    found = module(queries, references, tokens, SIZES, padding)
    values = module.value_proj(tokens)
    values[padding] = 0
    offsets = module.sampling_offsets(queries).view(2, 4, 2, 3, 2, 2)
    weights = module.attention_weights(queries).view(2, 4, 2, 6).softmax(-1).view(2, 4, 2, 3, 2)
    points = torch.empty(2, 4, 2, 3, 2, 2, dtype=torch.float64)
    for level, (h, w) in enumerate(SIZES):
        at = references[:, :, None, level, None]
        scale = torch.tensor([1 / w, 1 / h]) if size == 2 else at[..., 2:] / 2 / 2
        points[:, :, :, level] = at[..., :2] + offsets[:, :, :, level] * scale
    expected = module.output_proj(slow_attend(values.view(2, NUM_CELLS, 2, 4), SIZES, points, weights))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_gradients_of_the_module():
    module, tokens = enlivened(1), random(1, NUM_CELLS, 8).requires_grad_()
    queries, references = random(1, 2, 8).requires_grad_(), torch.rand(1, 2, 3, 4, dtype=torch.float64)
    inputs = (queries, references.requires_grad_(), tokens)
    assert torch.autograd.gradcheck(lambda q, r, t: module(q, r, t, SIZES), inputs)


def test_how_it_starts():
    """The paper's A.4: the k-th points of eight heads k cells away in the eight directions, all points count alike."""
    expected = {(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)} - {(0, 0)}
    offsets = first_offsets(8, 4, 4)
    assert offsets.shape == (8, 4, 4, 2)
    for level in range(4):
        for k in range(4):
            assert {
                (round(x, 4) + 0.0, round(y, 4) + 0.0) for x, y in (offsets[:, level, k] / (k + 1)).tolist()
            } == expected
    module = DeformableAttention(32, 8, 4, 4)
    torch.testing.assert_close(module.sampling_offsets(torch.randn(32)).view(8, 4, 4, 2), offsets)
    assert not module.attention_weights(torch.randn(32)).any()
    assert not module.value_proj.bias.any()
    assert not module.output_proj.bias.any()
    six = first_offsets(6, 1, 1)[:, 0, 0]  # any number of heads: all on the square, no two alike
    torch.testing.assert_close(six.abs().amax(1), torch.ones(6))
    assert len(six.unique(dim=0)) == 6


def test_padding_is_as_beyond_the_edge():
    """A map of 3 x 4 at the top left of one of 5 x 6, points moved likewise: what the smaller map gives by itself."""
    small, points, weights = (
        random(1, 12, 1, 2),
        torch.rand(1, 7, 1, 1, 3, 2, dtype=torch.float64) * 1.4 - 0.2,
        random(1, 7, 1, 1, 3),
    )
    large = torch.zeros(1, 5, 6, 1, 2, dtype=torch.float64)
    large[:, :3, :4] = small.view(1, 3, 4, 1, 2)
    moved = points * torch.tensor([4 / 6, 3 / 5], dtype=torch.float64)
    alone = attend(small, [(3, 4)], points, weights)
    torch.testing.assert_close(attend(large.view(1, 30, 1, 2), [(5, 6)], moved, weights), alone)


def test_bfloat16_keeps_the_digits_of_positions():
    """Under autocast a point of 20 000 cells would otherwise fall between two that are 80 apart."""
    torch.manual_seed(0)
    values = torch.randn(1, 20_000, 1, 1)
    points = torch.tensor([12_345.5 / 20_000, 0.5]).view(1, 1, 1, 1, 1, 2)
    with torch.autocast("cpu", torch.bfloat16):
        found = attend(values.bfloat16(), [(1, 20_000)], points, torch.ones(1, 1, 1, 1, 1))
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(values.bfloat16()[0, 12_345].item(), abs=0.02)
    module, references = DeformableAttention(16, 2, 3, 2), torch.rand(1, 5, 3, 2)
    torch.nn.init.normal_(module.sampling_offsets.weight)
    queries, tokens = torch.randn(1, 5, 16), torch.randn(1, NUM_CELLS, 16)
    with torch.autocast("cpu", torch.bfloat16):
        half = module(queries, references, tokens, SIZES)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), module(queries, references, tokens, SIZES), atol=0.05, rtol=0.05)


def test_heads_must_divide_channels():
    with pytest.raises(UserError, match=r"^model\.layers\.num_heads=3 must divide the 16 channels$"):
        DeformableAttention(16, 3, 1, 1)
