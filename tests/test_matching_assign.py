"""From detector output and objects to LossInputs: values by hand and a slow twin over images and anchors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rankdet.data.records import Target
from rankdet.losses.inputs import LossInputs
from rankdet.matching.anchors import AnchorGenerator
from rankdet.matching.assign import build_loss_inputs, covered
from rankdet.matching.boxes import BoxCoder
from rankdet.matching.max_iou import MaxIoUMatcher
from rankdet.models.output import DetectorOutput

ANCHORS = torch.tensor([[0.0, 0, 10, 10], [10, 0, 20, 10], [0, 10, 10, 20], [10, 10, 20, 20]])


def target(*objects: tuple[list[float], int, bool]) -> Target:
    """Objects as (box, label, ignore)."""
    return Target(
        boxes=torch.tensor([box for box, _, _ in objects], dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor([label for _, label, _ in objects], dtype=torch.int64),
        ignore=torch.tensor([ignore for _, _, ignore in objects], dtype=torch.bool),
        image_id=0,
        size=(20, 20),
    )


def detector_output(num_images: int, num_channels: int, anchors: Tensor = ANCHORS) -> DetectorOutput:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(num_images, len(anchors), num_channels, generator=generator, requires_grad=True)
    deltas = torch.randn(num_images, len(anchors), 4, generator=generator, requires_grad=True)
    return DetectorOutput(logits, deltas, anchors, (len(anchors),))


def assign(output: DetectorOutput, targets: list[Target], num_classes: int) -> LossInputs:
    return build_loss_inputs(output, targets, MaxIoUMatcher(), BoxCoder(), num_classes)


def test_by_hand():
    """Four anchors, three classes, two images.

    Image 0: object (0, 0, 10, 10) of class 2 on anchor 0; object (11, 10, 20, 20) of class 0 on anchor 3 (IoU 0.9); a
    region (10, 0, 16, 10) covers 60 % of anchor 1. Image 1: a lone region of exactly half of anchor 0: too little.
    Flat positives: anchor 0, class 2 -> 2; anchor 3, class 0 -> 9.
    """
    output = detector_output(2, 5)
    targets = [
        target(([11, 10, 20, 20], 0, False), ([10, 0, 16, 10], 1, True), ([0, 0, 10, 10], 2, False)),
        target(([0, 0, 5, 10], 1, True)),
    ]
    inputs = assign(output, targets, 3)
    assert inputs.labels.dtype == torch.int8
    assert inputs.labels[0].tolist() == [[0, 0, 1], [-1, -1, -1], [0, 0, 0], [1, 0, 0]]
    assert not inputs.labels[1].any()
    assert inputs.positives.tolist() == [2, 9]
    assert inputs.logits is output.logits
    torch.testing.assert_close(inputs.target_boxes, torch.tensor([[0.0, 0, 10, 10], [11, 10, 20, 20]]))
    torch.testing.assert_close(inputs.pred_deltas, output.deltas[0, [0, 3]])
    # centre (15.5, 15) from (15, 15): 0.5 / 10 / 0.1; width 9 of 10
    expected = torch.tensor([[0.0, 0, 0, 0], [0.5, 0, torch.tensor(0.9).log() / 0.2, 0]])
    torch.testing.assert_close(inputs.target_deltas, expected)
    torch.testing.assert_close(inputs.pred_boxes, BoxCoder().decode(ANCHORS[[0, 3]], output.deltas[0, [0, 3]]))


def test_an_ignored_region_spares_positives():
    """A crowd over everything ignores every anchor but the one that an object has."""
    inputs = assign(
        detector_output(1, 2), [target(([0, 0, 20, 20], 0, True), ([10, 0, 20, 10], 1, False))], num_classes=2
    )
    assert inputs.labels[0].tolist() == [[-1, -1], [0, 1], [-1, -1], [-1, -1]]


def test_between_the_thresholds_an_anchor_is_ignored():
    """Object (0, 0, 10, 20) has IoU 0.5 with anchors 0 and 2: positive. Anchor (0, 0, 10, 4.5) has 0.45."""
    inputs = assign(detector_output(1, 2), [target(([0, 0, 10, 20], 1, False))], 2)
    assert inputs.labels[0].tolist() == [[0, 1], [0, 0], [0, 1], [0, 0]]
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 4.5]])
    inputs = assign(detector_output(1, 2, anchors), [target(([0, 0, 10, 10], 1, False))], 2)
    assert inputs.labels[0].tolist() == [[0, 1], [-1, -1]]


def test_no_objects_at_all():
    output = detector_output(2, 3)
    inputs = assign(output, [target(), target()], 3)
    assert inputs.labels.shape == (2, 4, 3)
    assert not inputs.labels.any()
    assert inputs.positives.shape == (0,)
    assert inputs.positives.dtype == torch.int64
    for boxes in inputs[3:]:
        assert boxes.shape == (0, 4)
    inputs.pred_boxes.sum().backward()
    assert not output.deltas.grad.any()


def test_gradients_reach_the_positives_deltas_only():
    output = detector_output(1, 2)
    inputs = assign(output, [target(([10, 0, 20, 10], 1, False))], 2)
    assert not inputs.target_deltas.requires_grad
    assert not inputs.target_boxes.requires_grad
    inputs.pred_boxes.sum().backward()
    assert output.deltas.grad[0].any(dim=1).tolist() == [False, True, False, False]


def test_half_precision_deltas_give_float32_boxes():
    output = detector_output(1, 2)
    half = output._replace(deltas=output.deltas.bfloat16())
    inputs = assign(half, [target(([10, 0, 20, 10], 1, False))], 2)
    assert inputs.pred_boxes.dtype == torch.float32


def slow_assign(
    anchors: Tensor, targets: list[Target], num_classes: int
) -> tuple[Tensor, list[int], list[list[float]]]:
    """Labels, positives and target boxes by loops; matching itself is MaxIoUMatcher's, tested elsewhere."""
    labels = torch.zeros(len(targets), len(anchors), num_classes, dtype=torch.int8)
    positives, boxes = [], []
    for b, image in enumerate(targets):
        objects = [g for g in range(len(image.boxes)) if not image.ignore[g]]
        matched = MaxIoUMatcher()(anchors, image.boxes[objects])
        for a, anchor in enumerate(anchors.tolist()):
            if matched[a] >= 0:
                g = objects[matched[a]]
                labels[b, a, image.labels[g]] = 1
                positives.append((b * len(anchors) + a) * num_classes + int(image.labels[g]))
                boxes.append(image.boxes[g].tolist())
                continue
            area = (anchor[2] - anchor[0]) * (anchor[3] - anchor[1])
            for g in range(len(image.boxes)):
                x1, y1, x2, y2 = image.boxes[g].tolist()
                width = max(0.0, min(x2, anchor[2]) - max(x1, anchor[0]))
                height = max(0.0, min(y2, anchor[3]) - max(y1, anchor[1]))
                if image.ignore[g] and width * height > 0.5 * area:
                    labels[b, a] = -1
            if matched[a] == -2:
                labels[b, a] = -1
    return labels, positives, boxes


@st.composite
def random_target(draw) -> Target:
    def one() -> tuple[list[float], int, bool]:
        x, y = draw(st.integers(0, 24)), draw(st.integers(0, 24))
        box = [x, y, x + draw(st.integers(1, 24)), y + draw(st.integers(1, 24))]
        return box, draw(st.integers(0, 2)), draw(st.booleans())

    return target(*(one() for _ in range(draw(st.integers(0, 4)))))


@settings(deadline=None, max_examples=60)
@given(st.lists(random_target(), min_size=1, max_size=3))
def test_slow_twin(targets):
    """Integer corners throughout (ratio 1/4 of side 16 is 32 x 8), so that a region of just half an anchor is exact."""
    generator = AnchorGenerator([8, 16], scale=2.0, octave_scales=[1.0], ratios=[0.25, 1.0, 4.0])
    anchors = generator([(4, 4), (2, 2)], torch.device("cpu"))
    output = detector_output(len(targets), 3, anchors)
    inputs = assign(output, targets, 3)
    labels, positives, boxes = slow_assign(anchors, targets, 3)
    assert torch.equal(inputs.labels, labels)
    assert inputs.positives.tolist() == positives == sorted(positives)
    assert inputs.target_boxes.tolist() == boxes
    assert inputs.positives.tolist() == (inputs.labels.reshape(-1) == 1).nonzero().squeeze(1).tolist()
    rows = inputs.positives // 3
    torch.testing.assert_close(inputs.pred_deltas, output.deltas.reshape(-1, 4)[rows])
    decoded = BoxCoder().decode(anchors[rows % len(anchors)], inputs.target_deltas)
    torch.testing.assert_close(decoded, inputs.target_boxes, atol=1e-3, rtol=0)


def test_covered_by_hand():
    """Anchor (0, 0, 10, 10): a region of 51 % covers it, of 50 % does not, nor do two regions of 30 % together."""
    anchor = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    assert covered(anchor, torch.tensor([[-5.0, -5.0, 5.1, 20.0]])).item()
    assert not covered(anchor, torch.tensor([[-5.0, -5.0, 5.0, 20.0]])).item()
    assert not covered(anchor, torch.tensor([[0.0, 0.0, 3.0, 10.0], [7.0, 0.0, 10.0, 10.0]])).item()
    assert not covered(anchor, torch.tensor([[20.0, 20.0, 30.0, 30.0]])).item()
    assert covered(anchor, torch.zeros(0, 4)).tolist() == [False]


class TestOneClass:
    """num_classes=1: object or not."""

    def test_objects_of_all_classes_are_one(self):
        """By hand: objects of classes 2 and 0 on anchors 0 and 3 of image 1; a crowd still spares anchor 1."""
        objects = ([0, 0, 10, 10], 2, False), ([11, 10, 20, 20], 0, False), ([10, 0, 16, 10], 1, True)
        output = detector_output(2, 1)
        inputs = assign(output, [target(), target(*objects)], 1)
        assert inputs.labels[:, :, 0].tolist() == [[0, 0, 0, 0], [1, -1, 0, 1]]
        assert inputs.positives.tolist() == [4, 7]
        torch.testing.assert_close(inputs.pred_deltas, output.deltas[1, [0, 3]])


class TestAnchorsOfEachImage:
    """Anchors [B, A, 4]: a second stage's, which are the first one's proposals."""

    def test_by_hand(self):
        """One object, (0, 0, 10, 10), in both images: it is on anchor 0 of the first, whose anchors are the four cells,
        and on anchor 2 of the second, whose anchors are the same cells backwards but for one."""
        anchors = torch.stack([ANCHORS, ANCHORS[[3, 2, 0, 1]]])
        output = detector_output(2, 2)._replace(anchors=anchors)
        inputs = assign(output, [target(([0, 0, 10, 10], 1, False))] * 2, 2)
        assert inputs.labels.argmax(2).tolist() == [[1, 0, 0, 0], [0, 0, 1, 0]]
        assert inputs.positives.tolist() == [1, 4 * 2 + 2 * 2 + 1]
        assert not inputs.target_deltas.any()
        torch.testing.assert_close(inputs.pred_boxes, BoxCoder().decode(ANCHORS[[0, 0]], output.deltas[[0, 1], [0, 2]]))

    def test_the_same_anchors_for_all_are_as_one_set(self):
        targets = [target(([0, 0, 9, 9], 1, False)), target(), target(([10, 0, 20, 20], 0, False))]
        output = detector_output(3, 2)
        each = output._replace(anchors=ANCHORS.expand(3, 4, 4))
        for ours, theirs in zip(assign(each, targets, 2), assign(output, targets, 2), strict=True):
            assert torch.equal(ours, theirs)

    def test_padding_is_no_matter_of_theirs(self):
        """Proposals lie in no cells: where the image ends, the first stage has seen to."""
        output = detector_output(1, 2)._replace(anchors=ANCHORS[None])
        shown = target()._replace(shown=(10, 10))
        assert not assign(output, [shown], 2).labels.any()

    def test_empty_rows_take_no_part(self):
        """Where an image has fewer proposals than another: rows of zeros, which no object may claim."""
        anchors = torch.stack([ANCHORS, torch.cat([ANCHORS[:1], torch.zeros(3, 4)])])
        part = torch.tensor([[True] * 4, [True, False, False, False]])
        output = detector_output(2, 2)._replace(anchors=anchors, taking_part=part)
        inputs = assign(output, [target(([0, 0, 10, 10], 0, False))] * 2, 2)
        assert inputs.labels[0].tolist() == [[1, 0], [0, 0], [0, 0], [0, 0]]
        assert inputs.labels[1].tolist() == [[1, 0], [-1, -1], [-1, -1], [-1, -1]]
        assert all(bool(values.isfinite().all()) for values in inputs[3:])


class TestTakingPart:
    """taking_part [B, A]: the negatives among which objects are looked for."""

    def test_negatives_left_out_are_ignored_and_positives_stay(self):
        """Anchor 0 has the object though it is left out; of the others 1 takes part."""
        output = detector_output(2, 2)._replace(taking_part=torch.tensor([[False, True, False, False], [True] * 4]))
        inputs = assign(output, [target(([0, 0, 10, 10], 1, False))] * 2, 2)
        assert inputs.labels[0].tolist() == [[0, 1], [0, 0], [-1, -1], [-1, -1]]
        assert inputs.labels[1].tolist() == [[0, 1], [0, 0], [0, 0], [0, 0]]
        assert inputs.positives.tolist() == [1, 9]


class TestBoxesOfEachClass:
    """deltas [B, A, K, 4]."""

    def test_a_positive_s_are_those_of_its_object_s_class(self):
        """Classes 2 and 0 on anchors 0 and 3 of image 1; gradients reach these two rows alone."""
        boxes = torch.randn(2, 4, 3, 4, generator=torch.Generator().manual_seed(1), requires_grad=True)
        output = detector_output(2, 3)._replace(deltas=boxes)
        objects = ([0, 0, 10, 10], 2, False), ([11, 10, 20, 20], 0, False)
        inputs = assign(output, [target(), target(*objects)], 3)
        torch.testing.assert_close(inputs.pred_deltas, boxes[[1, 1], [0, 3], [2, 0]])
        torch.testing.assert_close(inputs.pred_boxes, BoxCoder().decode(ANCHORS[[0, 3]], boxes[[1, 1], [0, 3], [2, 0]]))
        inputs.pred_boxes.sum().backward()
        assert boxes.grad.any(-1).nonzero().tolist() == [[1, 0, 2], [1, 3, 0]]

    def test_without_objects(self):
        boxes = torch.randn(1, 4, 3, 4, requires_grad=True)
        inputs = assign(detector_output(1, 3)._replace(deltas=boxes), [target()], 3)
        assert inputs.pred_deltas.shape == (0, 4)
        inputs.pred_boxes.sum().backward()
        assert not boxes.grad.any()


class TestPadding:
    """Where the image is the top left part of a padded input."""

    def test_anchors_of_cells_in_it_are_ignored(self):
        """Cells of 8 and of 16 pixels in an input of 32 x 32; the image is 17 high and 24 wide.

        Of the first level's 4 x 4 cells three rows (0, 8 and 16 are below 17) and three columns show it; of the second
        one's 2 x 2 cells all (they begin at 0 and 16).
        """
        generator = AnchorGenerator([8, 16], scale=1.0, octave_scales=[1.0], ratios=[1.0])
        anchors = generator([(4, 4), (2, 2)], torch.device("cpu"))
        output = detector_output(2, 1, anchors)._replace(level_sizes=(16, 4))
        inputs = assign(output, [target()._replace(shown=(17, 24)), target()], 1)
        fine = [[0, 0, 0, -1]] * 3 + [[-1] * 4]
        assert inputs.labels[0, :16, 0].reshape(4, 4).tolist() == fine
        assert not inputs.labels[0, 16:].any()
        assert not inputs.labels[1].any()

    def test_an_object_s_anchor_stays_its_own(self):
        """One that reaches to the image's right edge, 12, overlaps the anchor beyond it by half: that is positive."""
        output = detector_output(1, 1)._replace(level_sizes=(4,))
        anchors = torch.tensor([[0.0, 0, 8, 8], [4, 0, 16, 8], [12, 0, 20, 8], [20, 0, 28, 8]])
        shown = target(([6, 0, 12, 8], 0, False))._replace(shown=(8, 12))
        labels = assign(output._replace(anchors=anchors), [shown], 1).labels
        assert labels[0, :, 0].tolist() == [0, 1, -1, -1]

    def test_a_batch_s_images_have_each_their_own(self):
        generator = AnchorGenerator([8], scale=1.0, octave_scales=[1.0], ratios=[1.0])
        anchors = generator([(4, 4)], torch.device("cpu"))
        sizes = [(8, 32), (32, 8), (9, 9), (32, 32), (1, 1)]
        inputs = assign(detector_output(5, 1, anchors), [target()._replace(shown=size) for size in sizes], 1)
        assert (inputs.labels == 0).sum((1, 2)).tolist() == [4, 4, 4, 16, 1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_targets_on_the_cpu_serve_a_model_on_the_gpu():
    output = detector_output(1, 2)
    moved = DetectorOutput(*(x.cuda() for x in output[:3]), output.level_sizes)
    targets = [target(([10, 0, 20, 10], 1, False), ([0, 0, 10, 10], 0, True))]
    for theirs, ours in zip(assign(moved, targets, 2), assign(output, targets, 2), strict=True):
        torch.testing.assert_close(theirs.cpu(), ours)
