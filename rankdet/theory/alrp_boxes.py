"""aLRP loss (NeurIPS 2020), Sections 4.1 and 4.2: the gradient of the boxes, self-balancing, and Fig. 2."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rankdet.losses.alrp import alrp_loss
from rankdet.losses.overlap import paired_iou
from rankdet.losses.self_balance import SelfBalance
from rankdet.theory.alrp_pairs import ALRP, Case, cases, lrp_of, pairs_of, part_and_gradients
from rankdet.theory.claim import Finding, Table, Verdict, agree, at_most, claim, difference
from rankdet.theory.pair_matrix import heaviside, piecewise

# How far positives lead, in logits: from the start of training to its end.
LEADS = (-3.0, 0.0, 2.0, 4.0, 6.0, 12.0)


@claim(
    "AL-Q8",
    "Sec. 4.1, Fig. 2c",
    "Only E_loc is differentiated by the boxes; a positive weighs the sum of 1/rank of those not above it, over P.",
)
def box_weights(loss: ALRP = alrp_loss, overlap: Callable[[Tensor, Tensor], Tensor] = paired_iou) -> Verdict:
    """The gradient to E_loc against the closed form, hard and smoothed; boxes by autograd through Eq. 6, 10 and 11."""
    ordered = smooth = boxes = scores_moved = 0.0
    generator = torch.Generator().manual_seed(2)
    count = 0
    for case in cases():
        pairs = pairs_of(case)
        _, to_scores, hard = part_and_gradients(loss, case, part=1)
        _, _, soft = part_and_gradients(loss, case, part=1, soft_localisation=True)
        own = case.scores[pairs.positives]
        earlier = torch.arange(len(own))[:, None] <= torch.arange(len(own))
        below = (own[:, None] < own) | ((own[:, None] == own) & earlier)  # [i, k]: i is not above k
        weights = below.double().T @ (1 / pairs.rank) / len(own)
        ordered = max(ordered, difference(hard, weights))
        smooth = max(smooth, difference(soft, (1 / pairs.rank + pairs.among.T @ (1 / pairs.rank)) / len(own)))
        scores_moved = max(scores_moved, difference(to_scores, torch.zeros_like(to_scores)))
        target = torch.tensor([[0.0, 0.0, 10.0, 10.0]], dtype=torch.float64).expand(len(own), 4)
        pred = target + torch.rand(len(own), 4, generator=generator, dtype=torch.float64)
        boxes = max(boxes, difference(*(box_gradient(form, case, pred, target, overlap) for form in (loss, None))))
        count += 1
    return Verdict(
        (
            agree(f"library's gradient to E_loc and (1/P) sum of 1/rank, {count} batches and steps", ordered, 1e-12),
            agree("soft localisation, and the same with H smoothed", smooth, 1e-12),
            agree("gradient to the boxes and autograd through Eq. 6, 10 and 11 as they stand", boxes, 1e-12),
            agree("gradient of the localisation part to the scores, and 0", scores_moved, 0),
        ),
        reading="of equally scored positives the earlier one is the lower, as in the released program.",
    )


@claim(
    "AL-Q9",
    "Sec. 4.2",
    "Summed gradient magnitudes are about L; the boxes' gradient is multiplied by the last epoch's L / L_loc.",
)
def self_balancing(loss: ALRP = alrp_loss, balance: Callable[..., SelfBalance] = SelfBalance) -> Verdict:
    """The ratio as positives come to lead; what it lacks; and the weights of three epochs of four steps by hand."""
    rows, exact = [], 0.0
    for lead in LEADS:
        ratio, parts, gap = gradient_share(loss, lead)
        exact = max(exact, gap)
        rows.append((f"{lead:g}", *(f"{value:.3f}" for value in (*parts, ratio))))
    ratios = [float(row[-1]) for row in rows]
    cls = [0.9, 0.8, 0.9, 0.8, 0.6, 0.5, 0.6, 0.5, 0.3, 0.2, 0.3, 0.2]
    loc = [0.04, 0.06, 0.03, 0.07, 0.1, 0.05, 0.15, 0.1, 0.1, 0.2, 0.2, 0.3]
    module = balance(initial_weight=50.0, period=4)
    parts = torch.tensor([cls, loc], dtype=torch.float64).T
    weights = torch.stack([module(*step) for step in parts])
    first, second, third = (0.85 + 0.05) / 0.05, (0.55 + 0.1) / 0.1, (0.25 + 0.2) / 0.2
    expected = torch.tensor([50.0] * 3 + [first] * 4 + [second] * 4 + [third], dtype=torch.float64)
    return Verdict(
        (
            agree("what they lack, and the mean of E_loc(i)/rank(i), or of l(i) where N_FP(i) = 0", exact, 1e-12),
            Finding(ratios[0] >= 0.95, f"while negatives lead, as training starts: {ratios[0]:.3f} of L"),
            Finding(min(ratios) >= 0.95, f"at every stage: down to {min(ratios):.3f} of L"),
            agree(
                f"weights of 3 epochs of 4 steps, {', '.join(f'{w:g}' for w in expected[2::4])}, and the library's",
                difference(weights, expected),
                1e-12,
            ),
        ),
        exceptions="as positives come to lead, the scores' gradient vanishes while L keeps its localisation part, so "
        "that they are about L only as training starts, for which self-balancing is made.",
        reading="the mean of L over the mean of L_loc, not the mean of their ratios; the new weight holds from the "
        "last step of the epoch that it is computed on. Both as in the released program.",
        tables=(Table("ratio", ("lead of positives", "classification", "localisation", "magnitudes / L"), rows),),
    )  # fmt: skip


@claim(
    "AL-Q10",
    "Fig. 2",
    "(a) E_loc above a positive adds to its push, (b) which negatives above share evenly; (c) the first weighs most.",
)
def properties_of_gradients(loss: ALRP = alrp_loss) -> Verdict:
    """(a) raises each positive's error in turn; (b) keeps one positive at a time; (c) orders the weights."""
    least_rise, unmoved, uneven, smooth_uneven, weight_rise = float("inf"), 0.0, 0.0, 0.0, 0.0
    num_rises = num_shares = 0
    for case in cases():
        pairs = pairs_of(case)
        own = case.scores[pairs.positives]
        _, gradient, _ = part_and_gradients(loss, case)
        if case.hard:
            for k in range(min(4, len(own))):
                errors = case.errors + torch.eye(len(own), dtype=torch.float64)[k]
                moved = (gradient - part_and_gradients(loss, case, errors)[1])[pairs.positives]  # > 0: pushed more
                affected = (own < own[k]) & (pairs.num_fp > 0)
                least_rise = min(least_rise, moved[affected].min().item() if affected.any() else float("inf"))
                unmoved = max(unmoved, moved[~affected].abs().max().item() if (~affected).any() else 0.0)
                num_rises += int(affected.sum())
        for k in range(min(4, len(own))):
            shares = shares_of(loss, case, k)
            spread = (shares.max() - shares.min()).item() if len(shares) else 0.0
            if case.hard:
                uneven, num_shares = max(uneven, spread), num_shares + len(shares)
            else:
                smooth_uneven = max(smooth_uneven, spread)
        for settings in ({}, {"soft_localisation": True}):
            _, _, weights = part_and_gradients(loss, case, part=1, **settings)
            if len(own) > 1 and len(own.unique()) == len(own):
                weight_rise = max(weight_rise, weights[own.argsort(descending=True)].diff().max().item())
    return Verdict(
        (
            Finding(
                0 < least_rise < float("inf"),
                f"(a) as an error rises by 1, least rise of {num_rises} lower positives' pushes: {least_rise:.2e}",
            ),
            agree("(a) push of the positives that are not lower, and itself", unmoved, 1e-12),
            agree(f"(b) largest and least of a positive's {num_shares} shares, in parts of its push", uneven, 1e-9),
            at_most("(c) largest rise of the weight from one positive to the next lower one", weight_rise, 1e-12),
        ),
        exceptions="(a) not of a lower positive with N_FP = 0, which is pushed by nothing. (b) with the smoothed step "
        f"shares go as f(x_ij): within delta they differ by up to {smooth_uneven:.2f} of a push here.",
    )  # fmt: skip


def box_gradient(
    loss: ALRP | None, case: Case, pred: Tensor, target: Tensor, overlap: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """[P, 4]: of both parts by the library with soft localisation; None: of Eq. 9 by autograd."""
    pred = pred.clone().requires_grad_()
    errors = 2 * (1 - overlap(pred, target))
    if loss is None:
        lrp_of(pairs_of(case), errors).mean().backward()
    else:
        sum(loss(case.scores, case.labels, errors, case.delta, soft_localisation=True)).backward()
    return pred.grad


def gradient_share(loss: ALRP, lead: float) -> tuple[float, Sequence[float], float]:
    """Summed magnitudes of one side over L, the parts of L, and how far what is lacking is from its closed form."""
    generator = torch.Generator().manual_seed(3)
    labels = (torch.arange(420) < 20).to(torch.int8)
    scores = torch.randn(420, generator=generator, dtype=torch.float64) + lead * labels
    errors = torch.rand(20, generator=generator, dtype=torch.float64)
    case = Case(scores, labels, errors, piecewise(1.0), 1.0, False)
    pairs = pairs_of(case)
    cls, gradient, _ = part_and_gradients(loss, case, soft_localisation=True)
    loc, _, _ = part_and_gradients(loss, case, part=1, soft_localisation=True)
    total, magnitude = cls + loc, gradient[labels == 1].abs().sum().item()
    lacking = torch.where(pairs.num_fp > 1e-5, errors / pairs.rank, lrp_of(pairs, errors)).mean()
    return magnitude / total, (cls, loc), difference(total - magnitude, lacking)


def shares_of(loss: ALRP, case: Case, k: int) -> Tensor:
    """How the push of the k-th positive, the only one kept, is shared by the negatives not below: [n], sum 1."""
    kept = (case.labels == 1).nonzero()[k]
    labels = case.labels.where(case.labels != 1, -1).index_fill(0, kept, 1)
    alone = case._replace(labels=labels, errors=case.errors[k : k + 1])
    _, gradient, _ = part_and_gradients(loss, alone)
    above = (labels == 0) & (heaviside(case.scores - case.scores[kept]) == 1)
    return gradient[above] / gradient[kept].abs()
