"""Proposals of hand-made outputs: what is kept, in which order, and what an image without any gets."""

import pytest
import torch
from torch import Tensor
from torchvision.ops import box_iou

from rankdet.errors import UserError
from rankdet.matching.anchors import AnchorGenerator
from rankdet.matching.boxes import BoxCoder
from rankdet.models.output import DetectorOutput
from rankdet.models.proposals import Proposals, padded

SIZE = (64, 96)
CODER = BoxCoder([1.0] * 4)


def output(boxes: list[list[float]], scores: list[float], level_sizes: tuple[int, ...] | None = None) -> DetectorOutput:
    """One image whose anchors are these boxes, with deltas 0."""
    anchors = torch.tensor(boxes, dtype=torch.float32)
    logits = torch.tensor(scores)[None, :, None]
    return DetectorOutput(logits, torch.zeros(1, len(boxes), 4), anchors, level_sizes or (len(boxes),))


def proposed(found: DetectorOutput, training: bool = False, at_least: int = 0, **settings: float) -> list[Tensor]:
    shown = [SIZE] * len(found.logits)
    return Proposals(**settings)(found, CODER, SIZE, shown, training, at_least)


def random_output(seed: int, images: int = 2) -> DetectorOutput:
    """Three levels of anchors with random scores and deltas, some of which leave the image."""
    torch.manual_seed(seed)
    cells = [(8, 12), (4, 6), (2, 3)]
    anchors = AnchorGenerator((8, 16, 32), 2.0, [1.0], [0.5, 1.0, 2.0])(cells, torch.device("cpu"))
    shape = (images, len(anchors))
    return DetectorOutput(torch.randn(*shape, 1), 0.5 * torch.randn(*shape, 4), anchors, (288, 72, 18))


def test_by_falling_score_without_near_duplicates():
    """The second box overlaps the third, better one by 9/11 > 0.7; the fourth overlaps it by 1/2."""
    boxes = [[0, 0, 10, 10], [20, 0, 30, 10], [21, 0, 31, 10], [21, 0, 31, 5]]
    (found,) = proposed(output(boxes, [-3.0, 1.0, 2.0, 0.0]))
    assert found.tolist() == [boxes[2], boxes[3], boxes[0]]
    (found,) = proposed(output(boxes, [-3.0, 1.0, 2.0, 0.0]), nms_iou=0.4)
    assert found.tolist() == [boxes[2], boxes[0]]


def test_levels_do_not_suppress_each_other():
    """The same box on two levels is proposed twice."""
    boxes = [[0, 0, 10, 10], [0, 0, 10, 10]]
    assert len(proposed(output(boxes, [0.0, 1.0]))[0]) == 1
    assert proposed(output(boxes, [0.0, 1.0], (1, 1)))[0].tolist() == boxes


def test_clipped_and_small_boxes_left_out():
    """In an image of 64 x 96: one box beyond its right, one of which 2 pixels are inside, one 0.5 pixels wide."""
    boxes = [[90, 10, 110, 30], [96, 0, 120, 20], [-8, 60, 2, 70], [5, 5, 5.5, 40], [-50, -50, 200, 200]]
    (found,) = proposed(output(boxes, [5.0, 4.0, 3.0, 2.0, 1.0]), min_side=1.0)
    assert found.tolist() == [[90, 10, 96, 30], [0, 60, 2, 64], [0, 0, 96, 64]]


def test_limits_before_and_after_nms():
    """Per level the best two, of all the best three; training has limits of its own, never below at_least."""
    boxes = [[20.0 * i, 0, 20.0 * i + 10, 10] for i in range(4)] + [[20.0 * i, 30, 20.0 * i + 10, 40] for i in range(4)]
    found = output(boxes, [1.0, 2, 3, 4, 0.5, 0.4, 0.3, 0.2], (4, 4))
    limits = {"train_pre_nms_top": 1, "train_post_nms_top": 5, "test_pre_nms_top": 2, "test_post_nms_top": 3}
    assert proposed(found, **limits)[0].tolist() == [boxes[3], boxes[2], boxes[4]]
    assert proposed(found, at_least=9, **limits)[0].tolist() == [boxes[3], boxes[2], boxes[4]]
    assert proposed(found, training=True, **limits)[0].tolist() == [boxes[3], boxes[4]]
    assert len(proposed(found, training=True, at_least=6, **limits)[0]) == 6
    rule = Proposals(**limits)
    assert [rule.most(False), rule.most(False, 9), rule.most(True), rule.most(True, 9)] == [3, 3, 5, 9]


@pytest.mark.parametrize("seed", range(3))
def test_equals_a_slow_twin(seed):
    """Box by box: sort each level, take the best, clip, drop, then greedy suppression, image by image."""
    found = random_output(seed)
    fast = proposed(found, test_pre_nms_top=60, test_post_nms_top=40, nms_iou=0.5, min_side=4.0)
    boxes = CODER.decode(found.anchors, found.deltas)
    for image, ours in enumerate(fast):
        candidates, first = [], 0
        for level, size in enumerate(found.level_sizes):
            scores = found.logits[image, first : first + size, 0]
            for anchor in scores.argsort(descending=True)[:60].tolist():
                x1, y1, x2, y2 = boxes[image, first + anchor].tolist()
                box = [min(max(x1, 0), 96), min(max(y1, 0), 64), min(max(x2, 0), 96), min(max(y2, 0), 64)]
                if min(box[2] - box[0], box[3] - box[1]) >= 4:
                    candidates.append((scores[anchor].item(), level, box))
            first += size
        kept = []
        for score, level, box in sorted(candidates, reverse=True):
            rivals = torch.tensor([other for _, place, other in kept if place == level]).view(-1, 4)
            if not (box_iou(torch.tensor([box]), rivals) > 0.5).any():
                kept.append((score, level, box))
        assert len(kept) > 40
        torch.testing.assert_close(ours, torch.tensor([box for _, _, box in kept[:40]]))


def test_padding_proposes_nothing():
    """A second image shown in the top left 40 x 50: the proposals are those of an input that ends there."""
    found = random_output(4)
    shown = [SIZE, (40, 50)]
    whole, part = Proposals()(found, CODER, SIZE, shown, training=False)
    assert torch.equal(whole, proposed(found)[0])
    cells = [(5, 7), (3, 4), (2, 2)]
    anchors = AnchorGenerator((8, 16, 32), 2.0, [1.0], [0.5, 1.0, 2.0])(cells, torch.device("cpu"))
    rows = [(found.anchors == anchor).all(1).nonzero().item() for anchor in anchors]
    alone = DetectorOutput(found.logits[1:, rows], found.deltas[1:, rows], anchors, (105, 36, 12))
    assert torch.equal(part, Proposals()(alone, CODER, (40, 50), [(40, 50)], training=False)[0])
    assert part[:, 2].max() == 50


def test_none_at_all():
    """Every box too small, or outside, or not a number; half the levels without a cell."""
    boxes = [[0, 0, 10, 10], [200, 200, 210, 210]]
    assert proposed(output(boxes, [0.0, 1.0]), min_side=20.0)[0].shape == (0, 4)
    broken = output(boxes, [0.0, 1.0])._replace(deltas=torch.full((1, 2, 4), torch.nan))
    assert proposed(broken)[0].shape == (0, 4)
    assert len(proposed(output(boxes, [0.0, 1.0], (0, 2, 0)))[0]) == 1


def test_scores_that_are_no_numbers_end_nothing():
    found = output([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]], [torch.nan, 1.0, -torch.inf])
    assert [20, 0, 30, 10] in proposed(found)[0].tolist()


def test_no_gradient_and_full_precision():
    found = random_output(0)
    half = found._replace(logits=found.logits.bfloat16().requires_grad_(), deltas=found.deltas.bfloat16())
    for boxes in proposed(half):
        assert boxes.dtype == torch.float32
        assert not boxes.requires_grad


def test_padded():
    """Images of two, no and three boxes, in four rows."""
    boxes = [torch.ones(2, 4), torch.zeros(0, 4), torch.ones(3, 4)]
    whole, taking_part = padded(boxes, 4)
    assert whole.shape == (3, 4, 4)
    assert taking_part.tolist() == [[True] * 2 + [False] * 2, [False] * 4, [True] * 3 + [False]]
    assert torch.equal(whole, taking_part[..., None].expand(-1, -1, 4).float())


@pytest.mark.parametrize(
    ("key", "value"),
    [("train_pre_nms_top", 0), ("test_post_nms_top", -1), ("nms_iou", 0.0), ("nms_iou", 1.5), ("min_side", 0.0)],
)
def test_bad_settings(key, value):
    with pytest.raises(UserError, match=rf"^model\.proposals\.{key}={value}: must"):
        Proposals(**{key: value})
