"""What the claims of aLRP come to for the library; they are said not to hold for something else in its place."""

import json

import pytest
import torch

from rankdet.losses.alrp import ALRPLoss, alrp_loss
from rankdet.losses.ap import APLoss, ap_loss
from rankdet.losses.box import SmoothL1Loss
from rankdet.losses.focal import FocalLoss
from rankdet.losses.ranking import error_driven_loss
from rankdet.losses.self_balance import SelfBalance
from rankdet.theory import alrp_boxes, alrp_claims, alrp_pairs, alrp_tables
from rankdet.theory.claim import claims_of

CLAIMS = {claim.id: claim for module in (alrp_claims, alrp_boxes, alrp_tables) for claim in claims_of(module)}
# Findings that do not hold: what is said where a claim does not.
FAILING = {
    "AL-Q3": ["aLRP where some positive has none above it"],
    "AL-Q9": ["at every stage"],
    "AL-T1": ["DR Loss + smooth L1", "aLRP Loss"],
}


def always_interpolated(logits, labels, interpolate=True, **settings):
    return ap_loss(logits, labels, **settings)


def always_soft(logits, labels, errors, delta=1.0, soft_localisation=False):
    return alrp_loss(logits, labels, errors, delta, True)


def never_soft(logits, labels, errors, delta=1.0, soft_localisation=False):
    return alrp_loss(logits, labels, errors, delta)


def without_boxes(logits, labels, errors, delta=1.0, soft_localisation=False):
    """Classification as if all boxes were perfect: AP-loss's gradient."""
    _, loc = alrp_loss(logits, labels, errors, delta, soft_localisation)
    return alrp_loss(logits, labels, 0 * errors, delta)[0], loc


def undetached(logits, labels, errors, delta=1.0, soft_localisation=False):
    cls, loc = alrp_loss(logits, labels, errors, delta, soft_localisation)
    return cls + 0.1 * (errors.sum() - errors.sum().detach()), loc


def unbalanced(logits, labels, errors, delta=1.0, soft_localisation=False):
    cls, loc = alrp_loss(logits, labels, errors, delta, soft_localisation)
    extra = 0.01 * logits[labels == 0].sum()
    return cls + extra - extra.detach(), loc


def uneven(logits, labels, errors, delta=1.0, soft_localisation=False):
    """Of the negatives the first gets more."""
    cls, loc = alrp_loss(logits, labels, errors, delta, soft_localisation)
    extra = 0.01 * logits[labels == 0][0]
    return cls + extra - extra.detach(), loc


def twice(logits, labels, errors, delta=1.0, soft_localisation=False):
    return tuple(2 * part for part in alrp_loss(logits, labels, errors, delta, soft_localisation))


def ascending_weights(logits, labels, errors, delta=1.0, soft_localisation=False):
    """Weighs the last positive most."""
    return alrp_loss(logits, labels, errors, delta)[0], alrp_loss(-logits, labels, errors, delta, soft_localisation)[1]


def one_more(num_fp, num_fn, errors):
    return alrp_pairs.lrp_from_counts(num_fp + 1, num_fn, errors)


class MeanOfRatios(SelfBalance):
    def forward(self, classification, localisation):
        return super().forward(classification / localisation, localisation / localisation)


def plain_average_precision(right, num_objects):
    return (right.cumsum() / (1 + torch.arange(len(right)).numpy()))[right].sum() / num_objects


SPOILED = [
    ("AL-Q1", {"loss": always_interpolated}),
    ("AL-Q2", {"loss": twice}),
    ("AL-Q2", {"lrp": one_more}),
    ("AL-Q3", {"ap": always_interpolated}),
    ("AL-Q3", {"loss": never_soft}),
    ("AL-Q4", {"ap": always_interpolated}),
    ("AL-Q4", {"loss": without_boxes}),
    ("AL-Q4", {"routine": lambda *args, **settings: 2 * error_driven_loss(*args, **settings)}),
    ("AL-Q5", {"loss": unbalanced}),
    ("AL-Q6", {"loss": never_soft}),
    ("AL-Q6", {"loss": always_soft, "ap": always_interpolated}),
    ("AL-Q6", {"loss": twice}),
    ("AL-Q7", {"loss": without_boxes}),
    ("AL-Q7", {"loss": undetached}),
    ("AL-Q8", {"loss": always_soft}),
    ("AL-Q8", {"loss": twice}),
    ("AL-Q9", {"loss": twice}),
    ("AL-Q9", {"balance": MeanOfRatios}),
    ("AL-Q9", {"balance": lambda initial_weight, period: SelfBalance(1.0, period)}),
    ("AL-Q10", {"loss": without_boxes}),
    ("AL-Q10", {"loss": ascending_weights}),
    ("AL-Q10", {"loss": uneven}),
    ("AL-F1", {"loss": twice}),
    ("AL-F1", {"loss": lambda *args: alrp_loss(*args[:3], delta=1.0)}),
    ("AL-F1", {"ap": lambda logits, labels, **settings: ap_loss(logits, labels, interpolate=False)}),
    ("AL-F1", {"average_precision": plain_average_precision}),
    ("AL-T1", {"table": [("AP Loss", (APLoss, SmoothL1Loss), 4)]}),
]


def failing(verdict):
    return [finding.text for finding in verdict.findings if not finding.holds]


def is_expected(id, texts):
    expected = FAILING.get(id, [])
    return len(texts) == len(expected) and all(map(str.startswith, texts, expected))


@pytest.mark.parametrize("id", CLAIMS)
def test_on_the_library(id):
    verdict = CLAIMS[id].check()
    assert is_expected(id, failing(verdict)), failing(verdict)
    assert verdict.word == ("does not hold" if id in FAILING else "holds")
    assert verdict.holds or verdict.exceptions  # says where and why


@pytest.mark.parametrize(("id", "arguments"), SPOILED)
def test_can_fail(id, arguments):
    assert not is_expected(id, failing(CLAIMS[id].check(**arguments)))


def test_every_claim_can_fail_and_the_checklist_is_complete():
    assert list(CLAIMS) == [*(f"AL-Q{n}" for n in range(1, 11)), "AL-F1", "AL-T1"]
    assert {id for id, _ in SPOILED} == set(CLAIMS)


def test_the_claims_that_do_not_hold_can():
    """Without self-balancing delta is the only number of aLRP, as Table 1 has it."""

    class ConstantWeight(ALRPLoss):
        def __init__(self, delta: float = 1.0, weight: float = 1.0) -> None:
            super().__init__(delta, localisation_weight=1.0, weight=weight)

    rows = [("AP", (APLoss, SmoothL1Loss), 3), ("Focal", (FocalLoss, SmoothL1Loss), 4), ("aLRP", (ConstantWeight,), 1)]
    assert CLAIMS["AL-T1"].check(table=rows).holds


def test_toy_values(repo):
    """The unrounded values of Fig. 1 stored with the golden data; AP of R1: (1 + 2/3 + 3/6 + 4/10) / 5 = 0.5133."""
    stored = json.loads((repo / "tests" / "golden" / "alrp_toy.json").read_text())
    rows = CLAIMS["AL-F1"].check().tables[0].rows
    assert len(rows) == 3
    for name, *cells in rows:
        values = [float(cell) for cell in cells]
        assert values[0] == pytest.approx((1 + 2 / 3 + 3 / 6 + 4 / 10) / 5, abs=5e-5)
        step = stored["equation_values"]["step"]
        expected = stored["ce_mean"], step["ap_loss"], stored["iou_loss_mean"][name], step[name]["alrp"]
        assert values[5:] == pytest.approx(expected, abs=5e-5)
        assert list(alrp_tables.PRINTED_AP[name]) == stored["paper"]["ap"][name]
        assert alrp_tables.PRINTED_LOSSES[name][3] == stored["paper"]["alrp"][name]
        assert list(alrp_tables.IOUS[name]) == stored["ious"][name]
    assert alrp_tables.SCORES.tolist() == pytest.approx(stored["scores"])
    assert list(alrp_tables.POSITIVES) == stored["positive_index"]


def test_pairs_by_hand():
    """Positives at 0 and 2 with errors .4 and .2, a negative at 1, hard: ranks 3 and 1, l = (1 + .4 + .2)/3 and .2."""
    scores, labels = torch.tensor([0.0, 2.0, 1.0], dtype=torch.float64), torch.tensor([1, 1, 0])
    errors = torch.tensor([0.4, 0.2], dtype=torch.float64)
    case = alrp_pairs.Case(scores, labels, errors, alrp_pairs.heaviside, 0.25, True)
    pairs = alrp_pairs.pairs_of(case)
    assert (pairs.num_fp.tolist(), pairs.rank.tolist(), pairs.uniform.tolist()) == ([1, 0], [3, 1], [[1], [0]])
    torch.testing.assert_close(alrp_pairs.lrp_of(pairs, errors), torch.tensor([1.6 / 3, 0.2], dtype=torch.float64))
    gradient = alrp_pairs.algorithm_1(case, pairs, pairs.num_fp / pairs.rank, 0.0, pairs.uniform)
    torch.testing.assert_close(gradient, torch.tensor([-1 / 6, 0, 1 / 6], dtype=torch.float64))
