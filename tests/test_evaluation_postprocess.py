"""Detections from a detector's output: threshold, top k of a level, NMS, pixels of the image file, bad numbers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from rankdet.data.records import Target
from rankdet.errors import UserError
from rankdet.evaluation.postprocess import Candidates, Detections, PostProcess, laxest, pool
from rankdet.matching.boxes import BoxCoder
from rankdet.models.output import DetectorOutput


class ShiftCoder:
    """Deltas that are simply added to the anchor's corners; counts what it decodes."""

    def __init__(self):
        self.decoded = 0

    def decode(self, anchors, deltas):
        self.decoded += len(deltas)
        return anchors + deltas


def output_of(boxes, num_images=1, level_sizes=None):
    anchors = torch.as_tensor(boxes, dtype=torch.float32)
    num = len(anchors)
    return DetectorOutput(
        torch.zeros(num_images, num, 1), torch.zeros(num_images, num, 4), anchors, level_sizes or (num,)
    )


def targets_of(image_sizes, ids=None, shown=None, mirrored=False):
    """Targets without objects for image files of these sizes."""
    none = torch.zeros(0)
    return [
        Target(none.view(0, 4), none.long(), none.bool(), ids[i] if ids else i, size, shown and shown[i], mirrored)
        for i, size in enumerate(image_sizes)
    ]


def run(postprocess, boxes, scores, input_size=(100, 100), image_sizes=((100, 100),), level_sizes=None, **where):
    scores = torch.as_tensor(scores, dtype=torch.float32)
    output = output_of(boxes, len(scores), level_sizes)
    return detect_all(postprocess, output, scores, ShiftCoder(), input_size, targets_of(image_sizes, **where))


def detect_all(postprocess, *inputs):
    """Of images in one view each."""
    return [postprocess.select(found) for found in postprocess.candidates(*inputs)]


def test_nms_works_class_by_class():
    """Boxes 0 and 1 overlap by 90 / 110 = 0.82 and box 2 lies apart.

    In class 0 box 1 (0.8) goes, because box 0 scores 0.9; in class 1 box 0 (0.3) goes, because box 1 scores 0.7.
    """
    boxes = [[0, 0, 10, 10], [0, 1, 10, 11], [50, 50, 60, 60]]
    (found,) = run(PostProcess(), boxes, [[[0.9, 0.3], [0.8, 0.7], [0.005, 0.6]]])
    assert found.scores.tolist() == pytest.approx([0.9, 0.7, 0.6])
    assert found.labels.tolist() == [0, 1, 1]
    assert found.boxes.tolist() == [boxes[0], boxes[1], boxes[2]]


def test_nms_keeps_an_overlap_of_exactly_the_limit():
    """[0, 0, 10, 10] and [0, 0, 10, 5] share 50 of 100 square pixels: not more than 0.5, but more than 0.49."""
    boxes = [[0, 0, 10, 10], [0, 0, 10, 5]]
    scores = [[[0.9], [0.8]]]
    assert len(run(PostProcess(nms_iou=0.5), boxes, scores)[0].scores) == 2
    assert len(run(PostProcess(nms_iou=0.49), boxes, scores)[0].scores) == 1


def test_quota_is_filled_from_far_down_the_list():
    """Forty copies of one box score highest; the second of two detections is the 41st candidate."""
    boxes = [[0, 0, 10, 10]] * 40 + [[50, 50, 60, 60], [80, 80, 90, 90]]
    scores = torch.linspace(0.9, 0.1, 42).reshape(1, 42, 1)
    (found,) = run(PostProcess(detections=2), boxes, scores)
    assert found.boxes.tolist() == [[0, 0, 10, 10], [50, 50, 60, 60]]


def test_threshold_is_strict_and_quota_takes_the_best():
    boxes = [[20 * i, 0, 20 * i + 10, 10] for i in range(4)]
    scores = [[[0.25], [0.75], [0.5], [0.6]]]
    (found,) = run(PostProcess(score_threshold=0.25), boxes, scores)
    assert found.scores.tolist() == pytest.approx([0.75, 0.6, 0.5])
    (found,) = run(PostProcess(detections=2), boxes, scores)
    assert found.scores.tolist() == pytest.approx([0.75, 0.6])


def test_top_k_is_taken_per_level():
    """With two pairs a level: 0.9, 0.8 of the first level and 0.3, 0.2 of the second, though 0.7 is higher than 0.3."""
    boxes = [[20 * i, 0, 20 * i + 10, 10] for i in range(5)]
    scores = [[[0.7], [0.8], [0.9], [0.3], [0.2]]]
    (found,) = run(PostProcess(pre_nms_top=2), boxes, scores, level_sizes=(3, 2))
    assert found.scores.tolist() == pytest.approx([0.9, 0.8, 0.3, 0.2])
    assert found.boxes[:, 0].tolist() == [40, 20, 60, 80]


def test_top_k_counts_pairs_of_anchor_and_class():
    """Two pairs of one level may belong to one anchor: 0.9 and 0.8 of anchor 1, so anchor 0's 0.7 is out."""
    boxes = [[0, 0, 10, 10], [20, 0, 30, 10]]
    (found,) = run(PostProcess(pre_nms_top=2), boxes, [[[0.7, 0.1], [0.9, 0.8]]])
    assert found.labels.tolist() == [0, 1]
    assert found.boxes[:, 0].tolist() == [20, 20]


def test_boxes_come_back_in_pixels_of_each_image_file_and_are_clipped():
    """The input is 100 high and 200 wide. Image 0 is half as wide (x / 2), image 1 is twice as large in both."""
    boxes = [[20, 10, 60, 50], [-10, 90, 20, 130]]
    scores = [[[0.9], [0.8]], [[0.9], [0.8]]]
    first, second = run(PostProcess(), boxes, scores, (100, 200), [(100, 100), (200, 400)])
    assert first.boxes.tolist() == [[10, 10, 30, 50], [0, 90, 10, 100]]
    assert second.boxes.tolist() == [[40, 20, 120, 100], [0, 180, 40, 200]]


def test_boxes_without_area_in_the_image_are_dropped():
    boxes = [[120, 0, 140, 10], [30, 30, 30, 40], [50, 50, 40, 60], [0, 0, 5, 5]]
    (found,) = run(PostProcess(), boxes, [[[0.9], [0.8], [0.7], [0.6]]])
    assert found.boxes.tolist() == [[0, 0, 5, 5]]


def test_nothing_above_the_threshold_gives_empty_detections_with_shapes():
    first, second = run(PostProcess(), [[0, 0, 10, 10]], [[[0.005, 0.0]], [[0.005, 0.9]]], image_sizes=[(100, 100)] * 2)
    assert [tuple(values.shape) for values in first] == [(0, 4), (0,), (0,)]
    assert first.labels.dtype == torch.int64
    assert second.labels.tolist() == [1]


def test_only_candidates_are_decoded():
    coder = ShiftCoder()
    output = output_of([[20 * i, 0, 20 * i + 10, 10] for i in range(5)])
    scores = torch.tensor([0.9, 0.0, 0.0, 0.8, 0.0]).reshape(1, 5, 1)
    detect_all(PostProcess(), output, scores, coder, (100, 100), targets_of([(100, 100)]))
    assert coder.decoded == 2


def test_deltas_of_the_right_image_and_anchor_are_used():
    output = output_of([[0, 0, 10, 10], [20, 20, 30, 30]], num_images=2)
    output.deltas[1, 1] = 5.0
    scores = torch.tensor([[[0.9], [0.0]], [[0.0], [0.9]]])
    first, second = detect_all(PostProcess(), output, scores, ShiftCoder(), (100, 100), targets_of([(100, 100)] * 2))
    assert first.boxes.tolist() == [[0, 0, 10, 10]]
    assert second.boxes.tolist() == [[25, 25, 35, 35]]


def test_half_precision_scores_are_taken():
    output = output_of([[0, 0, 10, 10]])
    half = DetectorOutput(output.logits.bfloat16(), output.deltas.bfloat16(), output.anchors, output.level_sizes)
    scores = torch.tensor([[[0.5]]], dtype=torch.bfloat16)
    (found,) = detect_all(PostProcess(), half, scores, ShiftCoder(), (20, 20), targets_of([(20, 20)]))
    assert found.scores.dtype == found.boxes.dtype == torch.float32


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_name_their_images(bad):
    scores = [[[0.9]], [[bad]], [[bad]]]
    sizes = [(10, 10)] * 3
    with pytest.raises(FloatingPointError, match=r"scores .* in image 31, 32$"):
        run(PostProcess(), [[0, 0, 5, 5]], scores, image_sizes=sizes, ids=[30, 31, 32])
    with pytest.raises(FloatingPointError, match=r"scores .* in image 1, 2$"):
        run(PostProcess(), [[0, 0, 5, 5]], scores, image_sizes=sizes)


def test_boxes_that_are_not_finite_name_their_image():
    output = output_of([[0, 0, 10, 10], [20, 20, 30, 30]], num_images=2)
    output.deltas[1, 0, 2] = float("nan")
    scores = torch.full((2, 2, 1), 0.5)
    with pytest.raises(FloatingPointError, match=r"boxes .* in image 8$"):
        detect_all(PostProcess(), output, scores, ShiftCoder(), (50, 50), targets_of([(50, 50)] * 2, ids=[7, 8]))


@pytest.mark.parametrize(
    ("setting", "value"),
    [("score_threshold", 1.0), ("score_threshold", -0.1), ("nms_iou", 0.0), ("pre_nms_top", 0), ("detections", 0)],
)
def test_settings_out_of_range_are_named(setting, value):
    with pytest.raises(UserError, match=rf"evaluation\.{setting}"):
        PostProcess(**{setting: value})


def slow_twin(postprocess, output, scores, coder, input_size, image_size):
    """One image, pair by pair in plain Python, suppressing the whole list instead of its head."""
    pairs, first = [], 0
    for size in output.level_sizes:
        level = [(scores[a, k].item(), a, k) for a in range(first, first + size) for k in range(scores.shape[1])]
        pairs += sorted(level, reverse=True)[: postprocess.pre_nms_top]
        first += size
    kept = []
    for score, a, k in sorted(pairs, reverse=True):
        box = coder.decode(output.anchors[a : a + 1], output.deltas[0, a : a + 1])[0]
        x1, x2 = (min(max(x.item() * image_size[1] / input_size[1], 0), image_size[1]) for x in (box[0], box[2]))
        y1, y2 = (min(max(y.item() * image_size[0] / input_size[0], 0), image_size[0]) for y in (box[1], box[3]))
        box = torch.tensor([[x1, y1, x2, y2]])
        rivals = [other for _, other, label in kept if label == k]
        alone = not rivals or box_iou(box, torch.cat(rivals)).max() <= postprocess.nms_iou
        if score > postprocess.score_threshold and x1 < x2 and y1 < y2 and alone:
            kept.append((score, box, k))
    return kept[: postprocess.detections]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), detections=st.sampled_from([1, 3, 10, 100]), top=st.sampled_from([5, 20, 1000]))
def test_agrees_with_a_slow_twin(seed, detections, top):
    """Small quotas make the looked-at head grow several times."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(40, 2, generator=generator) * 60
    anchors = torch.cat([corners, corners + 15 + torch.rand(40, 2, generator=generator) * 25], 1)
    deltas = torch.randn(1, 40, 4, generator=generator)
    output = DetectorOutput(torch.zeros(1, 40, 3), deltas, anchors, (28, 12))
    scores = torch.rand(1, 40, 3, generator=generator) ** 2
    postprocess = PostProcess(score_threshold=0.1, pre_nms_top=top, detections=detections)
    (found,) = detect_all(postprocess, output, scores, BoxCoder(), (80, 80), targets_of([(120, 60)]))
    expected = slow_twin(postprocess, output, scores[0], BoxCoder(), (80, 80), (120, 60))
    assert found.labels.tolist() == [label for _, _, label in expected]
    assert found.scores.tolist() == [score for score, _, _ in expected]
    torch.testing.assert_close(found.boxes, torch.cat([box for _, box, _ in expected]), rtol=1e-5, atol=1e-4)


def test_batch_equals_images_alone():
    generator = torch.Generator().manual_seed(3)
    corners = torch.rand(60, 2, generator=generator) * 60
    anchors = torch.cat([corners, corners + 20], 1)
    deltas = torch.randn(4, 60, 4, generator=generator)
    scores = torch.rand(4, 60, 2, generator=generator)
    sizes = [(80, 80), (40, 90), (33, 77), (200, 100)]
    output, targets = DetectorOutput(scores, deltas, anchors, (50, 10)), targets_of(sizes)
    together = detect_all(PostProcess(), output, scores, ShiftCoder(), (80, 80), targets)
    for index, found in enumerate(together):
        one = slice(index, index + 1)
        output = DetectorOutput(scores[one], deltas[one], anchors, (50, 10))
        (alone,) = detect_all(PostProcess(), output, scores[one], ShiftCoder(), (80, 80), targets[one])
        assert isinstance(found, Detections)
        assert all(torch.equal(mine, other) for mine, other in zip(found, alone, strict=True))


def grid_of(rows, columns, cell=20):
    """Boxes of twice a cell's side around the centres of a grid that starts at 0."""
    y, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
    centres = cell * torch.stack([x, y, x, y], -1).reshape(-1, 4)
    return centres + cell * torch.tensor([-1.0, -1, 1, 1])


def test_nothing_is_found_in_the_padding():
    """5 x 5 cells of 20 pixels, of which the image, 60 x 80, has 3 x 4. The best scores lie in the padding, and take no
    place among the two best of the level. Cell (2, 3), centred at x, y = 70, 50, spans 50 ... 90 and 30 ... 70: clipped
    to the image, not to the input, 50 ... 80 and 30 ... 60, and twice that in the file.
    """
    scores = torch.full((1, 25, 1), 0.02)
    scores[0, [4, 15, 24], 0] = 0.9  # right, below, both
    scores[0, [0, 13], 0] = torch.tensor([0.6, 0.5])
    (found,) = run(PostProcess(pre_nms_top=2), grid_of(5, 5), scores, image_sizes=[(120, 160)], shown=[(60, 80)])
    assert found.boxes.tolist() == [[0, 0, 60, 60], [100, 60, 160, 120]]
    assert found.scores.tolist() == pytest.approx([0.6, 0.5])


def test_padding_differs_within_a_batch_and_levels_have_their_own_cells():
    """Two levels, of 5 x 5 cells of 20 and 3 x 3 cells of 40 pixels (the last of which reaches beyond the input).

    An image of 45 x 100 has 3 rows of the first level, 45 / 20 rounded up, and 2 of the second; one of 100 x 100 all.
    """
    boxes = torch.cat([grid_of(5, 5), grid_of(3, 3, 40)])
    outputs = output_of(boxes, 2, (25, 9))
    found = PostProcess(nms_iou=1.0).candidates(
        outputs,
        torch.full((2, 34, 1), 0.5),
        ShiftCoder(),
        (100, 100),
        targets_of([(45, 100), (100, 100)], shown=[(45, 100), (100, 100)]),
    )
    assert [len(each.scores) for each in found] == [15 + 6, 25 + 9]


def test_mirrored_boxes_are_turned_back_within_the_image_shown():
    """The image is 80 wide in an input of 100 and 40 wide as a file: x = 10 ... 30 of the mirror image is 50 ... 70 of
    the image shown, 25 ... 35 of the file; the second box reaches left of the image, so right of it in the file."""
    boxes = [[10, 10, 30, 20], [-20, 50, 20, 60]]
    (found,) = run(PostProcess(), boxes, [[[0.9], [0.8]]], image_sizes=[(100, 40)], shown=[(100, 80)], mirrored=True)
    assert found.boxes.tolist() == [[25, 10, 35, 20], [30, 50, 40, 60]]


def test_what_takes_no_part_is_not_found():
    """Two images of three anchors at 0.9, 0.8 and 0.7: the first one's best is left out, and takes no place of the two;
    of the second none takes part."""
    boxes = [[20 * i, 0, 20 * i + 10, 10] for i in range(3)]
    part = torch.tensor([[False, True, True], [False] * 3])
    output = output_of(boxes, 2)._replace(taking_part=part)
    scores = torch.tensor([0.9, 0.8, 0.7]).view(1, 3, 1).repeat(2, 1, 1)
    targets = targets_of([(100, 100)] * 2)
    first, second = detect_all(PostProcess(pre_nms_top=2), output, scores, ShiftCoder(), (100, 100), targets)
    assert first.scores.tolist() == pytest.approx([0.8, 0.7])
    assert len(second.scores) == 0


@pytest.mark.parametrize("threshold", [0.0, 0.01])
def test_not_even_by_a_threshold_of_0(threshold):
    """A score of 0 is not more than 0, and what takes no part or lies in the padding has less."""
    output = output_of(grid_of(2, 2))._replace(taking_part=torch.tensor([[True, True, False, True]]))
    scores = torch.tensor([0.0, 0.5, 0.9, 0.6]).view(1, 4, 1)
    targets = targets_of([(40, 20)], shown=[(40, 20)])
    (found,) = detect_all(PostProcess(threshold), output, scores, ShiftCoder(), (40, 40), targets)
    assert len(found.scores) == 0
    (found,) = detect_all(PostProcess(threshold), output, scores, ShiftCoder(), (40, 40), targets_of([(40, 40)]))
    assert found.scores.tolist() == pytest.approx([0.6, 0.5])


def test_anchors_of_each_image_are_decoded_for_it():
    """Proposals: row 1 of the second image is another box than row 1 of the first. In padded inputs they lie in no
    cells, so none is left out; boxes are still mapped to the image's part."""
    anchors = torch.tensor([[[0.0, 0, 10, 10], [20, 0, 30, 10]], [[5, 5, 15, 15], [60, 60, 90, 70]]])
    output = output_of(anchors[0], 2)._replace(anchors=anchors)
    scores = torch.tensor([[[0.9], [0.8]], [[0.7], [0.6]]])
    targets = targets_of([(100, 100), (160, 160)], shown=[(100, 100), (80, 80)])
    first, second = detect_all(PostProcess(), output, scores, ShiftCoder(), (100, 100), targets)
    assert first.boxes.tolist() == anchors[0].tolist()
    assert second.boxes.tolist() == [[10, 10, 30, 30], [120, 120, 160, 140]]


def test_a_box_per_class():
    """deltas [B, A, K, 4]: class 0 of the anchor stays, class 1 moves by 50; both are found, each with its own box."""
    output = output_of([[0, 0, 10, 10]])
    deltas = torch.zeros(1, 1, 2, 4)
    deltas[0, 0, 1] = 50.0
    scores = torch.tensor([[[0.6, 0.9]]])
    (found,) = detect_all(
        PostProcess(), output._replace(deltas=deltas), scores, ShiftCoder(), (100, 100), targets_of([(100, 100)])
    )
    assert found.labels.tolist() == [1, 0]
    assert found.boxes.tolist() == [[50, 50, 60, 60], [0, 0, 10, 10]]


def test_a_box_per_class_that_is_not_finite_names_its_image_only_where_it_scores():
    deltas = torch.zeros(2, 1, 2, 4)
    deltas[:, 0, 1] = float("nan")
    output = output_of([[0, 0, 10, 10]], 2)._replace(deltas=deltas)
    scores = torch.tensor([[[0.6, 0.0]], [[0.6, 0.5]]])
    with pytest.raises(FloatingPointError, match=r"boxes .* in image 8$"):
        detect_all(PostProcess(), output, scores, ShiftCoder(), (50, 50), targets_of([(50, 50)] * 2, ids=[7, 8]))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_any_mixture_is_as_image_by_image_and_class_by_class(seed):
    """Anchors by image, boxes by class and some rows that take no part, against plain one-class, one-image outputs."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(2, 12, 2, generator=generator) * 60
    anchors = torch.cat([corners, corners + 5 + 30 * torch.rand(2, 12, 2, generator=generator)], -1)
    deltas = torch.randn(2, 12, 3, 4, generator=generator)
    scores = torch.rand(2, 12, 3, generator=generator)
    part = torch.rand(2, 12, generator=generator) > 0.3
    output = DetectorOutput(scores, deltas, anchors, (12,), part)
    rule = PostProcess(nms_iou=0.4)
    together = detect_all(rule, output, scores, ShiftCoder(), (80, 80), targets_of([(80, 80), (160, 40)]))
    for image, size in enumerate([(80, 80), (160, 40)]):
        expected = []
        for label in range(3):
            rows = part[image]
            alone = DetectorOutput(
                scores[image, rows, label][None, :, None],
                deltas[image, rows, label][None],
                anchors[image, rows],
                (int(rows.sum()),),
            )
            (found,) = detect_all(rule, alone, alone.logits, ShiftCoder(), (80, 80), targets_of([size]))
            expected += [(score, label, box) for score, box in zip(found.scores.tolist(), found.boxes, strict=True)]
        expected.sort(key=lambda row: -row[0])
        found = together[image]
        assert found.labels.tolist() == [label for _, label, _ in expected]
        assert found.scores.tolist() == [score for score, _, _ in expected]
        assert torch.equal(found.boxes, torch.stack([box for _, _, box in expected]))


def made_candidates(seed, num=300):
    """Boxes and scores, all different, of three classes on a 60 x 80 image, three levels."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(num, 2, generator=generator) * 50
    anchors = torch.cat([corners, corners + 5 + torch.rand(num, 2, generator=generator) * 30], 1)
    scores = (torch.randperm(num * 3, generator=generator) / (num * 3)).reshape(1, num, 3) ** 3
    return DetectorOutput(scores, torch.zeros(1, num, 4), anchors, (num - 100, 80, 20)), scores


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    rules=st.lists(
        st.builds(
            PostProcess,
            score_threshold=st.sampled_from([0.0, 0.01, 0.2, 0.9]),
            pre_nms_top=st.sampled_from([1, 7, 60, 1000]),
            nms_iou=st.sampled_from([0.3, 0.5, 0.9]),
            detections=st.sampled_from([1, 20, 100]),
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_each_rule_chooses_from_the_laxest_candidates_as_from_its_own(seed, rules):
    output, scores = made_candidates(seed)
    arguments = (output, scores, ShiftCoder(), (60, 80), targets_of([(60, 80)]))
    (lax,) = laxest(rules).candidates(*arguments)
    assert len(lax.scores) >= max(len(rule.candidates(*arguments)[0].scores) for rule in rules)
    for rule in rules:
        (alone,) = detect_all(rule, *arguments)
        assert all(torch.equal(mine, other) for mine, other in zip(rule.select(lax), alone, strict=True))


def test_two_views_are_merged_class_by_class():
    """The same object in two views, IoU 0.82: the better-scored box stays, not a mean. Another class does not mind."""
    first = Candidates(torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([0.6]), torch.tensor([0]), torch.tensor([0]))
    second = Candidates(
        torch.tensor([[0.0, 1, 10, 11], [0, 1, 10, 11], [50, 50, 60, 60]]),
        torch.tensor([0.7, 0.2, 0.1]),
        torch.tensor([0, 1, 0]),
        torch.tensor([0, 1, 2]),
    )
    found = PostProcess().select(pool([first, second]))
    assert found.scores.tolist() == pytest.approx([0.7, 0.2, 0.1])
    assert found.labels.tolist() == [0, 1, 0]
    assert found.boxes[0].tolist() == [0, 1, 10, 11]
    assert pool([first]) is first


def test_top_k_is_each_view_s_own():
    """With one pair a level, each of two views keeps its best, though both of the second score higher."""
    none = torch.zeros(2, 4)
    first = Candidates(torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([0.3]), torch.tensor([0]), torch.tensor([0]))
    second = Candidates(
        none + torch.tensor([[20.0, 0, 30, 10], [40, 0, 50, 10]]),
        torch.tensor([0.8, 0.9]),
        torch.tensor([0, 0]),
        torch.tensor([1, 0]),
    )
    found = PostProcess(pre_nms_top=1).select(pool([first, second]))
    assert found.scores.tolist() == pytest.approx([0.9, 0.3])
