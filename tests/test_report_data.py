"""What a report is made of: verdicts, curves, error types, image errors and score counts, worked by hand."""

import json
import math

import numpy as np
import pytest
import torch
from drawn_sets import drawn_set, record
from PIL import ImageColor
from torch import nn

from rankdet.build import build_detector
from rankdet.config import compose
from rankdet.data.loader import evaluation_loader
from rankdet.data.records import DetectionSet, Target
from rankdet.data.view_dataset import ViewDataset
from rankdet.data.views import KeepAspect
from rankdet.errors import UserError
from rankdet.evaluation.coco import coco_metrics
from rankdet.evaluation.curve import class_curve
from rankdet.evaluation.draw import PALETTE
from rankdet.evaluation.matches import coco_matches
from rankdet.report.error_types import KINDS, MISSED, ap_costs, error_types, kinds_of_detections, missed
from rankdet.report.image_errors import MOST_BOXES, SIDE, ImageError, best_and_worst, draw_image, image_errors
from rankdet.report.precision_recall import best_f1, class_curves, precision_recall
from rankdet.report.score_distributions import BINS, anchor_scores, count_anchors, detection_scores
from rankdet.report.training_curves import read_curves
from rankdet.report.verdicts import judge

WHOLE, PART, FAR = (0, 0, 100, 100), (0, 0, 100, 40), (300, 300, 50, 50)  # PART and WHOLE: IoU 0.4
NAMES = [name for name, _, _ in KINDS]
CPU = torch.device("cpu")


def truth(*objects, classes=("a", "b"), images=2, **flags):
    """(image, category, box) of each object; flags: the places of those that are iscrowd or difficult."""
    annotations = [
        {"image_id": image, "category_id": category, "bbox": list(box)}
        | {key: int(place in places) for key, places in flags.items()}
        for place, (image, category, box) in enumerate(objects)
    ]
    return {
        "images": [{"id": i + 1, "file_name": f"{i + 1}.png", "height": 400, "width": 400} for i in range(images)],
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(classes)],
        "annotations": annotations,
    }


def found(*detections):
    """(image, category, box, score) of each."""
    keys = ("image_id", "category_id", "bbox", "score")
    return [dict(zip(keys, each, strict=True)) for each in detections]


def made_up(seed):
    """12 images, three classes, jittered and confused detections with ties, crowds and difficult objects."""
    rng = np.random.default_rng(seed)
    objects, results = [], []
    for image in range(1, 13):
        for _ in range(rng.integers(0, 6)):
            box = [*rng.uniform(0, 150, 2).tolist(), *rng.uniform(8, 140, 2).tolist()]
            category = int(rng.integers(1, 4))
            objects.append((image, category, box))
            for _ in range(rng.integers(0, 4)):
                moved = np.maximum(np.array(box) + rng.normal(size=4) * 6, 1).tolist()
                guess = category if rng.random() < 0.8 else int(rng.integers(1, 4))
                results.append((image, guess, moved, round(float(rng.random()), 1)))
    flags = {key: set(np.flatnonzero(rng.random(len(objects)) < 0.1)) for key in ("iscrowd", "difficult")}
    order = rng.permutation(len(results))
    return truth(*objects, classes=("a", "b", "c"), images=12, **flags), found(*(results[i] for i in order))


# Verdicts


def test_the_better_scored_takes_the_object_and_the_other_is_wrong():
    verdicts = judge(truth((1, 1, WHOLE)), found((1, 1, WHOLE, 0.5), (1, 1, WHOLE, 0.6), (2, 1, WHOLE, 0.9)))
    assert verdicts.score.tolist() == [0.6, 0.5, 0.9]  # by image, within one by score
    assert verdicts.right.tolist() == [True, False, False]
    assert verdicts.wrong.tolist() == [False, True, True]
    assert verdicts.found.tolist() == [0, -1, -1]
    assert verdicts.same_iou.tolist() == [1.0, 1.0, 0.0]
    assert verdicts.same_object.tolist() == [0, 0, -1]


def test_overlaps_with_its_own_and_with_other_classes():
    verdicts = judge(truth((1, 1, WHOLE), (1, 2, PART)), found((1, 1, PART, 0.5)))
    assert verdicts.same_iou.tolist() == pytest.approx([0.4])
    assert (verdicts.other_iou.tolist(), verdicts.other_object.tolist()) == ([1.0], [1])
    assert not verdicts.right.any()


def test_crowds_swallow_many_difficult_objects_one():
    """A crowd's overlap is over the detection's own area: PART lies wholly in WHOLE."""
    results = found((1, 1, PART, 0.9), (1, 1, PART, 0.8), (2, 1, FAR, 0.7), (2, 1, FAR, 0.6))
    verdicts = judge(truth((1, 1, WHOLE), (2, 1, FAR), iscrowd={0}, difficult={1}), results)
    assert verdicts.ignored.tolist() == [True, True, True, False]
    assert verdicts.wrong.tolist() == [False, False, False, True]
    assert verdicts.objects.counts.tolist() == [False, False]
    assert verdicts.same_iou.tolist() == [0, 0, 0, 0]  # only with objects that count


def test_no_more_than_a_hundred_detections_of_a_class_and_image():
    results = found(*((1, 1, FAR, 1 - i / 1000) for i in range(100)), (1, 1, WHOLE, 0.1), (1, 2, WHOLE, 0.1))
    verdicts = judge(truth((1, 1, WHOLE)), results)
    assert len(verdicts.score) == 101
    assert not verdicts.right.any()
    assert (verdicts.category_id == 2).sum() == 1


def test_verdicts_are_those_of_the_metrics():
    """Class by class the same scores, right ones and overlaps as the matching that oLRP starts from."""
    right = 0
    for seed in range(5):
        ground_truth, results = made_up(seed)
        for iou in (0.5, 0.75):
            verdicts = judge(ground_truth, results, iou)
            expected = coco_matches(ground_truth, results, iou)["all"]
            for category in ground_truth["categories"]:
                mine = np.flatnonzero((verdicts.category_id == category["id"]) & ~verdicts.ignored)
                mine = mine[np.argsort(-verdicts.score[mine], kind="stable")]
                theirs = expected[category["name"]]
                assert verdicts.score[mine].tolist() == theirs.scores.tolist()
                assert verdicts.right[mine].tolist() == theirs.right.tolist()
                assert verdicts.found_iou[mine].tolist() == theirs.ious.tolist()
                right += int(theirs.right.sum())
    assert right > 100


def test_a_threshold_leaves_the_verdicts_of_those_above_it():
    """Greedy by falling score: what is below can change nothing above."""
    for seed in range(5):
        ground_truth, results = made_up(seed)
        whole = judge(ground_truth, results).scoring(0.5)
        alone = judge(ground_truth, [each for each in results if each["score"] >= 0.5])
        assert 10 < len(alone.score) < len(results)
        for one, other in zip(whole[:-1], alone[:-1], strict=True):
            assert np.array_equal(one, other)
    assert len(whole.scoring(math.nan).score) == 0


def test_bad_results_are_refused():
    with pytest.raises(UserError, match="entry 0: image_id 7 is not in the ground truth"):
        judge(truth((1, 1, WHOLE)), found((7, 1, WHOLE, 0.5)))


# Precision and recall


def test_curve_by_hand():
    """Right, wrong, right of 2 objects: precision 1 up to recall 1/2 (51 levels), then 2/3 (50 levels)."""
    curve = class_curve(np.array([0.7, 0.9, 0.8]), np.array([True, True, False]), 2)
    assert curve[:51].tolist() == [1.0] * 51
    assert curve[51:] == pytest.approx(np.full(50, 2 / 3))
    never = class_curve(np.array([0.9]), np.array([True]), 4)  # a quarter of the objects: levels 0 to 0.25
    assert (never[:26].tolist(), never[26:].any()) == ([1.0] * 26, False)
    assert not class_curve(np.zeros(0), np.zeros(0, bool), 3).any()


def test_means_of_the_curves_are_cocos_ap():
    for seed in range(5):
        ground_truth, results = made_up(seed)
        metrics = coco_metrics(ground_truth, results)
        for iou in (0.5, 0.75):
            curves = precision_recall(ground_truth, results, iou)
            assert set(curves) == {"a", "b", "c"}
            mean = np.mean([curve.mean() for curve in curves.values()])
            assert mean == pytest.approx(metrics[f"AP{round(100 * iou)}"], abs=1e-12)
            assert 0.02 < mean < 0.98


def test_classes_without_objects_have_no_curve():
    assert list(precision_recall(truth((1, 2, WHOLE)), found((1, 1, WHOLE, 0.5)))) == ["b"]
    assert precision_recall(truth(), []) == {}
    curves = class_curves(judge(truth((1, 1, WHOLE), difficult={0}), []), truth()["categories"])
    assert curves == {}


def test_best_f1_by_hand():
    """2 objects; right, wrong, right: F1 2/3, 2/4, 4/5. Where all three score the same, only the last can be had."""
    objects = truth((1, 1, WHOLE), (2, 1, WHOLE))
    results = found((1, 1, WHOLE, 0.9), (1, 1, FAR, 0.8), (2, 1, WHOLE, 0.7))
    assert best_f1(judge(objects, results)) == (0.7, pytest.approx(0.8))
    assert best_f1(judge(objects, results[:2])) == (0.9, pytest.approx(2 / 3))
    tied = [each | {"score": 0.4} for each in results[:2]]
    assert best_f1(judge(objects, tied)) == (0.4, pytest.approx(2 / 4))
    assert all(map(math.isnan, best_f1(judge(objects, []))))
    assert all(map(math.isnan, best_f1(judge(truth(), results))))


# Error types: an object of class a in image 1, found at 0.9, and in image 2 what shows the error. Right, wrong, right
# of 2 objects is an AP of (51 + 50 * 2 / 3) / 101; only one of them found, with nothing wrong before it, 51 / 101.

FIRST, SECOND = (1, 1, WHOLE), (2, 1, WHOLE)
HALF, WRONG_BETWEEN = 50 / 101, 50 / 3 / 101  # what is lost of 1
EXAMPLES = {
    "localisation": ([FIRST, SECOND], [(2, 1, PART, 0.8)], HALF),
    "confusion": ([FIRST, SECOND], [(2, 2, WHOLE, 0.8)], HALF),
    "duplicate": ([FIRST, SECOND], [(1, 1, WHOLE, 0.85), (2, 1, WHOLE, 0.8)], WRONG_BETWEEN),
    "confusion and localisation": (
        [FIRST, (2, 1, FAR), (2, 2, WHOLE)],
        [(2, 1, PART, 0.85), (2, 1, FAR, 0.8), (2, 2, WHOLE, 0.8)],
        WRONG_BETWEEN / 2,  # of two classes one has it
    ),
    "background": ([FIRST, SECOND], [(2, 1, FAR, 0.85), (2, 1, WHOLE, 0.8)], WRONG_BETWEEN),
    "missed": ([FIRST, SECOND], [], HALF),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_each_error_type_by_hand(name):
    """One error of its kind, none of the others, and AP50 is 1 without it."""
    assert set(EXAMPLES) == set(NAMES)
    objects, detections, cost = EXAMPLES[name]
    ground_truth, results = truth(*objects), found((1, 1, WHOLE, 0.9), *detections)
    types = {each.name: each for each in error_types(ground_truth, results, score=0.9)}  # from there one right one only
    assert {each.name: each.count for each in types.values()} == {other: int(other == name) for other in NAMES}
    assert types[name].ap_cost == pytest.approx(cost)
    assert coco_metrics(ground_truth, results)["AP50"] == pytest.approx(1 - cost, abs=1e-12)
    others = [each.ap_cost for each in types.values() if each.name != name]
    assert others == pytest.approx([0.0] * 5, abs=1e-12)
    assert {each.name: each.count_above for each in types.values() if each.count_above} == {"missed": len(objects) - 1}


def test_the_first_kind_that_fits():
    """PART overlaps its own class by 0.4: localisation, though another class's object fits it exactly."""
    verdicts = judge(truth((1, 1, WHOLE), (1, 2, PART)), found((1, 1, PART, 0.5)))
    assert [NAMES[kind] for kind in kinds_of_detections(verdicts)] == ["localisation"]
    assert missed(verdicts, kinds_of_detections(verdicts)).tolist() == [False, True]


def test_of_an_objects_detections_after_the_repair_the_best_stays():
    """Wrong (badly placed) 0.9, wrong (background) 0.7, right 0.5: AP 1/3. Repaired, that of 0.9 is right, 0.5 goes."""
    ground_truth = truth((1, 1, WHOLE))
    results = found((1, 1, PART, 0.9), (1, 1, PART, 0.8), (1, 1, FAR, 0.7), (1, 1, WHOLE, 0.5))
    costs = dict(zip(NAMES, ap_costs(judge(ground_truth, results)), strict=True))
    assert coco_metrics(ground_truth, results)["AP50"] == pytest.approx(1 / 4)
    assert costs["localisation"] == pytest.approx(3 / 4)
    assert costs["background"] == pytest.approx(1 / 3 - 1 / 4)


def test_a_class_of_which_everything_was_missed():
    """Nothing left to find: perfect if nothing is claimed either, worthless if something is."""
    assert ap_costs(judge(truth((1, 1, WHOLE)), []))[MISSED] == 1
    assert ap_costs(judge(truth((1, 1, WHOLE)), found((2, 1, FAR, 0.3))))[MISSED] == 0


def test_errors_where_there_is_nothing():
    nothing = error_types(truth(), [])
    assert [each.count for each in nothing] == [0] * 6
    assert all(math.isnan(each.ap_cost) for each in nothing)
    only_wrong = error_types(truth(), found((1, 1, WHOLE, 0.5)))
    assert [each.name for each in only_wrong if each.count] == ["background"]
    blind = error_types(truth((1, 1, WHOLE), (2, 2, WHOLE)), [])
    assert [(each.name, each.count) for each in blind if each.count] == [("missed", 2)]
    one_class = error_types(truth((1, 1, WHOLE), classes=("a",)), found((1, 1, WHOLE, 0.5)))
    assert [each.count for each in one_class] == [0] * 6


def test_every_wrong_detection_has_one_kind_and_no_repair_costs_ap():
    for seed in range(8):
        ground_truth, results = made_up(seed)
        verdicts = judge(ground_truth, results)
        types = error_types(ground_truth, results)
        assert sum(each.count for each in types[:MISSED]) == verdicts.wrong.sum() > 5
        unfound = verdicts.objects.counts.sum() - verdicts.right.sum()
        assert types[MISSED].count <= unfound
        assert min(each.ap_cost for each in types) >= -1e-12


# Images


def test_image_error_by_hand():
    """IoU 0.75 leaves 0.25 / 0.5; with one wrong and one missed: (0.5 + 1 + 1) / 3."""
    ground_truth = truth((1, 1, WHOLE), (1, 2, FAR), (2, 1, WHOLE), images=4)
    results = found((1, 1, (0, 0, 100, 75), 0.9), (1, 1, FAR, 0.8), (2, 1, WHOLE, 0.7), (3, 1, WHOLE, 0.2))
    errors = image_errors(ground_truth, results, score=0.5)
    assert [each[2:] for each in errors] == [(1, 1, 1), (1, 0, 0), (0, 0, 0), (0, 0, 0)]
    assert [each.error for each in errors[:2]] == pytest.approx([2.5 / 3, 0.0])
    assert all(math.isnan(each.error) for each in errors[2:])
    assert image_errors(ground_truth, results, score=0.1)[2] == ImageError(3, 1.0, 0, 1, 0)


def test_best_and_worst_share_no_image():
    errors = [
        ImageError(1, 0.2, 1, 0, 0),
        ImageError(2, 0.2, 3, 0, 0),  # as good, and more of it
        ImageError(3, math.nan, 0, 0, 0),
        ImageError(4, 1.0, 0, 1, 0),
        ImageError(5, 1.0, 0, 1, 4),
        ImageError(6, 0.6, 1, 1, 0),
    ]
    best, worst = best_and_worst(errors, 2)
    assert [each.image_id for each in best] == [2, 1]
    assert [each.image_id for each in worst] == [5, 4]
    best, worst = best_and_worst(errors[:3], 6)
    assert ([each.image_id for each in best], worst) == ([2, 1], [])


def test_image_is_drawn_with_what_scores_enough(tmp_path):
    """A box of class blue (label 2) at 20 10 40 30 of a 60 x 40 image, drawn 8 times as large (320 / 40)."""
    split = drawn_set(tmp_path, 3)
    results = found((100, 3, (20, 10, 20, 20), 0.8), (100, 1, (2, 2, 4, 4), 0.3))
    picture = draw_image(split, results, 100, 0.5)
    assert picture.shape[1] == 480
    assert (picture[100:200, 160:162] == ImageColor.getrgb(PALETTE[2])).all()
    everything = picture[:320].reshape(-1, 3)
    assert not (everything == ImageColor.getrgb(PALETTE[0])).all(axis=1).any()
    assert (draw_image(split, results, 100, 0.1)[:320].reshape(-1, 3) == ImageColor.getrgb(PALETTE[0])).all(1).any()


def test_large_image_is_reduced_and_boxes_with_it(tmp_path):
    """1680 pixels become 560: the box's left line, at 600, is drawn at 200."""
    large = record(tmp_path / "large.png", 1, 1120, 1680, [[30, 30, 90, 90]], [2])
    split = DetectionSet("large", "test", ("red", "green", "blue"), (1, 2, 3), (large,))
    results = found((1, 1, (600, 300, 600, 600), 0.9))
    picture = draw_image(split, results, 1, 0.0)
    assert picture.shape[1] == SIDE
    assert (picture[150:250, 200:202] == ImageColor.getrgb(PALETTE[0])).all()
    results += [*MOST_BOXES * found((1, 1, (600, 300, 600, 600), 0.8)), *found((1, 2, (1300, 300, 200, 200), 0.7))]
    assert (draw_image(split, results, 1, 0.75) == draw_image(split, results, 1, 0.0)).all()  # 0.7 is one too many
    assert (draw_image(split, results[-1:], 1, 0.0) == ImageColor.getrgb(PALETTE[1])).all(axis=-1).any()


def test_missing_image_is_named(tmp_path):
    split = drawn_set(tmp_path, 2)
    (tmp_path / "1.png").unlink()
    with pytest.raises(UserError, match=r"1\.png: no such image"):
        draw_image(split, [], 101, 0.5)


# Scores


def anchors_case(ignore=False):
    """Three anchors, two classes: one is the object (class 1), one has an IoU of 1/3 with it, one lies elsewhere."""
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0], [5.0, 0.0, 15.0, 10.0], [50.0, 50.0, 60.0, 60.0]])
    scores = torch.tensor([[[0.1, 0.9], [0.2, 0.5], [0.31, 0.05]]])
    labels = torch.tensor([[[0, 1], [-1, -1], [0, 0]]], dtype=torch.int8)
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [48.0, 48.0, 62.0, 62.0]])[: 1 + ignore]
    flags = torch.tensor([False, True])[: 1 + ignore]
    return scores, labels, anchors, [Target(boxes, torch.tensor([1, 0])[: 1 + ignore], flags, 1, (64, 64))]


def bins(*values):
    return tuple(min(int(value * BINS), BINS - 1) for value in values)


def test_anchor_counts_by_hand():
    """IoU 1 with its class's 0.9, IoU 1/3 with 0.5, IoU 0 with the highest score, 0.31; 1 foreground pair, 3 others."""
    counts = count_anchors(*anchors_case())
    expected = np.zeros((BINS, BINS), int)
    for place in (bins(1.0, 0.9), bins(1 / 3, 0.5), bins(0.0, 0.31)):
        expected[place] += 1
    assert (counts.overlap == expected).all()
    assert counts.foreground.nonzero()[0].tolist() == [*bins(0.9)]
    assert counts.background.nonzero()[0].tolist() == sorted([*bins(0.1), *bins(0.31), *bins(0.05)])
    assert counts.plus(counts).overlap.sum() == 6


def test_anchors_in_ignored_regions_are_left_out():
    assert count_anchors(*anchors_case(ignore=True)).overlap.sum() == 2


def test_anchors_of_each_image():
    """The second image's anchors, and with them all else, stand the other way round: each counts as the other does."""
    scores, labels, anchors, targets = anchors_case()
    both = [torch.cat([values, values.flip(1)]) for values in (scores, labels, anchors[None])]
    counts, once = count_anchors(*both, targets * 2), count_anchors(scores, labels, anchors, targets)
    assert all((ours == 2 * theirs).all() for ours, theirs in zip(counts, once, strict=True))


def test_image_without_objects_has_background_only():
    scores, _, anchors, _ = anchors_case()
    none = Target(torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0).bool(), 1, (64, 64))
    counts = count_anchors(scores, torch.zeros(1, 3, 2, dtype=torch.int8), anchors, [none])
    assert counts.overlap[0].sum() == counts.overlap.sum() == 3
    assert (counts.foreground.sum(), counts.background.sum()) == (0, 6)


def test_anchors_of_a_padded_batch_are_those_of_its_images_alone(tmp_path):
    """Four pictures of 40 x 60 and 66 x 40 in an input of 128 x 128, in float64, and each without padding.

    Anchors of 40 x 60 at strides 8, 16, 32: 6 * (5 * 8 + 3 * 4 + 2 * 2); of 66 x 40: 6 * (9 * 5 + 5 * 3 + 3 * 2).
    """
    torch.manual_seed(0)
    detector = build_detector(compose(["model.backbone.norm=gn", "prior=0.5"]), 3)
    nn.init.normal_(detector.model.heads.class_output.weight, std=0.3)
    detector.model.double()
    split = drawn_set(tmp_path, 4)

    def counted(stride, batch_size):
        views = KeepAspect(40, 1.66, [1.0], False, stride, [200] * 3)
        loader = evaluation_loader(ViewDataset(split, views), batch_size)
        return anchor_scores(detector, [batch._replace(images=batch.images.double()) for batch in loader], CPU)

    alone, together = counted(1, 1), counted(128, 4)
    assert alone.overlap.sum() == 6 * (3 * (5 * 8 + 3 * 4 + 2 * 2) + 9 * 5 + 5 * 3 + 3 * 2)
    assert alone.foreground.sum() > 6
    for ours, theirs in zip(together, alone, strict=True):
        assert (ours > 0).sum() > 5
        assert (ours == theirs).all()


def test_detection_counts_by_hand():
    results = found((1, 1, PART, 0.5), (1, 1, WHOLE, 1.0), (2, 1, WHOLE, 0.25))
    counts = detection_scores(judge(truth((1, 1, WHOLE), (2, 1, WHOLE), difficult={1}), results))
    assert counts[bins(0.4, 0.5)] == counts[bins(1.0, 1.0)] == 1
    assert counts.sum() == 2  # the one on the difficult object does not count
    assert detection_scores(judge(truth(), [])).sum() == 0


# Training curves


def test_log_becomes_panels(tmp_path):
    path = tmp_path / "log.jsonl"
    entries = [
        {
            "step": 2,
            "train/loss": 3.0,
            "train/ap": 1.0,
            "train/lr": 0.1,
            "speed/images_per_s": 9,
            "speed/share_data": 1,
        },
        {"step": 2, "val/AP": 0.25, "val/AP50": 0.5},
        {
            "step": 4,
            "train/loss": 2.0,
            "train/ap": 0.5,
            "train/lr": 0.1,
            "speed/images_per_s": 8,
            "speed/share_data": 1,
        },
    ]
    path.write_text("".join(json.dumps(each) + "\n" for each in entries))
    panels = read_curves(path)
    assert list(panels) == ["criterion", "ap loss", "learning rate", "images a second", "AP during training"]
    assert panels["criterion"] == [("loss", [2, 4], [3.0, 2.0])]
    assert [curve.name for curve in panels["AP during training"]] == ["val/AP", "val/AP50"]
    assert read_curves(tmp_path / "none.jsonl") == {}


@pytest.mark.parametrize("line", ['{"step": 2, "tra', "[1]", '{"train/loss": 1}', '{"step": 2, "train/loss": "x"}'])
def test_broken_line_of_a_log_is_named(tmp_path, line):
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "train/loss": 1}\n' + line + "\n")
    with pytest.raises(UserError, match=r"log\.jsonl, line 2: is not an entry"):
        read_curves(path)
