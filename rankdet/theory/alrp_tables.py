"""aLRP loss (NeurIPS 2020), Fig. 1 and Table 1: the toy example to the printed digit, and hyperparameters counted."""

import inspect
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from rankdet.evaluation.voc import ap_area
from rankdet.losses.alrp import ALRPLoss, alrp_loss
from rankdet.losses.ap import APLoss, ap_loss
from rankdet.losses.box import SmoothL1Loss
from rankdet.losses.criterion import Criterion
from rankdet.losses.dr import DRLoss
from rankdet.losses.focal import FocalLoss
from rankdet.losses.inputs import LossInputs
from rankdet.theory.alrp_pairs import ALRP
from rankdet.theory.claim import Finding, Table, Verdict, claim, difference
from rankdet.theory.probe import Loss

SCORES = torch.arange(10, 0, -1, dtype=torch.float64) / 10  # a_1 to a_10
POSITIVES = (0, 2, 5, 9)
NUM_OBJECTS = 5  # of which one has no anchor
IOUS = {"R1": (0.95, 0.8, 0.65, 0.5), "R2": (0.8, 0.65, 0.5, 0.95), "R3": (0.5, 0.65, 0.8, 0.95)}
THRESHOLDS = (0.5, 0.65, 0.8, 0.95)
PRINTED_AP = {
    "R1": (0.51, 0.43, 0.33, 0.20, 0.37),
    "R2": (0.51, 0.39, 0.24, 0.02, 0.29),
    "R3": (0.51, 0.19, 0.08, 0.02, 0.20),
}
PRINTED_LOSSES = {"R1": (0.87, 0.36, 0.28, 0.53), "R2": (0.87, 0.36, 0.28, 0.69), "R3": (0.87, 0.36, 0.28, 0.89)}
HARD = 0.01  # half width of the step, a tenth of the gaps between the scores
ROUNDED = 0.005 + 1e-9  # what a number may be off one that is printed with two decimals
LABELS = torch.zeros(10, dtype=torch.int8).index_fill(0, torch.tensor(POSITIVES), 1)


@claim(
    "AL-F1",
    "Fig. 1b, 1c",
    "AP of three box outputs for one score output, and four losses of them, of which aLRP alone tells them apart.",
)
def toy_example(
    loss: ALRP = alrp_loss, ap: Loss = ap_loss, average_precision: Callable[..., float] = ap_area
) -> Verdict:
    """Every printed value but L1 Loss, recomputed from the ten anchors; and how clear of rounding each is."""
    found_ap, found_losses = toy_values(loss, ap, average_precision)
    errors = [largest_gap(*tables) for tables in ((found_ap, PRINTED_AP), (found_losses, PRINTED_LOSSES))]
    by_overlap = [values[-1] for values in found_losses.values()]
    smoothed = [
        sum(p.item() for p in loss(SCORES, LABELS, 2 * (1 - torch.tensor(ious, dtype=torch.float64)), 1.0))
        for ious in IOUS.values()
    ]
    headers = ("output", *(f"AP{100 * t:g}" for t in THRESHOLDS), "AP", "cross entropy", "AP Loss", "IoU Loss", "aLRP")
    rows = [(name, *(f"{value:.4f}" for value in found_ap[name] + found_losses[name])) for name in IOUS]
    return Verdict(
        (
            Finding(errors[0] <= ROUNDED, f"15 values of Fig. 1b: at most {errors[0]:.4f} off what is printed"),
            Finding(errors[1] <= ROUNDED, f"12 values of Fig. 1c: at most {errors[1]:.4f} off what is printed"),
            Finding(
                by_overlap == sorted(by_overlap) and len(set(by_overlap)) == 3,
                f"aLRP rises as scores and IoUs agree less: {', '.join(f'{value:.4f}' for value in by_overlap)}",
            ),
        ),
        exceptions="L1 Loss, printed 0.29, cannot be recomputed: the boxes are not given. The values are those of the "
        f"hard step; with delta 1 on these scores aLRP is {', '.join(f'{value:.3f}' for value in smoothed)}.",
        reading="AP over 5 objects, one of them never found, precision made non-increasing: with 4 objects AP50 would "
        f"be {0.8**-1 * found_ap['R1'][0]:.2f}.",
        tables=(Table("values", headers, rows),),
    )


def toy_values(
    loss: ALRP = alrp_loss, ap: Loss = ap_loss, average_precision: Callable[..., float] = ap_area
) -> tuple[dict[str, tuple[float, ...]], dict[str, tuple[float, ...]]]:
    """R1 to R3 -> AP at each of THRESHOLDS and their mean; R1 to R3 -> cross entropy, AP-loss, IoU loss and aLRP."""
    by_threshold, by_loss = {}, {}
    for name, ious in IOUS.items():
        overlaps = np.zeros(10)
        overlaps[list(POSITIVES)] = ious
        values = [average_precision(overlaps >= threshold - 1e-9, NUM_OBJECTS) for threshold in THRESHOLDS]
        by_threshold[name] = (*values, sum(values) / 4)
        iou_loss = 1 - torch.tensor(ious, dtype=torch.float64)
        by_loss[name] = (
            functional.binary_cross_entropy(SCORES, LABELS.double()).item(),
            ap(SCORES, LABELS, step="heaviside", interpolate=False).item(),
            iou_loss.mean().item(),
            sum(part.item() for part in loss(SCORES, LABELS, iou_loss / (1 - 0.5), HARD)),
        )
    return by_threshold, by_loss


# The losses of Table 1 that are implemented, in its order, and what it prints.
TABLE_1: tuple[tuple[str, Sequence[type[nn.Module]], int], ...] = (
    ("AP Loss + smooth L1", (APLoss, SmoothL1Loss), 3),
    ("Focal Loss + smooth L1", (FocalLoss, SmoothL1Loss), 4),
    ("DR Loss + smooth L1", (DRLoss, SmoothL1Loss), 5),
    ("aLRP Loss", (ALRPLoss,), 1),
)


@claim("AL-T1", "Table 1", "aLRP has 1 hyperparameter; AP Loss, Focal Loss and DR Loss with smooth L1 have 3, 4 and 5.")
def hyperparameters(table: Sequence[tuple[str, Sequence[type[nn.Module]], int]] = TABLE_1) -> Verdict:
    """Counts the modules' arguments that are numbers and change what is learnt, less one for a factor of the whole."""
    findings, rows = [], []
    for name, modules, printed in table:
        counted = arguments_of(modules)
        count = len(counted) - 1
        findings.append(Finding(count == printed, f"{name}: {count}, printed {printed}"))
        rows.append((name, printed, count, ", ".join(counted)))
    return Verdict(
        tuple(findings),
        exceptions="aLRP: the weight with which self-balancing starts, 50, is a number too, which Table 4 tries four "
        "values of; without self-balancing delta is the only one. DR Loss: the released program's factor tau is "
        "counted here, which its supplement does not have. tau = 0.5 of E_loc is fixed in the library.",
        reading="a number counts if changing it by a tenth changes the gradient; one factor of the whole is the "
        "learning rate's affair. AP Loss's k has no effect at the default step.",
        tables=(Table("count", ("loss", "printed", "counted", "arguments, one of the weights not counted"), rows),),
    )


def arguments_of(modules: Sequence[type[nn.Module]]) -> list[str]:
    """What is counted of the modules together, as <module>.<argument>; of the weights among them all but one count."""
    return [f"{module.__name__}.{argument}" for module in modules for argument in effective(module, modules)]


def effective(module: type[nn.Module], modules: Sequence[type[nn.Module]]) -> list[str]:
    """The arguments of `module` with a number for default of which the gradient of all `modules` together depends."""
    plain, names = gradient_of([each() for each in modules]), []
    for name, parameter in inspect.signature(module).parameters.items():
        if isinstance(parameter.default, int | float) and not isinstance(parameter.default, bool):
            changed = {name: 1.1 * parameter.default}
            if difference(plain, gradient_of([each(**changed) if each is module else each() for each in modules])) > 0:
                names.append(name)
    return names


def gradient_of(terms: Sequence[nn.Module]) -> Tensor:
    """Of the criterion's first step on a made-up image, to scores, boxes and deltas: one vector."""
    generator = torch.Generator().manual_seed(4)
    labels = (torch.rand(1, 40, 3, generator=generator) < 0.1).to(torch.int8)
    positives = labels.reshape(-1).nonzero().squeeze(1)
    logits = torch.randn(1, 40, 3, generator=generator, dtype=torch.float64)
    target = torch.tensor([0.0, 0.0, 10.0, 10.0], dtype=torch.float64).expand(len(positives), 4)
    deltas = 2 * torch.randn(len(positives), 4, generator=generator, dtype=torch.float64)
    boxes = target + torch.rand(len(positives), 4, generator=generator, dtype=torch.float64)
    learnt = [tensor.requires_grad_() for tensor in (logits, deltas, boxes)]
    inputs = LossInputs(logits, labels, positives, deltas, torch.zeros_like(deltas), boxes, target)
    criterion = Criterion(terms)
    criterion.set_epoch_length(10)
    gradients = torch.autograd.grad(criterion(inputs).total, learnt, allow_unused=True)
    return torch.cat([g.reshape(-1) for g in gradients if g is not None])


def largest_gap(found: dict[str, tuple[float, ...]], printed: dict[str, tuple[float, ...]]) -> float:
    """The largest absolute difference of any two values."""
    return max(abs(a - b) for name in printed for a, b in zip(found[name], printed[name], strict=True))
