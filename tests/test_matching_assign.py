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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_targets_on_the_cpu_serve_a_model_on_the_gpu():
    output = detector_output(1, 2)
    moved = DetectorOutput(*(x.cuda() for x in output[:3]), output.level_sizes)
    targets = [target(([10, 0, 20, 10], 1, False), ([0, 0, 10, 10], 0, True))]
    for theirs, ours in zip(assign(moved, targets, 2), assign(output, targets, 2), strict=True):
        torch.testing.assert_close(theirs.cpu(), ours)
