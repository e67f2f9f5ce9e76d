"""The one-to-one matching: costs by hand, all assignments tried, who is left over, and where it is not to be had."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import generalized_box_iou

from rankdet.data.records import Target
from rankdet.errors import UserError
from rankdet.matching.assign import Predictions, build_loss_inputs
from rankdet.matching.hungarian import HungarianMatcher
from rankdet.matching.unit_boxes import UnitBoxCoder
from rankdet.models.output import DetectorOutput

CODER = UnitBoxCoder()
IMAGE = torch.tensor([[0.0, 0, 100, 100]])


def predictions(scores: Tensor, boxes: Tensor) -> Predictions:
    """Of an image of 100 x 100."""
    return Predictions(scores, CODER.encode(IMAGE, boxes), boxes)


def match(matcher: HungarianMatcher, scores: Tensor, boxes: Tensor, objects: Tensor, classes: list[int]) -> list[int]:
    deltas = CODER.encode(IMAGE, objects).expand(len(boxes), -1, -1)
    return matcher.by_prediction(predictions(scores, boxes), objects, torch.tensor(classes), deltas).tolist()


def test_costs_by_hand():
    """One query of scores 0.8 and 0.5 on (0, 0, 50, 100), two objects of classes 0 and 1: the box itself, and the other
    half of the image.

    Class 0: 0.25 * 0.2^2 * -ln 0.8 - 0.75 * 0.8^2 * -ln 0.2. Class 1: (0.25 - 0.75) * 0.25 * -ln 0.5. The second
    object's centre lies half the image away, so L1 is 0.5; no overlap, hull full, so GIoU is 0. The first one's GIoU is
    1.
    """
    boxes, objects = torch.tensor([[0.0, 0, 50, 100]]), torch.tensor([[0.0, 0, 50, 100], [50, 0, 100, 100]])
    predicted = predictions(torch.tensor([[0.8, 0.5]]), boxes)
    deltas = CODER.encode(IMAGE, objects)[None]
    found = HungarianMatcher().costs(predicted, objects, torch.tensor([0, 1]), deltas)
    of_class = [-0.25 * 0.04 * math.log(0.8) + 0.75 * 0.64 * math.log(0.2), 0.5 * 0.25 * math.log(0.5)]
    assert found[0].tolist() == pytest.approx([2 * of_class[0] - 2, 2 * of_class[1] + 5 * 0.5 - 0], abs=1e-5)
    other = HungarianMatcher(0.0, 3.0, 1.0).costs(predicted, objects, torch.tensor([0, 1]), deltas)
    assert other[0].tolist() == pytest.approx([-1.0, 1.5], abs=1e-5)


def test_the_least_sum_and_not_each_one_s_best():
    """Both objects are nearest to query 0; apart they cost less if the first takes query 2, 10 away instead of 0."""
    queries = torch.tensor([[40.0, 40, 60, 60], [0, 0, 20, 20], [50, 40, 70, 60]])
    objects = torch.tensor([[44.0, 40, 64, 60], [36, 40, 56, 60]])
    scores = torch.full((3, 1), 0.5)
    assert match(HungarianMatcher(0.0, 1.0, 0.0), scores, queries, objects, [0, 0]) == [1, -1, 0]


def test_the_class_decides_between_equal_boxes():
    queries = torch.tensor([[10.0, 10, 30, 30]] * 3)
    scores = torch.tensor([[0.2, 0.7], [0.6, 0.1], [0.3, 0.3]])
    assert match(HungarianMatcher(), scores, queries, queries[:2], [1, 0]) == [0, 1, -1]


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 6), st.integers(0, 4), st.integers(0, 10_000))
def test_every_assignment_tried(num_queries, num_objects, seed):
    generator = torch.Generator().manual_seed(seed)
    num_objects = min(num_objects, num_queries)

    def boxes(count: int) -> Tensor:
        corners = 60 * torch.rand(count, 2, generator=generator)
        return torch.cat([corners, corners + 5 + 30 * torch.rand(count, 2, generator=generator)], dim=1)

    queries, objects = boxes(num_queries), boxes(num_objects)
    scores = torch.rand(num_queries, 3, generator=generator)
    classes = torch.randint(0, 3, (num_objects,), generator=generator)
    matched = match(HungarianMatcher(), scores, queries, objects, classes.tolist())
    assert sorted(index for index in matched if index >= 0) == list(range(num_objects))
    if num_objects == 0:
        return
    p, deltas = scores[:, classes], CODER.encode(IMAGE, objects)
    focal = -0.25 * (1 - p) ** 2 * p.log() + 0.75 * p**2 * (1 - p).log()
    distance = torch.cdist(CODER.encode(IMAGE, queries), deltas, p=1)
    costs = 2 * focal + 5 * distance - 2 * generalized_box_iou(queries, objects)
    best = min(
        sum(costs[q, g].item() for g, q in enumerate(chosen))
        for chosen in itertools.permutations(range(num_queries), num_objects)
    )
    found = sum(costs[q, g].item() for q, g in enumerate(matched) if g >= 0)
    assert found == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize(
    "settings", [{"class_weight": -1.0}, {"class_weight": 0.0, "l1_weight": 0.0, "giou_weight": 0.0}, {"alpha": 2.0}]
)
def test_what_is_refused(settings):
    with pytest.raises(ValueError, match="must"):
        HungarianMatcher(**settings)


class TestLossInputs:
    """What losses see of queries."""

    @staticmethod
    def output(num_images: int, num_queries: int, num_channels: int = 2) -> DetectorOutput:
        torch.manual_seed(0)
        logits = torch.randn(num_images, num_queries, num_channels, requires_grad=True)
        deltas = (torch.rand(num_images, num_queries, 4) * 0.5 + 0.2).requires_grad_()
        return DetectorOutput(logits, deltas, IMAGE.expand(num_images, num_queries, 4), (num_queries,))

    @staticmethod
    def target(boxes: list[list[float]], labels: list[int], ignore: list[bool] | None = None) -> Target:
        flags = torch.tensor(ignore or [False] * len(labels), dtype=torch.bool)
        objects = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        return Target(objects, torch.tensor(labels, dtype=torch.int64), flags, 7, (100, 100))

    def test_one_query_an_object(self):
        """Image 0 has none, image 1 two; deltas are shares of the image, and gradients reach these queries' boxes."""
        output = self.output(2, 5)
        targets = [self.target([], []), self.target([[0, 0, 40, 40], [50, 50, 90, 70]], [1, 0])]
        inputs = build_loss_inputs(output, targets, HungarianMatcher(), CODER, 2)
        assert inputs.labels.sum((1, 2)).tolist() == [0, 2]
        assert inputs.labels.sum(1)[1].tolist() == [1, 1]
        assert (inputs.labels >= 0).all()
        order = inputs.target_boxes[:, 0].argsort()
        expected = torch.tensor([[0.2, 0.2, 0.4, 0.4], [0.7, 0.6, 0.4, 0.2]])
        torch.testing.assert_close(inputs.target_deltas[order], expected)
        torch.testing.assert_close(inputs.pred_boxes, CODER.decode(IMAGE, inputs.pred_deltas))
        inputs.pred_boxes.sum().backward()
        assert (output.deltas.grad.any(2) == (inputs.labels == 1).any(2)).all()

    def test_ignored_objects_are_left_out(self):
        """Even one as large as the image, each query's anchor: all but the object's query are background."""
        whole = self.target([[0, 0, 100, 100], [10, 10, 30, 30]], [0, 1], [True, False])
        inputs = build_loss_inputs(self.output(1, 4), [whole], HungarianMatcher(), CODER, 2)
        assert inputs.labels.sum() == 1
        assert inputs.target_boxes.tolist() == [[10, 10, 30, 30]]
        assert (inputs.labels >= 0).all()

    def test_scores_are_the_loss_s(self):
        """Three channels, the last of background: by the softmax query 1 is the surest of class 0, by the sigmoid 0."""
        output = self.output(1, 2, 3)
        logits = torch.tensor([[[2.0, 0, 9], [1, 0, -9]]])
        output = output._replace(logits=logits, deltas=torch.full((1, 2, 4), 0.5))
        target = self.target([[25, 25, 75, 75]], [0])

        def softmax(logits: Tensor) -> Tensor:
            return logits.softmax(-1)[..., :-1]

        for probabilities, query in ((softmax, 1), (torch.sigmoid, 0)):
            inputs = build_loss_inputs(output, [target], HungarianMatcher(), CODER, 2, probabilities)
            assert inputs.positives.tolist() == [2 * query]

    def test_one_class(self):
        target = self.target([[0, 0, 40, 40], [50, 50, 90, 70]], [1, 0])
        inputs = build_loss_inputs(self.output(1, 3, 1), [target], HungarianMatcher(), CODER, 1)
        assert inputs.labels.sum().item() == 2

    def test_as_many_objects_as_queries_and_one_more(self):
        boxes = [[10.0 * i, 0, 10 * i + 10, 20] for i in range(4)]
        output = self.output(1, 3)
        inputs = build_loss_inputs(output, [self.target(boxes[:3], [0, 1, 0])], HungarianMatcher(), CODER, 2)
        assert (inputs.labels == 1).any(2).all()
        with pytest.raises(
            UserError, match=r"^image 7 has 4 objects, more than the model's 3 queries: raise model\.num"
        ):
            build_loss_inputs(output, [self.target(boxes, [0, 1, 0, 1])], HungarianMatcher(), CODER, 2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_the_gpu():
    queries = torch.tensor([[10.0, 10, 30, 30], [50, 50, 80, 90]])
    predicted = Predictions(*(x.cuda() for x in predictions(torch.full((2, 1), 0.5), queries)))
    objects = queries.flip(0).cuda()
    deltas = CODER.encode(IMAGE.cuda(), objects).expand(2, -1, -1)
    classes = torch.zeros(2, dtype=torch.int64, device="cuda")
    assert HungarianMatcher().by_prediction(predicted, objects, classes, deltas).tolist() == [1, 0]
