"""What the claims of DR, Harmonic and Parameterized AP loss come to; they are said not to hold for something else."""

import pytest
import torch
from matplotlib.figure import Figure

from rankdet.losses.box import harmonic_iou
from rankdet.losses.dr import dr_loss
from rankdet.losses.harmonic import harmonic_loss
from rankdet.losses.parameterized_ap import ParameterizedAPLoss, parameterized_ap_loss
from rankdet.theory import dr_claims, harmonic_claims, harmonic_figures, parameterized_claims
from rankdet.theory.claim import claims_of

MODULES = (dr_claims, harmonic_claims, harmonic_figures, parameterized_claims)
CLAIMS = {claim.id: claim for module in MODULES for claim in claims_of(module)}
# Findings that do not hold: what is said where a claim does not.
FAILING = {"HL-Q3": ["always:"], "HL-Q5": ["always:"], "HL-F1": ["(a): |dL/dt| rises with p"]}


def scaled(factor):
    return lambda *args, **settings: factor * dr_loss(*args, **settings)


def pooled(logits, labels, images=None, **settings):
    return dr_loss(logits, labels, **settings)


def overflowing(logits, labels, L=6.0, tau=4.0, **settings):
    """log(1 + exp(L z)) as it stands."""
    soft = dr_loss(logits, labels, L=L, tau=1.0, **settings)
    return tau / L * (1 + ((L * soft).exp() - 1)).log()


def detached_weights(logits, labels, pos_lambda=1.0, neg_lambda=0.1, L=6.0, tau=4.0, margin=0.5, images=None):
    """The derivative with the q weights held."""
    p = logits.sigmoid()
    held = dr_claims.Batch(p.detach(), labels, (pos_lambda, neg_lambda, L, margin))
    z = (held.q_neg * p[labels == 0]).sum() - (held.q_pos * p[labels == 1]).sum() + margin
    return tau / L * torch.nn.functional.softplus(L * z)


def detached_factors(ce, box):
    return ((1 + (-box).exp()).detach() * ce + (1 + (-ce).exp()).detach() * box).mean()


def without_one(ce, box):
    """Factors without the constant 1."""
    return ((-box).exp() * ce + (-ce).exp() * box).mean()


def plain(ce, box):
    return (ce + box).mean()


def exchanged(ce, box):
    return harmonic_loss(2 * ce, box)


def never_blocked(logits, labels, ious, control_points=None, form="searched", block_gradient=True):
    return parameterized_ap_loss(logits, labels, ious, control_points, form, False)


def always_blocked(logits, labels, ious, control_points=None, form="searched", block_gradient=True):
    return parameterized_ap_loss(logits, labels, ious, control_points, form)


def always_linear(logits, labels, ious, control_points=None, form="searched", block_gradient=True):
    return parameterized_ap_loss(logits, labels, ious, form="linear")


def scaled_value(points, gradient_scale):
    return ParameterizedAPLoss(points, weight=gradient_scale)


def unscaled(points, gradient_scale):
    return ParameterizedAPLoss(points)


SPOILED = [
    ("DR-Q1", {"loss": scaled(1.01)}),
    ("DR-Q1", {"loss": pooled}),
    ("DR-Q1", {"loss": overflowing}),
    ("DR-Q2", {"loss": scaled(1.01)}),
    ("DR-Q2", {"loss": detached_weights}),
    ("DR-Q3", {"loss": detached_weights}),
    ("DR-Q4", {"loss": scaled(4)}),
    ("DR-P1", {"independent": False, "repeats": 20}),
    ("DR-P1", {"factor": 2.5, "repeats": 20}),
    ("HL-Q1", {"loss": detached_factors}),
    ("HL-Q1", {"loss": plain}),
    ("HL-Q2", {"loss": detached_factors}),
    ("HL-Q2", {"loss": without_one}),
    ("HL-Q3", {"loss": without_one}),
    ("HL-Q3", {"loss": plain}),
    ("HL-Q4", {"loss": exchanged}),
    ("HL-Q4", {"loss": plain}),
    ("HL-Q5", {"loss": without_one}),
    ("HL-Q5", {"loss": plain}),
    ("HL-Q6", {"box_loss": lambda iou, gamma: harmonic_iou(iou, gamma + 0.01)}),
    ("HL-Q6", {"box_loss": lambda iou, gamma: (1 - iou) * (1 + gamma * iou)}),
    ("HL-Q6", {"refuse": lambda gamma: None}),
    ("HL-F1", {"loss": plain, "plain": harmonic_loss}),
    ("HL-F1", {"loss": without_one}),
    ("HL-F2", {"loss": exchanged}),
    ("HL-F2", {"loss": without_one}),
    ("HL-F4", {"gammas": (-0.5, 0.5)}),
    ("HL-F4", {"box_loss": lambda iou, gamma: (1 - iou) ** (1 + gamma)}),
    ("PA-Q1", {"loss": never_blocked}),
    ("PA-Q1", {"loss": always_blocked}),
    ("PA-Q2", {"loss": always_linear}),
    ("PA-Q2", {"points_of": lambda theta: parameterized_claims.control_points(torch.cat((theta[:1] ** 2, theta[1:])))}),
    ("PA-Q3", {"module": scaled_value}),
    ("PA-Q3", {"module": unscaled}),
]


def failing(verdict):
    return [finding.text for finding in verdict.findings if not finding.holds]


def is_expected(id, texts):
    expected = FAILING.get(id, [])
    return len(texts) == len(expected) and all(map(str.startswith, texts, expected))


@pytest.mark.parametrize("id", CLAIMS)
def test_on_the_library(id):
    verdict = CLAIMS[id].check(**({"repeats": 30} if id == "DR-P1" else {}))
    assert is_expected(id, failing(verdict)), failing(verdict)
    assert verdict.word == ("does not hold" if id in FAILING else "holds")
    assert verdict.holds or verdict.exceptions  # says where and why


@pytest.mark.parametrize(("id", "arguments"), SPOILED)
def test_can_fail(id, arguments):
    assert not is_expected(id, failing(CLAIMS[id].check(**arguments)))


def test_every_claim_can_fail_and_the_checklist_is_complete():
    dr, pa = [f"DR-Q{n}" for n in range(1, 5)], [f"PA-Q{n}" for n in range(1, 4)]
    harmonic = [f"HL-Q{n}" for n in range(1, 7)]
    assert list(CLAIMS) == [*dr, "DR-P1", *harmonic, "HL-F1", "HL-F2", "HL-F4", *pa]
    assert {id for id, _ in SPOILED} == set(CLAIMS)


@pytest.mark.parametrize("id", ["HL-F1", "HL-F2", "HL-F4", "PA-Q2"])
def test_figures_are_drawn(id):
    (plot,) = CLAIMS[id].check().plots
    figure = Figure(figsize=plot.size, layout="constrained")
    plot.draw(figure)
    assert all(axes.has_data() for axes in figure.axes) and plot.caption.endswith(".")


def test_dr_formulas_by_hand():
    """p = .5 and .5 against .5, any lambda: P- = P+ = .5, z = .3; (1/2) log(1 + e^.6); q = 1/2, 1/2 and 1."""
    p, labels = torch.full((3,), 0.5, dtype=torch.float64), torch.tensor([0, 0, 1])
    batch = dr_claims.Batch(p, labels, (1.0, 0.1, 2.0, 0.3))
    outer = 1 / (1 + torch.tensor(-0.6, dtype=torch.float64).exp())
    assert batch.z.item() == pytest.approx(0.3)
    assert batch.value.item() == pytest.approx(0.5 * (1 + torch.tensor(0.6, dtype=torch.float64).exp()).log().item())
    torch.testing.assert_close(batch.gradient(), outer * torch.tensor([0.5, 0.5, -1.0], dtype=torch.float64))


def test_the_numbers_of_the_checklist():
    """p = 0.9, L = 3: 3 - (1 + e^-3)/0.9 = 1.834; p = 0.1, L = 0.05: 1 + 0.1 + e^-0.05 log 0.1 = -1.090."""
    points = torch.tensor([0.9, 0.1], dtype=torch.float64), torch.tensor([3.0, 0.05], dtype=torch.float64)
    _, to_box, to_p = harmonic_claims.gradients(harmonic_loss, *points)
    assert (round(to_p[0].item(), 3), round(to_box[1].item(), 3)) == (1.834, -1.090)
    root = torch.tensor(harmonic_claims.ROOT, dtype=torch.float64)
    assert root.item() == pytest.approx(1 + (-root).exp().item(), abs=1e-6)


def test_the_bound_by_hand():
    """One step of size 0 leaves the start: the sum over 3 steps is 3 tanh(1)^2, in every run."""
    start = torch.ones(1, dtype=torch.float64)
    sums = dr_claims.descend(start, torch.tanh, 0.0, 3, 1.0, 2, 4)
    torch.testing.assert_close(sums, 3 * torch.tanh(start).square().expand(4))
