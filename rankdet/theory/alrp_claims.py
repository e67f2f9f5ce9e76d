"""aLRP loss (NeurIPS 2020), Sections 2 to 4.1: AP-loss restated, primary terms, balance, the update of the scores."""

from collections.abc import Callable

import torch
from torch import Tensor

from rankdet.losses.alrp import alrp_loss
from rankdet.losses.ap import ap_loss
from rankdet.losses.ranking import Ranking, error_driven_loss, named_step
from rankdet.theory.alrp_pairs import (
    ALRP,
    Case,
    algorithm_1,
    cases,
    harder,
    imbalance,
    lrp_from_counts,
    lrp_of,
    pairs_of,
    part_and_gradients,
)
from rankdet.theory.claim import Finding, Verdict, agree, at_most, claim, difference
from rankdet.theory.pair_matrix import differences, error_driven_update, primary_terms
from rankdet.theory.probe import Loss, value_and_gradient

SOFT = {"soft_localisation": True}  # Eq. 11 as it stands


def ap_of(loss: Loss, case: Case) -> tuple[float, Tensor]:
    """AP-loss by Eq. 4, so without interpolation: value and gradient."""
    return value_and_gradient(loss, case.scores, case.labels, delta=case.delta, interpolate=False)


@claim(
    "AL-Q1",
    "Eq. 2-5",
    "AP-loss is 1 - mean rank+(i)/rank(i), the mean over i of the sum of H(x_ij)/rank(i); Eq. 5 divides by P.",
)
def ap_loss_restated(loss: Loss = ap_loss) -> Verdict:
    """The library's AP-loss against both forms with Eq. 3's rank, and its gradient against Eq. 5 over all pairs."""
    ranks = sums = gradients = 0.0
    count = 0
    for case in cases():
        pairs, (value, gradient) = pairs_of(case), ap_of(loss, case)
        ranks = max(ranks, difference(value, 1 - ((1 + pairs.among.sum(1)) / pairs.rank).mean()))
        sums = max(sums, difference(value, (pairs.above / pairs.rank[:, None]).sum() / len(pairs.positives)))
        dx = error_driven_update(primary_terms(differences(case.scores), case.labels, case.step), case.labels)
        gradients = max(gradients, difference(gradient, (dx.sum(1) - dx.sum(0)) / len(pairs.positives)))
        count += 1
    return Verdict(
        (
            agree(f"library and Eq. 2, {count} batches and steps", ranks, 1e-12),
            agree("library and Eq. 4", sums, 1e-12),
            agree("library's gradient and Eq. 5", gradients, 1e-12),
        )
    )


@claim(
    "AL-Q2",
    "Eq. 6, 10",
    "LRP = (N_FP + N_FN + sum of E_loc over TP) / (N_FP + N_FN + N_TP), E_loc = (1 - IoU)/(1 - tau); l(i) is its case.",
)
def lrp_error(lrp: Callable[[int, int, Tensor], float] = lrp_from_counts, loss: ALRP = alrp_loss) -> Verdict:
    """A hand case; and the library's aLRP against the mean LRP of what is scored at least as high as each positive."""
    by_hand = lrp(2, 1, 2 * (1 - torch.tensor([0.9, 0.75, 0.5], dtype=torch.float64)))
    bounds = lrp(0, 0, torch.zeros(3)), lrp(4, 1, torch.ones(2)), lrp(3, 2, torch.zeros(0))
    error, count = 0.0, 0
    for case in cases():
        if case.hard:
            positives = case.labels == 1
            own, values = case.scores[positives], []
            for threshold in own:
                num_fp = int(((case.labels == 0) & (case.scores >= threshold)).sum())
                values.append(lrp(num_fp, 0, case.errors[own >= threshold]))
            ours = sum(part.item() for part in loss(case.scores, case.labels, case.errors, case.delta))
            error, count = max(error, difference(ours, sum(values) / len(values))), count + 1
    return Verdict(
        (
            agree("2 FP, 1 FN, IoUs .9, .75, .5 at tau .5, and (2 + 1 + .2 + .5 + 1)/6", abs(by_hand - 4.7 / 6), 1e-12),
            Finding(bounds == (0, 1, 1), f"perfect, worst and without TP: {bounds}"),
            agree(f"library and the mean of Eq. 6, thresholds at the positives' scores, {count} batches", error, 1e-12),
        ),
        exceptions="E_loc of a positive whose box has IoU below tau exceeds 1, and then LRP can exceed 1 too. oLRP, "
        "the least LRP of a detector's results over their scores, is a metric and no part of the losses.",
    )  # fmt: skip


@claim("AL-Q3", "Eq. 7, Theorem 1", "L = (1/Z) sum l(i) is the sum of the primary terms L_ij = l(i) p(j|i) over Z.")
def primary_terms_sum_up(loss: ALRP = alrp_loss, ap: Loss = ap_loss) -> Verdict:
    """AP-loss and aLRP by the library against the sum of primary terms, with and without negatives above all."""
    of_ap = covered = explained = lost = 0.0
    num_covered = num_lost = num_cases = 0
    for case in cases():
        pairs = pairs_of(case)
        rows = lrp_of(pairs, case.errors), pairs.num_fp / pairs.rank
        lrp_sum, ap_sum = ((row[:, None] * pairs.uniform).sum().item() / len(row) for row in rows)
        whole = sum(part.item() for part in loss(case.scores, case.labels, case.errors, case.delta, **SOFT))
        of_ap, num_cases = max(of_ap, difference(ap_of(ap, case)[0], ap_sum)), num_cases + 1
        first = pairs.num_fp == 0
        if first.any():
            num_lost += 1
            lost = max(lost, whole - lrp_sum)
            explained = max(explained, difference(whole - lrp_sum, rows[0][first].sum() / len(first)))
        else:
            num_covered += 1
            covered = max(covered, difference(whole, lrp_sum))
    return Verdict(
        (
            agree(f"AP-loss and its primary terms, {num_cases} batches and steps", of_ap, 1e-12),
            agree(f"aLRP and its terms where each positive has a negative above it ({num_covered})", covered, 1e-12),
            Finding(
                lost <= 1e-12,
                f"aLRP where some positive has none above it ({num_lost}): the terms lack up to {lost:.3f} of the loss",
            ),
            agree("what they lack, and (1/P) sum of l(i) over the positives with N_FP(i) = 0", explained, 1e-12),
        ),
        exceptions="where N_FP(i) = 0 and l(i) > 0, so for a well ranked positive whose box, or that of one above, is "
        "not perfect: p(j|i) = H/N_FP is 0/0. AP-loss has l(i) = 0 there.",
        reading="L_ij = 0 where N_FP(i) = 0: no score is pushed for such a positive, only boxes.",
    )  # fmt: skip


@claim("AL-Q4", "Algorithm 1", "One routine gives a ranking loss's gradient from l(i), Z and p(j|i).")
def one_routine(
    loss: ALRP = alrp_loss, ap: Loss = ap_loss, routine: Callable[..., Tensor] = error_driven_loss
) -> Verdict:
    """The library's error_driven_loss as AP-loss and aLRP; Algorithm 1 over all pairs; a skewed p; rank(i) = 1."""
    of_ap = of_alrp = dense = skewed = 0.0
    wrong = positives = 0
    for case in cases():
        pairs = pairs_of(case)
        current, target = lrp_of(pairs, case.errors), case.errors / pairs.rank

        def ap_terms(ranking: Ranking) -> tuple[Tensor, float, None]:
            return ranking.num_fp / ranking.rank, 0.0, None

        def alrp_terms(ranking: Ranking, errors: Tensor = case.errors) -> tuple[Tensor, Tensor, None]:
            whole = ranking.num_fp + errors + ranking.sum_above(errors)
            return whole / ranking.rank, errors / ranking.rank, None

        step = named_step("linear", case.delta)
        generic = [
            value_and_gradient(routine, case.scores, case.labels, terms=t, step=step)[1] for t in (ap_terms, alrp_terms)
        ]
        of_ap = max(of_ap, difference(ap_of(ap, case)[1], generic[0]))
        of_alrp = max(of_alrp, difference(part_and_gradients(loss, case)[1], generic[1]))
        dense = max(dense, difference(generic[1], algorithm_1(case, pairs, current, target, pairs.uniform)))
        skewed = max(skewed, imbalance(algorithm_1(case, pairs, current, target, harder(case, pairs)), case.labels))
        reached = pairs.num_fp > 0
        wrong += int((case.errors > current)[reached].sum())
        positives += int(reached.sum())
    return Verdict(
        (
            agree("error_driven_loss with AP-loss's l(i) and ap_loss, gradients", of_ap, 1e-12),
            agree("error_driven_loss with aLRP's l(i) and Eq. 13's target, and alrp_loss, gradients", of_alrp, 1e-12),
            agree("the same and Algorithm 1 over all pairs", dense, 1e-12),
            agree("Algorithm 1 with p(j|i) ~ H(x_ij) e^(x_ij): summed magnitudes of the two sides", skewed, 1e-12),
        ),
        exceptions=f"line 2 with rank(i) = 1 taken literally makes the target E_loc(i) p(j|i): for {wrong} of "
        f"{positives} positives that is above the present term, and the update moves the wrong way.",
        reading="the target keeps rank(i) in the denominator, as Eq. 13 does. The library's p is the uniform one.",
    )  # fmt: skip


@claim("AL-Q5", "Theorem 2, Eq. 8", "Summed gradient magnitudes of the positives and of the negatives are equal.")
def balanced(loss: ALRP = alrp_loss, ap: Loss = ap_loss) -> Verdict:
    """Both sides' sums for AP-loss, interpolated and not, and for aLRP, smoothed steps and hard ones."""
    sides = {"AP-loss": 0.0, "AP-loss interpolated": 0.0, "aLRP": 0.0}
    literal, count = 0.0, 0
    for case in cases():
        gradients = {
            "AP-loss": ap_of(ap, case)[1],
            "AP-loss interpolated": value_and_gradient(ap, case.scores, case.labels, delta=case.delta)[1],
            "aLRP": part_and_gradients(loss, case)[1],
        }
        for name, gradient in gradients.items():
            sides[name] = max(sides[name], imbalance(gradient, case.labels))
        pairs = pairs_of(case)
        with_rank_1 = algorithm_1(case, pairs, lrp_of(pairs, case.errors), case.errors, pairs.uniform)
        literal, count = max(literal, imbalance(with_rank_1, case.labels)), count + 1
    return Verdict(
        tuple(agree(f"{name}, both sums, {count} batches and steps", error, 1e-12) for name, error in sides.items()),
        exceptions="of a target above the present term, as Algorithm 1's rank(i) = 1 gives for aLRP: signs mix, and "
        f"the sums then differ by up to {literal:.3f} here. The theorem says nothing of a loss without negatives, such "
        "as Rank & Sort's sorting part.",
    )  # fmt: skip


@claim(
    "AL-Q6", "Eq. 9-11", "aLRP = mean LRP of the positives = classification + localisation part, in [0, 1] if E_loc is."
)
def two_parts(loss: ALRP = alrp_loss, ap: Loss = ap_loss) -> Verdict:
    """The library's parts against Eq. 9 to 11, AP-loss and the range; and its default, hard order of the positives."""
    whole = classification = hard_step = 0.0
    values, hard_order = [], []
    for case in cases():
        pairs = pairs_of(case)
        cls, loc = (part.item() for part in loss(case.scores, case.labels, case.errors, case.delta, **SOFT))
        whole = max(whole, difference(cls + loc, lrp_of(pairs, case.errors).mean()))
        classification = max(classification, difference(cls, ap_of(ap, case)[0]))
        ordered = loss(case.scores, case.labels, case.errors, case.delta)[1].item()
        if case.hard:
            hard_step = max(hard_step, difference(loc, ordered))
        else:
            hard_order.append(ordered / loc)
        for errors in (case.errors, torch.ones_like(case.errors), (case.errors > 0.5).double()):
            for settings in (SOFT, {}):
                values.append(sum(p.item() for p in loss(case.scores, case.labels, errors, case.delta, **settings)))
    return Verdict(
        (
            agree("sum of the library's parts, soft localisation, and Eq. 9 with Eq. 10", whole, 1e-12),
            agree("classification part and AP-loss without interpolation", classification, 1e-12),
            at_most(f"largest of {len(values)} values, errors in [0, 1], both localisations", max(values), 1 + 1e-12),
            at_most("minus the least", -min(values), 0),
            agree("with H, the localisation part and the library's default, a hard order", hard_step, 1e-12),
        ),
        exceptions="errors 1 - GIoU run up to 2, and the loss with them. With a smoothed step the default localisation "
        f"part is not Eq. 11: here {min(hard_order):.3f} to {max(hard_order):.3f} times it.",
    )  # fmt: skip


@claim(
    "AL-Q7",
    "Eq. 12-14",
    "dx_ij = -(N_FP(i) + sum_{k != i} E_loc(k) H(x_ik)) / rank(i) H(x_ij)/N_FP(i), target less primary term.",
)
def update_of_scores(loss: ALRP = alrp_loss) -> Verdict:
    """Eq. 13 less Eq. 12 against Eq. 14; the library's gradient against Eq. 14 through Eq. 5."""
    terms, ours, own, without = 0.0, 0.0, 0.0, 0
    for case in cases():
        pairs = pairs_of(case)
        primary = lrp_of(pairs, case.errors)[:, None] * pairs.uniform
        target = (case.errors / pairs.rank)[:, None] * pairs.uniform
        pushed = (pairs.num_fp + pairs.among @ case.errors) / pairs.rank
        terms = max(terms, difference(target - primary, -pushed[:, None] * pairs.uniform))
        _, gradient, to_errors = part_and_gradients(loss, case)
        ours = max(ours, difference(gradient, algorithm_1(case, pairs, pushed, 0.0, pairs.uniform)))
        own = max(own, difference(to_errors, torch.zeros_like(to_errors)))
        without += int((pairs.num_fp == 0).sum())
    return Verdict(
        (
            agree("Eq. 13 less Eq. 12, and Eq. 14", terms, 1e-12),
            agree("library's gradient of the classification part and Eq. 14 through Eq. 5", ours, 1e-12),
            agree("gradient of the classification part to the errors, and 0", own, 0),
        ),
        exceptions=f"N_FP(i) = 0 ({without} positives here), where Eq. 14 is 0/0: no push. The library, like the "
        "released program, also drops pushes where N_FP(i) <= 1e-5.",
    )
