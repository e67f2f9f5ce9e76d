"""DeepFool where the smallest perturbation is known: linear functions, a sphere, and linear toy detectors."""

import math

import pytest
import torch
from torch import nn

from rankdet.matching.boxes import BoxCoder
from rankdet.models.output import DetectorOutput
from rankdet.robustness.deepfool import deepfool
from rankdet.robustness.fooling import BestDetections, best_detections, fool_detector, operating_point

CLOSE = 1e-3  # the perturbation is shortened to within this of the boundary, from outside


def linear(weights, bias):
    return lambda images, rows: images.flatten(1) @ weights.T + bias


def test_two_values_by_hand():
    """F = (x, 3 - y) at (5, 1): 5 against 2, w = grad (F_1 - F_0) = (-1, -1): 3 / sqrt 2 away, at (3.5, -0.5)."""
    decide = linear(torch.tensor([[1.0, 0.0], [0.0, -1.0]]), torch.tensor([0.0, 3.0]))
    found = deepfool(decide, torch.tensor([[5.0, 1.0]]))
    assert found.success.tolist() == [True]
    assert found.norms.item() == pytest.approx(3 / math.sqrt(2), rel=CLOSE)
    assert found.perturbations[0].tolist() == pytest.approx([-1.5, -1.5], rel=CLOSE)


def test_linear_functions_in_closed_form():
    """The least norm over all other values k of (F_c - F_k) / |w_c - w_k|, in one step; images shaped as images."""
    generator = torch.Generator().manual_seed(0)
    weights, bias = torch.randn(5, 3 * 4 * 6, generator=generator), torch.randn(5, generator=generator)
    images = torch.randn(40, 3, 4, 6, generator=generator)
    values = linear(weights, bias)(images, None)
    decided = values.argmax(1)
    gaps = values.max(1).values[:, None] - values
    lengths = (weights[decided][:, None] - weights).norm(dim=2)
    expected = torch.where(gaps > 0, gaps / lengths, torch.inf).min(1).values
    found = deepfool(linear(weights, bias), images, max_steps=1)
    assert found.success.all()
    assert found.norms.tolist() == pytest.approx(expected.tolist(), rel=CLOSE)
    assert found.perturbations.flatten(1).norm(dim=1).tolist() == pytest.approx(found.norms.tolist())
    assert (linear(weights, bias)(images + found.perturbations, None).argmax(1) != decided).all()


def test_fewer_rivals_look_at_the_largest_only():
    """F at 0 is (2, 1, 0): distances 1 / 1 to the second, 2 / 10 to the third, which is last in size."""
    decide = linear(torch.tensor([[0.0], [1.0], [-10.0]]), torch.tensor([2.0, 1.0, 0.0]))
    near, all_of_them = (deepfool(decide, torch.zeros(1, 1), num_rivals=number).norms.item() for number in (1, 2))
    assert near == pytest.approx(1.0, rel=CLOSE)
    assert all_of_them == pytest.approx(0.2, rel=CLOSE)


def test_a_step_too_far_is_taken_back():
    """F = (1, |x|^2 / 4): the boundary is the sphere of radius 2, from (0.5, 0, 0) 1.5 away; the slope there is 1/4, so
    that the first step is 15/16 * 4 = 3.75 long."""
    decide = lambda x, rows: torch.stack([torch.ones(len(x)), x.square().sum(1) / 4], 1)  # noqa: E731
    found = deepfool(decide, torch.eye(3)[:1] / 2)
    assert found.success.tolist() == [True]
    assert 1.5 <= found.norms.item() <= 1.5 + 3.75 * 1.02 / 1024
    assert found.perturbations[0, 1:].tolist() == [0, 0]


def test_several_steps_where_the_slope_falls():
    """F = (2, sqrt x): from 1 the boundary 4 is 3 away; Newton's steps fall short of it, 2 at first."""
    one_step = deepfool(lambda x, rows: torch.cat([x * 0 + 2, x.sqrt()], 1), torch.ones(1, 1), max_steps=1)
    assert one_step.success.tolist() == [False]
    assert one_step.norms.item() == pytest.approx(2 * 1.02)
    found = deepfool(lambda x, rows: torch.cat([x * 0 + 2, x.sqrt()], 1), torch.ones(1, 1))
    assert found.success.tolist() == [True]
    assert found.norms.item() == pytest.approx(3, rel=CLOSE)


def test_what_cannot_be_fooled_ends():
    """Constant values, and one rival at -inf: no step; a bounded rival: as many steps as allowed."""
    constant = deepfool(lambda x, rows: torch.cat([x[:, :1] * 0 + 1, x[:, :1] * 0], 1), torch.ones(2, 3))
    assert constant.success.tolist() == [False, False]
    assert constant.norms.tolist() == [0, 0]
    nothing = torch.tensor([[-math.inf]])
    alone = deepfool(lambda x, rows: torch.cat([x[:, :1], nothing.expand(len(x), 1)], 1), torch.ones(1, 3))
    assert alone.success.tolist() == [False]
    assert alone.norms.isfinite().all()
    bounded = deepfool(
        lambda x, rows: torch.cat([x[:, :1] * 0 + 2, x[:, :1].tanh()], 1), torch.zeros(1, 1), max_steps=3
    )
    assert bounded.success.tolist() == [False]
    assert bounded.norms.item() > 0


def test_images_do_not_affect_each_other():
    """A hard, an easy and an impossible image in one batch give what each gives alone; rows say which is which."""
    scale = torch.tensor([1.0, 0.05, 0.0])

    def decide(images, rows):
        return torch.stack([torch.ones(len(images)), scale[rows] * images.square().sum(1)], 1)

    images = torch.tensor([[0.5, 0.1], [0.3, 0.3], [1.0, 1.0]])
    together = deepfool(decide, images)
    assert together.success.tolist() == [True, True, False]
    for row in range(3):
        alone = deepfool(lambda x, rows, row=row: decide(x, torch.full_like(rows, row)), images[row : row + 1])
        assert torch.equal(alone.perturbations[0], together.perturbations[row])


class ToyModel(nn.Module):
    """Logits linear in the pixels of 1 x 2 images of 3 channels; anchors far apart, or in one place."""

    coder = BoxCoder()

    def __init__(self, weights, bias, anchors):
        super().__init__()
        self.weights, self.bias, self.anchor_boxes = weights, bias, anchors  # [A, C, 6], [A, C], [A, 4]

    def forward(self, images):
        logits = torch.einsum("bp,acp->bac", images.flatten(1), self.weights) + self.bias
        deltas = torch.zeros(len(images), len(self.anchor_boxes), 4)
        return DetectorOutput(logits, deltas, self.anchor_boxes, (len(self.anchor_boxes),))


class Toy:
    def __init__(self, weights, bias, apart=False, softmax=False):
        shift = 50.0 * torch.arange(len(bias))[:, None] * apart
        self.model = ToyModel(weights, bias, torch.tensor([[0.0, 0.0, 10.0, 10.0]]) + shift)
        self.softmax = softmax

    def probabilities(self, logits):
        return logits.softmax(-1)[..., :-1] if self.softmax else logits.sigmoid()


def fooled(toy, images, threshold):
    return fool_detector(toy, images, best_detections(toy, images), threshold)


def test_a_detection_that_one_anchor_makes():
    """Logit x_0 (of 6 values) - 1 at x_0 = 5, threshold 1/2, whose logit is 0: removed 4 away. Class 2's logit: -9."""
    weights, bias = torch.zeros(1, 2, 6), torch.tensor([[-1.0, -9.0]])
    weights[0, 0, 0] = 1
    image = torch.zeros(1, 3, 1, 2)
    image[0, 0, 0, 0] = 5
    toy = Toy(weights, bias)
    best = best_detections(toy, image)
    assert best.classes.tolist() == [0]
    assert best.scores.item() == pytest.approx(torch.tensor(4.0).sigmoid().item())
    found = fooled(toy, image, 0.5)
    assert found.norms.item() == pytest.approx(4, rel=CLOSE)
    assert found.perturbations.flatten().tolist() == pytest.approx([-4, 0, 0, 0, 0, 0], rel=CLOSE, abs=1e-4)
    lower = fooled(toy, image, 0.1).norms.item()  # the threshold's logit is -log 9: so much further
    assert lower == pytest.approx(4 + math.log(9), rel=CLOSE)


def test_turning_may_be_nearer_than_removing():
    """Logits 4 + x_0 and 3 - x_0, threshold 1/2: removing is 4 away, turning (4 - 3) / 2."""
    weights, bias = torch.zeros(1, 2, 6), torch.tensor([[4.0, 3.0]])
    weights[0, :, 0] = torch.tensor([1.0, -1.0])
    found = fooled(Toy(weights, bias), torch.zeros(1, 3, 1, 2), 0.5)
    assert found.norms.item() == pytest.approx(1 / 2, rel=CLOSE)


def test_all_anchors_of_the_object_have_to_fall():
    """Logits 4 + x_0 and 3 + x_1 in one place: both below 0 is sqrt(4^2 + 3^2) away. Far apart: 4, the best alone."""
    weights, bias = torch.zeros(2, 1, 6), torch.tensor([[4.0], [3.0]])
    weights[0, 0, 0] = weights[1, 0, 1] = 1
    image = torch.zeros(1, 3, 1, 2)
    one_object, two_objects = Toy(weights, bias), Toy(weights, bias, apart=True)
    assert best_detections(one_object, image).anchors.tolist() == [[True, True]]
    assert best_detections(two_objects, image).anchors.tolist() == [[True, False]]
    assert fooled(one_object, image, 0.5).norms.item() == pytest.approx(5, rel=CLOSE)
    assert fooled(two_objects, image, 0.5).norms.item() == pytest.approx(4, rel=CLOSE)


def test_a_softmax_head_is_no_other_case():
    """One class and background: the logit of softmax's p is z_0 - z_1 = 6 - 2 x_0, so at x_0 = 0 p = 1/2 is 3 away."""
    weights, bias = torch.zeros(1, 2, 6), torch.tensor([[6.0, 0.0]])
    weights[0, :, 0] = torch.tensor([-1.0, 1.0])
    found = fooled(Toy(weights, bias, softmax=True), torch.zeros(1, 3, 1, 2), 0.5)
    assert found.norms.item() == pytest.approx(3, rel=CLOSE)


def test_a_score_below_the_threshold_is_no_detection():
    toy = Toy(torch.zeros(1, 1, 6), torch.tensor([[-3.0]]))
    image = torch.zeros(1, 3, 1, 2)
    best = best_detections(toy, image)
    with pytest.raises(ValueError, match="best"):
        fool_detector(toy, image, best, 0.5)
    assert isinstance(best, BestDetections)


@pytest.mark.parametrize(
    ("verdicts", "num_objects", "threshold"),
    [
        # F1 after 1, 2, 3, 4: 2/5, 4/6, 4/7, 6/8: all are kept, down to half of 0.2
        ([(0.9, True), (0.2, True), (0.8, True), (0.5, False)], 4, 0.1),
        # 2/3, 2/4, 2/5: the first alone
        ([(0.9, True), (0.8, False), (0.6, False)], 2, 0.85),
        # the two at 0.7 go together: after 1: 2/4; after 3: 4/6
        ([(0.9, True), (0.7, False), (0.7, True)], 3, 0.35),
        ([(0.9, False)], 2, 1.0),
        ([], 0, 1.0),
    ],
)
def test_the_operating_point_by_hand(verdicts, num_objects, threshold):
    assert operating_point(verdicts, num_objects) == pytest.approx(threshold)
