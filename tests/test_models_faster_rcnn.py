"""The mini Faster R-CNN: its regions, its gradients where boxes lack, in micro-batches, padded, in half precision."""

from collections import OrderedDict

import pytest
import torch
from several_stages import CLASSES, CPU, OBJECTS, batch, built, gradients, training
from torch import Tensor, nn

from rankdet.data.records import Batch, Target
from rankdet.errors import UserError
from rankdet.evaluation.inference import candidates
from rankdet.models.faster_rcnn import FasterRCNN
from rankdet.models.output import DetectorOutput

MINI = ("model=faster_rcnn_quarter", "rpn=ce", "matching=roi", "loss=cross_entropy")
GROUP_NORM = (*MINI, "model.backbone.norm=gn")
ALRP = (*MINI, "rpn=alrp", "loss=alrp", "box_loss=none", "model.roi_sampler.num_samples=null")


def enlivened(model: nn.Module) -> nn.Module:
    """Random biases, and heads that say something, so that what depends on them would be seen."""
    torch.manual_seed(2)
    for name, p in model.named_parameters():
        if p.dim() == 1:
            nn.init.normal_(p, 0.3, 0.2)
        if "_output.weight" in name:
            nn.init.normal_(p, std=0.05)
    return model.eval()


def test_every_model_config_is_tested_here(repo):
    names = {path.stem for path in (repo / "configs" / "model").glob("faster_rcnn_*.yaml")}
    assert names == {"faster_rcnn_r50", "faster_rcnn_quarter"}


def test_mini_config():
    """160 x 120: cells 15 x 20, 8 x 10, 4 x 5, three anchors each of sides 24, 48, 96; 64 regions an image."""
    detector = built(*MINI)
    model = detector.model.train()
    assert isinstance(model, FasterRCNN)
    images, targets = batch(height=120, width=160)
    first, second = model(images, targets)
    assert first.level_sizes == (900, 240, 60)
    torch.testing.assert_close(first.anchors[1], torch.tensor([-8.0, -8.0, 16.0, 16.0]))  # ratio 1 around (4, 4)
    assert second.logits.shape == (4, 64, CLASSES + 1)
    assert second.deltas.shape == (4, 64, CLASSES, 4)
    assert second.taking_part.all()
    assert model.eval()(images, targets)[1].logits.shape == (4, 128, CLASSES + 1)
    rpn = 32 * 32 * 9 + 32 + 33 * (3 + 12)
    head = (4 * 4 * 32 + 1) * 128 + 129 * 128 + 129 * (4 + 12)
    assert sum(p.numel() for p in [*model.rpn.parameters(), *model.roi_head.parameters()]) == rpn + head
    agnostic = built(*MINI, "model.roi_head.class_agnostic=true").model(images, targets)[1]
    assert agnostic.deltas.shape == (4, 64, 4)


def test_training_regions():
    """Every object is among its image's regions, which lie in the image and carry no gradient; all drawn are of it."""
    model = built(*MINI).model.train()
    images, targets = batch()
    second = model(images, targets)[1]
    assert not second.anchors.requires_grad
    assert second.taking_part.any(1).all()
    for target, rois, kept in zip(targets, second.anchors, second.taking_part, strict=True):
        assert {tuple(box) for box in target.boxes.tolist()} <= {tuple(box) for box in rois[kept].tolist()}
        assert not rois[~kept].any()
        assert (rois[kept] >= 0).all()
        assert (rois[kept] <= torch.tensor([64.0, 48, 64, 48])).all()
    assert not model.eval()(images, targets)[1].anchors.eq(targets[0].boxes[0]).all(2).any()


def test_the_matcher_sees_what_the_sampler_saw():
    """With a quarter of 32 regions positive at most, the second stage has 8 positives in an image full of them."""
    detector = built(*MINI, "model.roi_sampler.num_samples=32", "model.roi_sampler.positive_fraction=0.25")
    images, targets = batch((3, 3))
    second = detector.model.train()(images, targets)[1]
    labels = detector.assign(second, targets).labels
    assert [int(n) for n in (labels == 1).sum((1, 2))] == [8, 8]
    assert detector.model.roi_sampler.positive_iou == detector.last.matcher.positive_iou == 0.5
    for matching, threshold in (("matching.positive_iou=0.6", 0.6), ("matching=atss", 0.5)):  # which has none
        assert built(*MINI, matching).model.roi_sampler.positive_iou == threshold


@pytest.mark.parametrize("overrides", [MINI, (*MINI, "loss=ap"), ALRP], ids=["ce", "ap", "alrp"])
@pytest.mark.parametrize("objects", [OBJECTS, (0, 0)])
@pytest.mark.parametrize("proposals", [True, False])
def test_every_weight_has_a_finite_gradient(overrides, objects, proposals):
    """Also without objects, without proposals (all too small), and without either."""
    detector = built(*overrides, *([] if proposals else ["model.proposals.min_side=1000"]))
    found, parts = gradients(training(detector), batch(objects))
    assert parts["loss"] >= 0
    bad = [name for name, gradient in found.items() if gradient is None or not gradient.isfinite().all()]
    assert bad == []


def test_all_positive_and_all_negative():
    """Objects alone as regions are all positive; the loss ranks them with nothing. Without objects all are negative."""
    detector = built(*MINI, "loss=ap", "model.proposals.min_side=1000", "model.roi_sampler.num_samples=500")
    images, targets = batch((3, 1))
    second = detector.model.train()(images, targets)[1]
    assert second.logits.shape == (2, 500, CLASSES)  # more than there are
    labels = detector.assign(second, targets).labels
    assert (labels == 1).any(2).sum(1).tolist() == [3, 1]
    assert ((labels == -1).all(2).sum(1)).tolist() == [497, 499]
    detector = built(*MINI)
    images, targets = batch((0, 0))
    labels = detector.assign(detector.model.train()(images, targets)[1], targets).labels
    assert not (labels == 1).any()
    assert (labels == 0).any()


@pytest.mark.parametrize("size", [(5, 7), (1, 1), (20, 33)])
def test_images_below_the_largest_stride(size):
    """Of 32 pixels: the levels shrink to one cell, and training and evaluation go on."""
    detector = built(*GROUP_NORM)
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    objects = torch.tensor([[0.0, 0, size[1], size[0]]])
    targets = [Target(objects, torch.tensor([1]), torch.tensor([False]), i, size) for i in range(2)]
    found, _ = gradients(training(detector), Batch(images, targets))
    assert all(gradient.isfinite().all() for gradient in found.values())
    for found in candidates(detector, Batch(images, targets), CPU):
        assert (found.boxes <= torch.tensor([size[1], size[0]] * 2)).all()


def test_nothing_proposed_is_nothing_detected():
    detector = built(*MINI, "model.proposals.min_side=1000")
    images, targets = batch()
    output = detector.model.eval()(images, targets)[1]
    assert not output.taking_part.any()
    assert [len(found.boxes) for found in candidates(detector, Batch(images, targets), CPU)] == [0] * 4


def test_images_of_a_batch_do_not_mix():
    model = enlivened(built(*GROUP_NORM).model).double()
    images, targets = batch()
    together = model(images, targets)[1]
    assert together.logits[together.taking_part].std() > 0.05
    for i in range(4):
        alone = model(images[i : i + 1], targets[i : i + 1])[1]
        torch.testing.assert_close(together.anchors[i], alone.anchors[0])
        torch.testing.assert_close(together.logits[i], alone.logits[0])
        torch.testing.assert_close(together.deltas[i], alone.deltas[0])


@pytest.mark.parametrize("norm", ["bn", "gn"])
def test_padding_changes_nothing(norm):
    """Images of odd sizes in an input of 96 x 128, noise in the padding: what each image gives alone, but for 1e-6."""
    detector = built(*MINI, f"model.backbone.norm={norm}", "evaluation.score_threshold=0.0")
    enlivened(detector.model).double()
    sizes = [(96, 128), (71, 97), (33, 128), (96, 50)]
    images, targets = batch((0, 0, 0, 0), 96, 128)
    shown = [target._replace(size=size, shown=size) for target, size in zip(targets, sizes, strict=True)]
    together = candidates(detector, Batch(images, shown), CPU)
    for i, (h, w) in enumerate(sizes):
        target = targets[i]._replace(size=(h, w))
        (alone,) = candidates(detector, Batch(images[i : i + 1, :, :h, :w], [target]), CPU)
        assert len(alone.boxes) > 10
        assert alone.scores.std() > 0.01
        torch.testing.assert_close(together[i].boxes, alone.boxes, rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(together[i].scores, alone.scores, rtol=1e-5, atol=1e-6)
        assert torch.equal(together[i].labels, alone.labels)


@pytest.mark.parametrize("overrides", [GROUP_NORM, (*ALRP, "model.backbone.norm=gn")], ids=["sampled", "alrp"])
@pytest.mark.parametrize("micro_batch", [1, 2, 3])
def test_micro_batches(overrides, micro_batch):
    """The same regions, losses and gradients as by one pass, but for rounding."""
    detector = built(*overrides)
    whole, parts = gradients(training(detector), batch())
    whole = {name: gradient.clone() for name, gradient in whole.items()}
    detector.model.zero_grad()
    split, split_parts = gradients(training(detector, micro_batch=micro_batch), batch())
    assert split_parts == pytest.approx(parts, rel=1e-4)
    scale = max(float(gradient.abs().max()) for gradient in whole.values())
    assert scale > 0.01
    for name, gradient in whole.items():
        torch.testing.assert_close(split[name], gradient, rtol=1e-3, atol=1e-5 * scale, msg=name)


@pytest.mark.parametrize("objects", [OBJECTS, (0, 0)])
def test_half_precision(objects):
    """A step under bf16 autocast: the heads speak bf16, boxes stay float32, gradients are finite."""
    trained = training(built(*MINI), "bf16")
    images, targets = batch(objects)
    with trained.autocast():
        first, second = trained.model(images, targets)
    assert first.logits.dtype == second.logits.dtype == second.deltas.dtype == torch.bfloat16
    assert second.anchors.dtype == torch.float32
    found, _ = gradients(trained, batch(objects))
    assert all(gradient.isfinite().all() for gradient in found.values())


def test_half_precision_is_near_the_full_one():
    """The second stage on the same regions."""
    model = enlivened(built(*GROUP_NORM).model)
    images, targets = batch()
    features = model.fpn(model.backbone(model.pixel_norm(images)))
    second = model(images, targets)[1]
    with torch.autocast("cpu", torch.bfloat16):
        logits, deltas = model.roi_head(features, second.anchors, second.taking_part)
    assert (logits - second.logits).abs().max() < 0.05 * second.logits.abs().max()
    assert (deltas - second.deltas).abs().max() < 0.05 * second.deltas.abs().max()


def test_training_after_evaluation_in_inference_mode():
    detector = built(*MINI)
    candidates(detector, batch(), CPU)
    found, _ = gradients(training(detector), batch())
    assert all(gradient is not None for gradient in found.values())


def test_the_draw_follows_the_generator():
    model = built(*MINI, "model.roi_sampler.num_samples=8").model.train()

    def drawn(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return model(*batch())[1].anchors

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_what_it_is_built_with():
    """No rpn, or one whose loss gives two scores an anchor: one line that says what to do."""
    with pytest.raises(UserError, match=r"^config: this model has to learn its proposals: set rpn=ce or rpn=alrp$"):
        built(*MINI, "rpn=none")
    with pytest.raises(UserError, match=r"^rpn\.loss wants 2 score channels"):
        built(*MINI, "loss@rpn.loss=cross_entropy")


def test_a_model_without_proposals_takes_no_rpn():
    with pytest.raises(UserError, match=r"^config: rpn is for a model that proposes regions: set rpn=none"):
        built("rpn=ce")


def test_stages():
    """The numbers of rpn=ce, and aLRP's."""
    detector = built(*MINI)
    first, second = detector.stages
    assert (first.weight, first.num_classes, first.name, first.sampler.num_samples) == (1.0, 1, "rpn ", 256)
    assert (first.matcher.positive_iou, first.matcher.negative_iou, first.matcher.claim_best) == (0.7, 0.3, True)
    assert (second.matcher.positive_iou, second.matcher.negative_iou, second.matcher.claim_best) == (0.5, 0.5, False)
    assert first.coder.stds == (1, 1, 1, 1)
    assert second.coder.stds == (0.1, 0.1, 0.2, 0.2)
    assert isinstance(detector.model(*batch())[0], DetectorOutput)
    first, second = built(*ALRP).stages
    assert (first.weight, first.sampler, second.sampler) == (0.2, None, None)


def test_state_dict_names_are_the_parts():
    names = OrderedDict.fromkeys(name.split(".")[0] for name in built(*MINI).model.state_dict())
    assert list(names) == ["backbone", "fpn", "rpn", "roi_head"]


@pytest.mark.full
def test_the_compiler_changes_nothing():
    """Around the boxes, whose number only the run knows, the graph breaks: the same bits all the same."""
    trained = training(built(*GROUP_NORM))
    plain = {name: gradient.clone() for name, gradient in gradients(trained, batch((2, 0)))[0].items()}
    trained.model.zero_grad()
    network, trained.model = trained.model, torch.compile(trained.model, backend="eager")
    gradients(trained, batch((2, 0)))
    assert [name for name, p in network.named_parameters() if not torch.equal(p.grad, plain[name])] == []
