"""Every claim of AP-loss holds for the library, and is said not to hold for something else in its place."""

import math
from fractions import Fraction

import pytest
import torch
from torch.nn import functional

from rankdet.losses.ap import ap_loss
from rankdet.losses.auc import auc_loss
from rankdet.matching.assign import build_loss_inputs
from rankdet.theory import ap_batches, ap_bounds, ap_convergence, ap_counterexample, ap_online, pair_matrix
from rankdet.theory.report import all_claims

CLAIMS = {claim.id: claim for claim in all_claims()}
SLOW = {"AP-Q14", "AP-P1", "AP-P5"}  # seconds on one core


def rescaled(loss, factor):
    """The same value, factor times the gradient."""

    def changed(logits, labels, **settings):
        value = loss(logits, labels, **settings)
        return value.detach() + factor * (value - value.detach())

    return changed


def background_for_ignored(*args):
    inputs = build_loss_inputs(*args)
    return inputs._replace(labels=inputs.labels.clamp(min=0))


def ignored_as_background(logits, labels, **settings):
    return ap_loss(logits, labels.clamp(min=0), **settings)


def never_interpolated(logits, labels, interpolate=True, **settings):
    return ap_loss(logits, labels, interpolate=False, **settings)


def always_interpolated(logits, labels, interpolate=True, **settings):
    return ap_loss(logits, labels, interpolate=True, **settings)


def always_piecewise(logits, labels, step="linear", **settings):
    return ap_loss(logits, labels, **settings)


def too_wide(logits, labels, delta=1.0, k=0.5, **settings):
    return ap_loss(logits, labels, delta=1.01 * delta, k=1.01 * k, **settings)


def strict(x):
    return (x > 0).to(x.dtype)


def counting_itself(x, labels, step):
    return pair_matrix.primary_terms(x, labels, step) / 2


def true_derivative(logits, labels, delta=1.0, interpolate=True, step="linear", k=0.5):
    """AP-loss differentiated as it stands; there is nothing to differentiate in the hard step."""
    steps = {
        "linear": pair_matrix.piecewise(delta),
        "heaviside": pair_matrix.heaviside,
        "sigmoid": pair_matrix.sigmoid(k),
    }
    terms = pair_matrix.primary_terms(pair_matrix.differences(logits), labels, steps[step])
    return pair_matrix.ap_loss_of(terms, labels) + 0 * logits.sum()


def image_by_image(logits, labels, **settings):
    if logits.dim() == 1:
        return ap_loss(logits, labels, **settings)
    return torch.stack([ap_loss(*image, **settings) for image in zip(logits, labels, strict=True)]).mean()


def convex(logits, labels, **settings):
    return (logits[labels == 0] - logits[labels == 1, None] + 1).clamp(min=0).mean()


def conservative(logits, labels, step="linear", interpolate=True, **settings):
    return auc_loss(logits, labels)


def dropping_too_much(scores, labels, delta, interpolate=True, drop_trivial=True):
    kept = (labels == 0) & drop_trivial & (scores <= scores[labels == 1].min())
    return pair_matrix.algorithm_1(scores, torch.where(kept, -1, labels), delta, interpolate, drop_trivial)


SPOILED = [
    ("AP-Q1", {"build": background_for_ignored}),
    ("AP-Q1", {"loss": ignored_as_background}),
    ("AP-Q2", {"terms": counting_itself}),
    ("AP-Q2", {"terms": lambda x, labels, step: pair_matrix.primary_terms(x, labels, strict)}),
    ("AP-Q3", {"loss": always_piecewise}),
    ("AP-Q3", {"loss": always_interpolated}),
    ("AP-Q3", {"loss": ignored_as_background}),
    ("AP-Q4", {"loss": ap_loss}),
    ("AP-Q4", {"loss": rescaled(auc_loss, 2)}),
    ("AP-Q5", {"loss": rescaled(ap_loss, -1)}),
    ("AP-Q5", {"update": lambda terms, labels: -terms}),
    ("AP-Q6", {"loss": rescaled(ap_loss, 1.001)}),
    ("AP-Q7", {"loss": true_derivative}),
    ("AP-Q7", {"loss": always_interpolated}),
    ("AP-Q8", {"activation": torch.sigmoid}),
    ("AP-Q9", {"activation": lambda x: pair_matrix.heaviside(x)}),
    ("AP-Q9", {"activation": lambda x: strict(x - 1) - 0.1 * (x == 1)}),
    ("AP-Q10", {"loss": too_wide}),
    ("AP-Q11", {"loss": too_wide}),
    ("AP-Q12", {"loss": never_interpolated}),
    ("AP-Q13", {"loss": never_interpolated}),
    ("AP-Q13", {"loss": rescaled(ap_loss, 2)}),
    ("AP-Q13", {"algorithm": dropping_too_much}),
    ("AP-Q15", {"loss": image_by_image}),
    ("AP-P1", {"direction": lambda *at: -ap_convergence.direction_of_paper(*at), "num_problems": 2}),
    ("AP-P1", {"direction": lambda *at: 1e-6 * ap_convergence.direction_of_paper(*at), "num_problems": 5}),
    ("AP-P1", {"direction": lambda *at: 1e6 * ap_convergence.direction_of_paper(*at), "num_problems": 5}),
    ("AP-P1", {"loss": rescaled(ap_loss, 2), "num_problems": 2}),
    ("AP-P2", {"smoothed": lambda a, b: ap_counterexample.smoothed_loss(b, a)}),
    ("AP-P2", {"loss": rescaled(ap_loss, 0)}),
    ("AP-P2b", {"ties_count": False}),
    ("AP-P2b", {"loss": rescaled(ap_loss, 0)}),
    ("AP-P3", {"q": lambda x, delta: ap_online.integral(x, delta) / 2}),
    ("AP-P3", {"loss": lambda *args, **settings: 2 * ap_loss(*args, **settings)}),
    ("AP-P4", {"eta_factor": -1.0}),
    ("AP-P5", {"harmonic": lambda p: math.log(p) + 0.5, "steps": 100}),
    ("AP-P6", {"loss": convex}),
    ("AP-P7", {"loss": conservative}),
]


@pytest.mark.parametrize("id", [id for id in CLAIMS if id.startswith("AP-") and id not in SLOW])
def test_holds(id):
    verdict = CLAIMS[id].check()
    assert verdict.holds, [finding.text for finding in verdict.findings if not finding.holds]


@pytest.mark.full
@pytest.mark.parametrize("id", ["AP-P1", "AP-P5"])
def test_holds_at_full_size(id):
    verdict = CLAIMS[id].check()
    assert verdict.holds, [finding.text for finding in verdict.findings if not finding.holds]


def test_holds_at_small_size():
    assert CLAIMS["AP-P1"].check(num_problems=20).holds
    assert CLAIMS["AP-P5"].check(steps=200).holds


@pytest.mark.parametrize(("id", "arguments"), SPOILED)
def test_can_fail(id, arguments):
    verdict = CLAIMS[id].check(**arguments)
    assert not verdict.holds
    assert any(not finding.holds for finding in verdict.findings)


def test_every_claim_can_fail():
    """All but AP-Q14, whose failure is tested below, are in the list above."""
    assert {id for id, _ in SPOILED} == {id for id in CLAIMS if id.startswith("AP-")} - {"AP-Q14"}


def test_the_checklist_is_complete():
    numbers = [f"AP-Q{n}" for n in range(1, 16)] + [f"AP-P{n}" for n in ("1", "2", "2b", "3", "4", "5", "6", "7")]
    assert [id for id in CLAIMS if id.startswith("AP-")] == numbers


def test_counterexample_by_exact_fractions():
    """The steps and end points that the checklist gives for A2's data, worked in fractions."""
    thirds = Fraction(1, 3)
    expected = {
        (0, 0): (16, (thirds, 4 * thirds)),
        (1, Fraction(1, 2)): (6, (thirds, Fraction(7, 6))),
        (2, 1): (3, (thirds, 5 * thirds)),
        (3, 1): (4, (thirds, 2)),
        (5, 1): (6, (thirds, 8 * thirds)),
        (10, 1): (9, (1, 4)),
    }
    for start, (steps, end) in expected.items():
        path = ap_counterexample.exact_run([Fraction(value) for value in start], ties_count=True)
        assert (len(path) - 1, path[-1]) == (steps, end), start
    table = CLAIMS["AP-P2b"].check().tables[0]
    assert [row[1] for row in table.rows] == [steps for steps, _ in expected.values()]


def test_counterexample_derivatives():
    """At (2, 1) they are -0.03968 and -0.00073, as the checklist says; central differences agree."""
    _, first, second = ap_counterexample.smoothed_loss(2.0, 1.0)
    assert (round(first, 5), round(second, 5)) == (-0.03968, -0.00073)
    value, h = ap_counterexample.smoothed_loss, 1e-6
    for a, b in ((2.0, 1.0), (-1.0, 3.0), (0.5, -2.0)):
        first = (value(a + h, b)[0] - value(a - h, b)[0]) / (2 * h)
        second = (value(a, b + h)[0] - value(a, b - h)[0]) / (2 * h)
        assert (first, second) == pytest.approx(value(a, b)[1:], abs=1e-9)


def test_algorithm_1_by_hand():
    """Positives at 0 and 10, a negative at 20, delta 1: see test_arithmetic_of_interpolation in test_loss_ap."""
    scores, labels = torch.tensor([0.0, 10.0, 20.0], dtype=torch.float64), torch.tensor([1, 1, 0])
    gradient, errors = pair_matrix.algorithm_1(scores, labels, 1.0)
    torch.testing.assert_close(gradient, torch.tensor([-1 / 6, -1 / 6, 1 / 3], dtype=torch.float64))
    torch.testing.assert_close(errors, torch.tensor([1 / 3, 1 / 3], dtype=torch.float64))
    gradient, errors = pair_matrix.algorithm_1(scores, labels, 1.0, interpolate=False)
    torch.testing.assert_close(gradient, torch.tensor([-1 / 6, -1 / 4, 5 / 12], dtype=torch.float64))
    torch.testing.assert_close(errors, torch.tensor([1 / 3, 1 / 2], dtype=torch.float64))


def test_peak_memory():
    """Two million-byte tensors at once, then one: the sum is freed when its double is there."""
    a = torch.zeros(125_000, dtype=torch.float64)
    with ap_batches.PeakMemory() as memory:
        b = (a + 1) * 2
        b.add_(1)
        c = b.view(5, -1)
    assert memory.peak == 2_000_000
    with ap_batches.PeakMemory() as memory:
        c.sum()
    assert memory.peak == 8


def test_cost_sees_a_matrix():
    """Memory alone: times are for the report. The library's grows as N, a form over all pairs as N^2."""
    sizes = {"all pairs": (50, 100, 200), "Algorithm 1": (1000, 2000, 4000), "library": (1000, 2000, 4000)}

    def exponents(loss, sizes):
        texts = [
            finding for finding in CLAIMS["AP-Q14"].check(loss, sizes).findings if "exponent of memory" in finding.text
        ]
        assert len(texts) == 3
        return [finding.holds for finding in texts]

    assert exponents(ap_loss, sizes) == [True, True, True]
    assert exponents(true_derivative, sizes | {"library": (100, 200, 400)}) == [True, True, False]


def test_the_bound_of_finite_convergence():
    """M = 2, |theta*| = 1, D = 2, epsilon = 2: M^4 D^2 / epsilon^2 = 16; one update of 1/2 (f_1 - f_2) separates."""
    features = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    separator = torch.tensor([1.0, 0.0], dtype=torch.float64)
    problem = ap_convergence.Problem([(features, torch.tensor([1, 0]))], separator, 2.0, 2, 2.0)
    assert problem.bound == 16
    course = ap_convergence.run(problem, ap_convergence.direction_of_paper, torch.Generator())
    assert (course.steps, course.finished, course.theta.tolist()) == (1, True, [1.0, 0.0])
    assert course.lower == 1.0  # <theta, theta*> = 1 = epsilon t / M
    assert course.upper == 1 / 16  # |theta|^2 = 1, C t = 16


def test_bounds_by_hand():
    """Q is 0, (x + 1)^2 / 4 and x for delta 1; l_t(u) of one positive at 0 and a negative at 0 is Q(0) / 2 = 1/8."""
    x = torch.tensor([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0])
    assert ap_online.integral(x, 1.0).tolist() == [0, 0, 0.25, 0.5625, 1, 3]
    problems = ap_online.Problems(torch.zeros(1, 1, 2, 3, dtype=torch.float64), 1, torch.ones(1, dtype=torch.float64))
    course = ap_online.run(problems, 1.0, 2, 1.0)
    losses, worst = ap_online.losses_of(problems, course, torch.ones(1, 3, dtype=torch.float64), 1.0)
    assert losses.tolist() == [[0.125], [0.125]] and worst.tolist() == [0.25]
    assert course.losses.tolist() == [[0.5], [0.5]]  # rank 2, as a tie counts
    assert ap_bounds.gradient_error(problems, 1.0) == 0


def test_hinge_is_what_torch_makes_it():
    """Eq. 19 for y = 2 at x = 0: the loss is 1 and the update of x_2 is -1, as its derivative is."""
    x = torch.zeros(1, requires_grad=True)
    functional.relu(1 - x).backward()
    assert x.grad.item() == pair_matrix.heaviside(torch.tensor(0.0) - 1).item() - 1 == -1
