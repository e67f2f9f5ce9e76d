"""Deformable DETR: its size, what it gives, every loss on it, padding, micro-batches, bfloat16, wrong settings."""

import copy

import pytest
import torch
from omegaconf import OmegaConf
from several_stages import CLASSES, CPU, OBJECTS, batch, built, config, gradients, training
from torch import nn

from rankdet.build import Detector, build_detector, make
from rankdet.config import CONFIG_DIR, merge_dotlist, run_directory
from rankdet.data.records import Batch, Target
from rankdet.errors import UserError
from rankdet.evaluation.inference import candidates, detect_image
from rankdet.losses.box import GIoULoss
from rankdet.training.init import SCORE_LAYERS

DETR = ("experiment=deformable_detr", "loss=focal", "loss.weight=2", "box_loss=l1_giou")
MINI = (*DETR, "model=deformable_detr_quarter")
SMALL = ("levels.channels=16", "layers.ffn_channels=32", "backbone.width=0.125", "num_queries=12", "refine=true")
LIGHT = (*MINI, *(f"model.{setting}" for setting in SMALL))  # the same in small, since it is tested often
GROUP_NORM = (*LIGHT, "model.backbone.norm=gn")
LOSSES = sorted(path.stem for path in (CONFIG_DIR / "loss").glob("*.yaml"))


def enlivened(model: nn.Module) -> nn.Module:
    """Random biases, offsets and outputs, so that what depends on them would be seen."""
    torch.manual_seed(2)
    for name, p in model.named_parameters():
        if p.dim() == 1:
            p.data += 0.2 * torch.randn_like(p)
        if "sampling_offsets.weight" in name or "attention_weights.weight" in name:
            nn.init.normal_(p, std=0.3)
        if "box_output" in name and p.shape[0] == 4:
            p.data += 0.2 * torch.randn_like(p)
    return model.eval()


def test_every_model_config_is_tested_here(repo):
    names = {path.stem for path in (repo / "configs" / "model").glob("deformable_detr_*.yaml")}
    assert names == {"deformable_detr_r50", "deformable_detr_quarter"}


@pytest.mark.parametrize("refine", [False, True])
def test_paper_config(refine):
    """40 M parameters (Deformable DETR, Table 1), 39 847 265 with the 91 outputs that the program has for COCO.

    That counts what is trained: without the stem (7 * 7 * 3 * 64) and the first stage, of 3 + 3 + 3 + 1 convolutions.
    """
    cfg = config(*DETR, "model=deformable_detr_r50", "model.backbone.weights=null").copy()
    cfg.model.refine = refine
    detector = build_detector(cfg, 91)
    model = detector.model
    frozen = 7 * 7 * 3 * 64 + 64 * 64 + 2 * 256 * 64 + 3 * (9 * 64 * 64 + 64 * 256) + 64 * 256
    resnet = 25_557_032 - 2_049_000 - 53_120  # torchvision's ResNet-50, its classifier, its batch norms
    levels = (512 + 1024 + 2048 + 9 * 2048 + 4) * 256 + 4 * 2 * 256
    attention = (256 + 1) * (8 * 4 * 4 * 3) + 2 * 257 * 256
    forward = 257 * 1024 + 1025 * 256 + 2 * 256
    encoder = attention + 2 * 256 + forward
    decoder = encoder + 4 * 257 * 256 + 2 * 256
    heads = 257 * 91 + 2 * 257 * 256 + 257 * 4
    queries = 300 * 512 + 257 * 2 + 4 * 256
    trained = resnet - frozen + levels + 6 * (encoder + decoder) + queries + (6 if refine else 1) * heads
    assert sum(p.numel() for p in model.parameters()) == trained + frozen
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == trained
    assert refine or trained == 39_847_265
    assert model.levels.strides == (8, 16, 32, 64)
    with torch.no_grad():
        outputs = model(*batch((0,)))
    assert len(outputs) == len(detector.stages) == 6
    for output in outputs:
        assert output.logits.shape == (1, 300, 91)
        assert output.deltas.shape == output.anchors.shape == (1, 300, 4)
        assert output.level_sizes == (300,)


def test_stages():
    """Layers learn alike, each by a criterion of its own; the last one's parts have the loss's own names."""
    detector = built(*MINI)
    assert [stage.name for stage in detector.stages] == ["layer 1 ", ""]
    first, last = detector.stages
    assert first.criterion is not last.criterion
    assert (first.matcher, first.weight, first.num_classes) == (last.matcher, last.weight, last.num_classes)
    matcher = last.matcher
    assert (matcher.class_weight, matcher.l1_weight, matcher.giou_weight) == (2.0, 5.0, 2.0)
    _, parts = gradients(training(detector), batch())
    expected = {f"{layer}{part}" for layer in ("layer 1 ", "") for part in ("focal", "l1", "giou")}
    assert parts.keys() == {"loss"} | expected
    total = sum(2 * parts[f"{n}focal"] + 5 * parts[f"{n}l1"] + 2 * parts[f"{n}giou"] for n in ("layer 1 ", ""))
    assert parts["loss"] == pytest.approx(total, rel=1e-5)


def test_how_it_starts():
    """Every class at the prior, but for the weights; boxes 0.12 of the image on reference points, for every layer."""
    detector = built(*MINI, "model.refine=true")
    model = detector.model.eval()
    images, targets = batch()
    outputs = model(images, targets)
    names = model.queries.chunk(2, dim=1)[0]
    places = model.reference_points(names).sigmoid()
    for output in outputs:
        assert (output.deltas[..., 2:] - 0.1192).abs().max() < 1e-4
        torch.testing.assert_close(output.deltas[..., :2], places.expand(4, -1, -1), atol=1e-5, rtol=1e-4)
    prior = config(*MINI).prior
    for head in model.heads.class_output:
        torch.testing.assert_close(head.bias.sigmoid(), torch.full((CLASSES,), prior))
    whole = torch.tensor([0.0, 0, 64, 48])
    assert (outputs[-1].anchors == whole).all()


def with_loss(loss: str) -> Detector:
    """box_loss=none for a loss that trains the boxes too."""
    cfg = config(*LIGHT).copy()
    cfg.loss = OmegaConf.load(CONFIG_DIR / "loss" / f"{loss}.yaml")
    if getattr(make(cfg.loss), "has_box_loss", False):
        cfg.box_loss = {}
    torch.manual_seed(0)
    return build_detector(cfg, CLASSES)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_with_each_loss(loss):
    """Images with and without objects: every weight has a finite gradient, scores and boxes of both layers one."""
    detector = with_loss(loss)
    found, parts = gradients(training(detector), batch((3, 0)))
    bad = [name for name, gradient in found.items() if gradient is None or not gradient.isfinite().all()]
    assert bad == []
    for layer in (0, 1):
        assert found[f"heads.class_output.{layer}.weight"].any()
        assert found[f"heads.box_output.{layer}.4.weight"].any()
    assert len(parts) >= 3


@pytest.mark.parametrize("loss", ["focal", "parameterized_ap", "alrp"])
def test_a_step_without_any_object(loss):
    found, parts = gradients(training(with_loss(loss)), batch((0, 0)))
    assert all(gradient is not None and gradient.isfinite().all() for gradient in found.values())
    assert parts["loss"] >= 0


@pytest.mark.parametrize("blocked", [True, False])
def test_parameterized_ap_takes_the_place_of_both_losses(blocked):
    """The supplement's Table 1: blocked or not."""
    settings = [item for item in LIGHT if "loss" not in item]
    detector = built(*settings, "loss=parameterized_ap", "box_loss=none", f"loss.block_gradient={blocked}")
    found, parts = gradients(training(detector), batch())
    assert parts.keys() == {"loss", "layer 1 pap", "pap"}
    assert all(gradient.isfinite().all() for gradient in found.values())
    assert detector.stages[0].criterion.classification.block_gradient is blocked


def test_images_of_a_batch_do_not_mix():
    model = enlivened(built(*GROUP_NORM).model).double().train()
    images, targets = batch()
    together = model(images, targets)
    for i in (1, 2):
        for ours, alone in zip(together, model(images[i : i + 1], targets[i : i + 1]), strict=True):
            torch.testing.assert_close(ours.logits[i], alone.logits[0])
            torch.testing.assert_close(ours.deltas[i], alone.deltas[0])


@pytest.mark.parametrize(("norm", "refine"), [("bn", False), ("gn", True)])
def test_padding_changes_nothing(norm, refine):
    """Images of odd sizes in an input of 96 x 128, noise in the padding: what each image gives alone, but for 1e-5."""
    detector = built(*LIGHT, f"model.backbone.norm={norm}", f"model.refine={refine}", "model.levels.num_levels=4")
    enlivened(detector.model).double()
    sizes = [(96, 128), (71, 97), (33, 128), (96, 50)]
    images, targets = batch((0, 0, 0, 0), 96, 128)
    shown = [target._replace(size=size, shown=size) for target, size in zip(targets, sizes, strict=True)]
    together = candidates(detector, Batch(images, shown), CPU)
    for i, (h, w) in enumerate(sizes):
        (alone,) = candidates(detector, Batch(images[i : i + 1, :, :h, :w], [targets[i]._replace(size=(h, w))]), CPU)
        assert len(alone.boxes) == 12 * CLASSES
        assert alone.scores.std() > 1e-3
        torch.testing.assert_close(together[i].scores.sort().values, alone.scores.sort().values, rtol=1e-4, atol=1e-6)
        ours, theirs = (found.boxes[found.scores.argmax()] for found in (together[i], alone))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


def test_padding_in_training_is_not_looked_at():
    """Another padding changes nothing but through the backbone's and the levels' convolutions, left out here."""
    model = enlivened(built(*GROUP_NORM).model)
    sizes = {"c3": (6, 8), "c4": (3, 4), "c5": (2, 2)}
    maps = {name: torch.randn(1, model.backbone.channels[name], *size) for name, size in sizes.items()}
    tokens = model.levels(maps, [(24, 40)])
    assert tokens.padding.any()
    noise = torch.where(tokens.padding[..., None], 50.0, 0.0)
    memories = []
    for features in (tokens.features, tokens.features + noise):
        x = features
        for layer in model.encoder:
            x = layer(x, tokens)
        memories.append(x[~tokens.padding])
    torch.testing.assert_close(*memories)


def test_refined_boxes_start_from_the_layer_before():
    """With heads that add nothing but to the first layer's, all layers give the first one's boxes."""
    model = built(*LIGHT).model.eval()
    nn.init.normal_(model.heads.box_output[0][-1].weight)
    images, targets = batch()
    first, second = model(images, targets)
    assert first.deltas.std(dim=(0, 1)).min() > 0.01
    torch.testing.assert_close(second.deltas, first.deltas, atol=1e-4, rtol=1e-4)
    (second.deltas.sum() + 0 * second.logits.sum()).backward()
    assert not any(p.grad is not None and p.grad.any() for p in model.heads.box_output[0].parameters())  # cut off


@pytest.mark.parametrize("micro_batch", [1, 3])
def test_micro_batches(micro_batch):
    """The same losses and gradients as by one pass, but for rounding."""
    detector = built(*GROUP_NORM)
    whole, parts = gradients(training(detector), batch())
    whole = {name: gradient.clone() for name, gradient in whole.items()}
    detector.model.zero_grad()
    split, split_parts = gradients(training(detector, micro_batch=micro_batch), batch())
    assert split_parts == pytest.approx(parts, rel=1e-4)
    scale = max(float(gradient.abs().max()) for gradient in whole.values())
    assert scale > 0.01
    for name, gradient in whole.items():
        torch.testing.assert_close(split[name], gradient, rtol=1e-3, atol=1e-5 * scale, msg=name)


def test_half_precision():
    """A step under bf16 autocast: boxes stay float32, gradients are finite, and boxes near the full precision's."""
    trained = training(built(*GROUP_NORM), "bf16")
    images, targets = batch()
    with trained.autocast():
        half = trained.model(images, targets)
    full = trained.model(images, targets)
    for ours, theirs in zip(half, full, strict=True):
        assert (ours.logits.dtype, ours.deltas.dtype) == (torch.bfloat16, torch.float32)
        assert (ours.deltas - theirs.deltas).abs().max() < 0.02
    found, _ = gradients(trained, batch())
    assert all(gradient.isfinite().all() for gradient in found.values())


@pytest.mark.parametrize("size", [(5, 7), (1, 1), (20, 33)])
def test_images_below_the_largest_stride(size):
    detector = built(*GROUP_NORM)
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    objects = torch.tensor([[0.0, 0, size[1], size[0]]])
    targets = [Target(objects, torch.tensor([1]), torch.tensor([False]), i, size) for i in range(2)]
    found, _ = gradients(training(detector), Batch(images, targets))
    assert all(gradient.isfinite().all() for gradient in found.values())
    for found in candidates(detector, Batch(images, targets), CPU):
        assert (found.boxes <= torch.tensor([size[1], size[0]] * 2)).all()


def test_detections_are_the_best_pairs_and_none_is_suppressed():
    """100 of 40 queries x 3 classes, though boxes of one class coincide."""
    detector = built(*LIGHT, "model.num_queries=40")
    images, targets = batch((0,))
    (found,) = candidates(detector, Batch(images, targets), CPU)
    detections = detect_image(detector, [Batch(images, targets)], CPU)
    assert len(detections.boxes) == len(found.boxes) == 100
    scores = detector.probabilities(detector.model.eval()(images, targets)[-1].logits)
    torch.testing.assert_close(detections.scores, scores.flatten().sort(descending=True).values[:100].detach())


def test_training_after_evaluation_in_inference_mode():
    detector = built(*LIGHT)
    candidates(detector, batch(), CPU)
    found, _ = gradients(training(detector), batch())
    assert all(gradient is not None for gradient in found.values())


def test_any_memory_format():
    model = built(*LIGHT).model.eval()
    images, targets = batch()
    fast = copy.deepcopy(model).to(memory_format=torch.channels_last)(images, targets)
    for ours, theirs in zip(fast, model(images, targets), strict=True):
        torch.testing.assert_close(ours.logits, theirs.logits, atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(ours.deltas, theirs.deltas, atol=1e-4, rtol=1e-3)


def test_names():
    """The state dict's are the parts, and init_from finds the class head; a run's directory names the detector."""
    names = built(*LIGHT).model.state_dict().keys()
    parts = {"backbone", "levels", "encoder", "decoder", "queries", "reference_points", "heads"}
    assert {name.split(".")[0] for name in names} == parts
    assert any(name.startswith(SCORE_LAYERS) for name in names)
    assert run_directory(config(*MINI)).parent.name.startswith("deformable_detr_resnet18-focal-")


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("model.num_queries=0", r"^model\.num_queries=0: must be 1 or more$"),
        ("model.layers.decoder=1", r"^model\.layers\.decoder=1: must be a whole number from 2 on$"),
        ("model.layers.dropout=1.0", r"^model\.layers\.dropout=1\.0: must lie in \[0, 1\)$"),
        ("model.layers.num_heads=5", r"^model\.layers\.num_heads=5 must divide the \d+ channels$"),
        ("model.levels.num_levels=2", r"^model\.levels\.num_levels=2: the backbone gives 3 maps"),
    ],
)
def test_wrong_settings(setting, named):
    cfg = merge_dotlist(config(*MINI), [setting])
    with pytest.raises(UserError, match=named):
        build_detector(cfg, CLASSES)


def test_wrong_matchings():
    """Queries lie nowhere; regions are not matched by what is predicted of them."""
    cfg = config(*MINI).copy()
    cfg.matching = OmegaConf.load(CONFIG_DIR / "matching" / "max_iou.yaml")
    with pytest.raises(UserError, match=r"^config: this model's queries .* matched by: set matching=hungarian$"):
        build_detector(cfg, CLASSES)
    regions = config("model=faster_rcnn_quarter", "rpn=ce", "matching=hungarian")
    with pytest.raises(UserError, match=r"^config: regions are matched by where they lie, .*: set matching=roi$"):
        build_detector(regions, CLASSES)


def test_one_query_too_few():
    detector = built(*LIGHT, "model.num_queries=2")
    with pytest.raises(UserError, match=r"^image 70 has 3 objects, more than the model's 2 queries"):
        gradients(training(detector), batch())


def test_an_anchor_detector_may_be_matched_one_to_one():
    """RetinaNet: three objects, three anchors, whose boxes GIoU trains."""
    detector = built("model=retinanet_r18_quarter", "matching=hungarian", "box_loss=giou")
    images, targets = batch()
    inputs = detector.assign(detector.model(images), targets)
    assert (inputs.labels == 1).sum((1, 2)).tolist() == list(OBJECTS)
    assert GIoULoss()(inputs).total.isfinite()


@pytest.mark.full
def test_the_compiler_changes_nothing():
    trained = training(built(*GROUP_NORM))
    plain = {name: gradient.clone() for name, gradient in gradients(trained, batch((2, 0)))[0].items()}
    trained.model.zero_grad()
    network, trained.model = trained.model, torch.compile(trained.model, backend="eager")
    gradients(trained, batch((2, 0)))
    assert [name for name, p in network.named_parameters() if not torch.equal(p.grad, plain[name])] == []
