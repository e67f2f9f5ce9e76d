"""AP-loss (TPAMI 2020), Section 3.1: labels, pairs, and the values of AP-loss and AUC-loss."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rankdet.data.records import Target
from rankdet.losses.ap import ap_loss
from rankdet.losses.auc import auc_loss
from rankdet.losses.inputs import LossInputs
from rankdet.matching.assign import build_loss_inputs
from rankdet.matching.boxes import BoxCoder
from rankdet.matching.max_iou import MaxIoUMatcher
from rankdet.models.output import DetectorOutput
from rankdet.theory.claim import Finding, Verdict, agree, claim, difference
from rankdet.theory.pair_matrix import ap_loss_of, differences, heaviside, pair_labels, primary_terms
from rankdet.theory.probe import Loss, random_batches, value_and_gradient


@claim(
    "AP-Q1",
    "Sec. 3.1.1, Fig. 3",
    "A box with label t in {-1, 0, 1..K} becomes K boxes with labels t_ik in {-1, 0, 1}; ignored ones take no part.",
)
def label_replication(build: Callable[..., LossInputs] = build_loss_inputs, loss: Loss = ap_loss) -> Verdict:
    """Four anchors and two objects by hand; the library's labels and the rule's."""
    objects = torch.tensor([[0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]])
    target = Target(objects, torch.tensor([1, 2]), torch.zeros(2, dtype=torch.bool), image_id=1, size=(200, 200))
    on_the_first, elsewhere, near_it = [0.0, 0.0, 10.0, 10.0], [100.0, 100.0, 110.0, 110.0], [0.0, 0.0, 10.0, 4.5]
    anchors = torch.tensor([on_the_first, elsewhere, near_it, [50.0, 50.0, 60.0, 60.0]])
    t = torch.tensor([2, 0, -1, 3])  # classes count from 1 here; near_it has IoU 0.45, neither object nor background
    classes = torch.arange(1, 4)
    expected = torch.where(t[:, None] == -1, -1, (t[:, None] == classes).long())  # [4, 3]
    logits = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    output = DetectorOutput(logits, torch.zeros(1, 4, 4), anchors, (4,))
    labels = build(output, [target], MaxIoUMatcher(), BoxCoder(), 3).labels[0]
    value, gradient = value_and_gradient(loss, logits[0], labels)
    moved, _ = value_and_gradient(loss, logits[0] + 5 * (expected == -1), labels)
    rows = [labels[row].tolist() for row in range(4)]
    return Verdict(
        (
            Finding(labels.tolist() == expected.tolist(), f"labels of t = {t.tolist()} with K = 3: {rows}"),
            agree("loss when the ignored scores move by 5", difference(value, moved), 0),
            agree("gradient of the ignored scores, and 0", difference(gradient[expected == -1], torch.zeros(3)), 0),
        )
    )


@claim(
    "AP-Q2",
    "Eq. 1-4",
    "x_ij = s_j - s_i; y_ij = 1 for i positive, j negative; L_ij = H(x_ij) / (1 + sum_{k != i} H(x_ik)); H(0) = 1.",
)
def pair_matrices(terms: Callable[..., Tensor] = primary_terms) -> Verdict:
    """The vectorised matrices, on which later checks stand, against two loops over Python numbers."""
    errors, count = [0.0, 0.0, 0.0], 0
    for scores, labels in random_batches(12):
        x, y, matrix = loops_over_pairs(scores.tolist(), labels.tolist())
        valid = labels != -1
        ours = terms(differences(scores), labels, heaviside)
        pairs = (differences(scores), x), (pair_labels(labels), y), (ours[valid][:, valid], matrix[valid][:, valid])
        errors = [max(error, difference(a, b)) for error, (a, b) in zip(errors, pairs, strict=True)]
        count += len(scores) ** 2
    tie = terms(differences(torch.zeros(2, dtype=torch.float64)), torch.tensor([1, 0]), heaviside)[0, 1].item()
    what = [f"{name} of {count} pairs against two loops" for name in ("x", "y", "L")]
    return Verdict(
        (
            *(agree(name, error, 1e-15) for name, error in zip(what, errors, strict=True)),
            Finding(tie == 0.5, f"a positive and a negative that tie: L = {tie}, so H(0) = 1"),
        ),
        reading="ties, which the text has broken arbitrarily, are errors by H(0) = 1.",
    )


@claim(
    "AP-Q3",
    "Eq. 5-6",
    "AP-loss = 1 - mean of rank+(i) / rank(i) = mean over positives of the row sums of L, all classes ranked together.",
)
def forms_of_ap_loss(loss: Loss = ap_loss) -> Verdict:
    """The library's value, both forms and an AP of another make; its range; one ranking for all classes."""
    errors, values, ties = [0.0, 0.0, 0.0], [], 0.0
    for scores, labels in random_batches():
        terms = primary_terms(differences(scores), labels, heaviside)
        ours = loss(scores, labels, step="heaviside", interpolate=False).item()
        values.append(ours)
        others = rank_form(scores, labels), ap_loss_of(terms, labels).item()
        errors[:2] = [max(error, difference(ours, other)) for error, other in zip(errors[:2], others, strict=True)]
        kept = scores[labels != -1]
        gap = difference(ours, 1 - average_precision(scores, labels))
        if len(kept.unique()) == len(kept):
            errors[2] = max(errors[2], gap)
        else:
            ties = max(ties, gap)
    worst = torch.zeros(20_001, dtype=torch.float64)
    worst[0] = -5
    values.append(loss(worst, (worst < 0).to(torch.int8), step="heaviside", interpolate=False).item())
    joint, flat, per_class = one_ranking(loss)
    return Verdict(
        (
            agree("library and 1 - mean of rank+/rank", errors[0], 1e-12),
            agree("library and mean of row sums of L", errors[1], 1e-12),
            agree("library and 1 - AP by sorting, tie-free scores", errors[2], 1e-12),
            Finding(min(values) >= 0 and max(values) < 1, f"values from {min(values):.3g} to {max(values):.6f}"),
            agree("loss of [50 boxes, 4 classes] and of the same scores in one row", difference(joint, flat), 1e-12),
        ),
        exceptions=f"a sort breaks ties by position, and then differs by up to {ties:.2f}; the mean of the 4 classes' "
        f"own losses is another number ({per_class:.4f} against {joint:.4f}), as Sec. 3.1.1 says.",
    )


@claim("AP-Q4", "Eq. 7", "AUC-loss: the same framework with L'_ij = H(x_ij) / number of negatives; it is 1 - AUC.")
def auc_is_a_share_of_pairs(loss: Loss = auc_loss) -> Verdict:
    """The value with a step narrower than any gap; the gradient of Eq. 14 with L'; the value with delta 1."""
    value_error = gradient_error = smoothed = 0.0
    for scores, labels in random_batches(ties=False):
        gaps = scores.sort().values.diff()
        positives, negatives = scores[labels == 1], scores[labels == 0]
        auc = (positives[:, None] > negatives).double().mean().item()
        value, gradient = value_and_gradient(loss, scores, labels, delta=gaps.min().item() / 2)
        wrong = heaviside(differences(scores)) * pair_labels(labels) / len(negatives)
        expected = (wrong.sum(0) - wrong.sum(1)) / len(positives)
        value_error = max(value_error, difference(value, 1 - auc))
        gradient_error = max(gradient_error, difference(gradient, expected))
        smoothed = max(smoothed, difference(loss(scores, labels, delta=1.0).item(), 1 - auc))
    return Verdict(
        (
            agree("library with delta under half the least gap, and 1 - AUC", value_error, 1e-12),
            agree("its gradient and Eq. 14 with L' over the number of positives", gradient_error, 1e-12),
        ),
        exceptions=f"with the step of training, delta 1, the value differs from 1 - AUC by up to {smoothed:.3f}.",
    )


def loops_over_pairs(scores: Sequence[float], labels: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """x, y and L of Eq. 1-4 pair by pair, float64 [n, n]; L is 0 where i or j is ignored."""
    n = len(scores)
    x, y, matrix = (torch.zeros(n, n, dtype=torch.float64) for _ in range(3))
    for i in range(n):
        rank = 1 + sum(labels[k] != -1 and scores[k] - scores[i] >= 0 for k in range(n) if k != i)
        for j in range(n):
            x[i, j] = scores[j] - scores[i]
            y[i, j] = labels[i] == 1 and labels[j] == 0
            matrix[i, j] = (labels[i] != -1 and labels[j] != -1 and scores[j] - scores[i] >= 0) / rank
    return x, y, matrix


def rank_form(scores: Tensor, labels: Tensor) -> float:
    """Eq. 5, first line, with both ranks counted: ties stand above."""
    precisions = []
    for i in (labels == 1).nonzero().squeeze(1).tolist():
        above = scores >= scores[i]
        precisions.append((above & (labels == 1)).sum().item() / (above & (labels != -1)).sum().item())
    return 1 - sum(precisions) / len(precisions)


def average_precision(scores: Tensor, labels: Tensor) -> float:
    """Mean over the positives of the precision of the list that ends with them, without interpolation."""
    kept = labels != -1
    hits = (labels[kept][scores[kept].argsort(descending=True)] == 1).double()
    precisions = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
    return precisions[hits == 1].mean().item()


def one_ranking(loss: Loss) -> tuple[float, float, float]:
    """AP-loss of a [50, 4] batch, of the same as one row, and the mean of its 4 columns' own."""
    generator = torch.Generator().manual_seed(3)
    scores = torch.randn(50, 4, generator=generator, dtype=torch.float64)
    labels = (torch.rand(50, 4, generator=generator) < 0.2).to(torch.int8)
    settings = {"step": "heaviside", "interpolate": False}
    columns = [loss(scores[:, c], labels[:, c], **settings).item() for c in range(4)]
    return (
        loss(scores, labels, **settings).item(),
        loss(scores.reshape(-1), labels.reshape(-1), **settings).item(),
        sum(columns) / 4,
    )
