"""DR loss (CVPR 2020), supplement: the loss, its gradient to the probabilities, and the bound of its Theorem 1."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from rankdet.losses.dr import NEG_LAMBDA, dr_loss
from rankdet.theory.claim import Table, Verdict, agree, at_most, claim, difference
from rankdet.theory.probe import Loss, random_batches, value_and_gradient

# lambda+, lambda-, L, margin: the released program's; sharper and wider ones; a steep one
PARAMETERS = ((1.0, NEG_LAMBDA, 6.0, 0.5), (0.2, 0.5, 2.0, 0.1), (0.05, 0.03, 20.0, 0.3))


class Batch:
    """Supplement Sec. 1 for one image, from probabilities: float64 [n]."""

    def __init__(self, p: Tensor, labels: Tensor, parameters: tuple[float, float, float, float]) -> None:
        self.p, self.labels = p, labels
        self.pos_lambda, self.neg_lambda, self.slope, self.margin = parameters
        self.p_neg, self.p_pos = p[labels == 0], p[labels == 1]
        self.q_neg, self.q_pos = self.weights(self.p_neg / self.neg_lambda), self.weights(-self.p_pos / self.pos_lambda)
        self.z = (self.q_neg * self.p_neg).sum() - (self.q_pos * self.p_pos).sum() + self.margin

    @staticmethod
    def weights(exponents: Tensor) -> Tensor:
        """exp / Z."""
        return exponents.exp() / exponents.exp().sum()

    @property
    def value(self) -> Tensor:
        """(1/L) log(1 + exp(L z))."""
        return (1 + (self.slope * self.z).exp()).log() / self.slope

    def gradient(self) -> Tensor:
        """To p [n], as the supplement's two formulas say; 0 for ignored elements."""
        outer, gradient = 1 / (1 + (-self.slope * self.z).exp()), torch.zeros_like(self.p)
        sides = (0, 1, self.p_neg, self.q_neg, self.neg_lambda), (1, -1, self.p_pos, self.q_pos, self.pos_lambda)
        for label, sign, p, q, temperature in sides:
            inner = sign + p / temperature - (q * p).sum() / temperature
            gradient[self.labels == label] = outer * q * inner
        return gradient


def batches() -> Iterator[tuple[Tensor, Batch, dict[str, float]]]:
    """Logits, the formulas, and the library's settings for the same, without the factor tau."""
    for scores, labels in random_batches(20):
        for parameters in PARAMETERS:
            settings = dict(zip(("pos_lambda", "neg_lambda", "L", "margin"), parameters, strict=True))
            yield scores, Batch(scores.sigmoid(), labels, parameters), settings | {"tau": 1.0}


@claim("DR-Q1", "Sec. 1", "The loss is the sum over images of (1/L) log(1 + exp(L z)), z = P- - P+ + gamma.")
def value(loss: Loss = dr_loss) -> Verdict:
    """The library against the formula over its scores, per image and summed; the factor tau; L z far beyond exp."""
    error, factor, whole, summed, count = 0.0, 0.0, 0.0, 0.0, 0
    for scores, batch, settings in batches():
        ours = loss(scores, batch.labels, **settings).item()
        error, count = max(error, difference(ours, batch.value)), count + 1
        factor = max(factor, difference(loss(scores, batch.labels, **settings | {"tau": 4.0}).item(), 4 * ours))
        summed += batch.value.item()
        images = torch.arange(2).repeat_interleave(len(scores))
        twice = loss(torch.cat((scores, scores - 1)), torch.cat((batch.labels,) * 2), images=images, **settings)
        other = loss(scores - 1, batch.labels, **settings)
        whole = max(whole, difference(twice, ours + other))
    scores, labels = torch.tensor([-20.0, 20.0], dtype=torch.float64), torch.tensor([1, 0])
    steep = loss(scores, labels, L=1e4, tau=1.0, margin=0.5).item()  # z = 1.5, so L z = 15 000 and exp overflows
    return Verdict(
        (
            agree(f"library with tau = 1 and the formula, {count} batches and parameters", error, 1e-12),
            agree("two images and the sum of their losses", whole, 1e-12),
            agree("tau = 4 and four times tau = 1", factor, 1e-12),
            agree("L z = 15 000, where exp overflows: the library's value and z", difference(steep, 1.5), 1e-6),
        ),
        exceptions="an image without positives, for which the formula has no P+: the released program and the library "
        "take 1. All images are one distribution there by default; the library's `images` sums over them.",
        reading="L, gamma and both lambda are not in the supplement; the released program's and others were tried. Its "
        "value is tau = 4 times this one.",
    )


@claim("DR-Q2", "Sec. 1", "dL/dp of a negative is q/(1 + exp(-L z)) (1 + p/lambda- - (1/lambda-) sum of q p).")
def gradient_of_negatives(loss: Loss = dr_loss) -> Verdict:
    """The library's gradient over p (1 - p), and autograd through the formula of the value, against the closed form."""
    return of_closed_form(loss, 0)


@claim("DR-Q3", "Sec. 1", "dL/dp of a positive is q/(1 + exp(-L z)) (-1 + p/lambda+ - (1/lambda+) sum of q p).")
def gradient_of_positives(loss: Loss = dr_loss) -> Verdict:
    """As DR-Q2."""
    return of_closed_form(loss, 1)


@claim(
    "DR-Q4",
    "follows from Sec. 1",
    "Gradients to p add up to sigmoid(L z) over the negatives, to minus that over the positives.",
)
def sums_of_gradients(loss: Loss = dr_loss) -> Verdict:
    """Signed sums of the library's gradients over p (1 - p)."""
    closed, sums = 0.0, [0.0, 0.0]
    for scores, batch, settings in batches():
        gradient, total = to_probabilities(loss, scores, batch, settings), (batch.slope * batch.z).sigmoid()
        for label, sign in ((0, 1), (1, -1)):
            sums[label] = max(sums[label], difference(gradient[batch.labels == label].sum(), sign * total))
        closed = max(closed, abs(batch.gradient().sum().item()))
    alone = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    one_sided = Batch(torch.cat((alone.sigmoid(), torch.ones(1))), torch.tensor([0, 0, 0, 1]), PARAMETERS[0])
    _, lonely = value_and_gradient(loss, alone, torch.zeros(3, dtype=torch.int8), tau=1.0)
    lonely = (lonely / (alone.sigmoid() * (1 - alone.sigmoid()))).sum()
    return Verdict(
        (
            agree("sum over the negatives and sigmoid(L z)", sums[0], 1e-9),
            agree("sum over the positives and -sigmoid(L z)", sums[1], 1e-9),
            agree("sum of all gradients of the closed forms, and 0", closed, 1e-12),
        ),
        exceptions=f"an image without positives: its negatives' sum, {lonely:.3f} in an example, has nothing to "
        f"balance it (sigmoid(L z) with P+ = 1: {(one_sided.slope * one_sided.z).sigmoid():.3f}).",
    )


@claim(
    "DR-P1",
    "Sec. 2, Theorem 1",
    "Sum of |grad|^2 <= 2 L_0/eta + mu eta T delta^2/m for eta <= 1/mu; best at eta = sqrt(2 m L_0 / (mu T))/delta.",
)
def convergence(repeats: int = 100, steps: int = 200, independent: bool = True, factor: float = 1.0) -> Verdict:
    """SGD on two losses of known smoothness, each gradient the mean of m noisy ones; averages over repeats."""
    rows, shares, worst_runs, gaps = [], [], [], []
    for name, start, gradient, initial in smooth_problems():
        for m, delta in ((1, 0.5), (4, 1.0), (16, 1.0)):
            best = math.sqrt(2 * m * initial / steps) / delta  # mu is 1
            sizes = torch.logspace(-1, 1, 41).double() * best
            right = 2 * initial / sizes + sizes * steps * delta**2 / m
            gaps.append(difference(right.min(), 2 * initial / best + best * steps * delta**2 / m) / right.min().item())
            for eta in sorted({min(1.0, scale * best) for scale in (0.3, 1.0, 3.0)}):
                norms = descend(start, gradient, factor * eta, steps, delta, m, repeats, independent)
                bound = 2 * initial / eta + eta * steps * delta**2 / m
                shares.append(norms.mean().item() / bound)
                worst_runs.append(norms.max().item() / bound)
                rows.append((name, m, f"{eta:.3f}", f"{eta / best:.2f}", f"{shares[-1]:.3f}", f"{worst_runs[-1]:.3f}"))
    together = common_noise(repeats, steps)
    return Verdict(
        (
            at_most(f"largest share of the bound, {len(rows)} settings, {repeats} runs, {steps} steps", max(shares), 1),
            agree("least right side over 41 step sizes and at the stated one, relative", max(gaps), 1e-9),
        ),
        exceptions="eta <= 1/mu needs T >= 2 m mu L_0 / delta^2. The m gradients must be independent, which the "
        f"proof uses and does not say: with noise common to 16 of them the sum is {together:.1f} times the bound. It "
        "bounds the mean over runs, whose expectation the proof drops: one run reached "
        f"{max(worst_runs):.2f} of it. It uses L >= 0.",
        tables=(Table("share", ("loss", "m", "eta", "eta / best", "mean share of the bound", "worst run"), rows),),
    )


def to_probabilities(loss: Loss, scores: Tensor, batch: Batch, settings: dict[str, float]) -> Tensor:
    """The library's gradient to the logits, over dp/ds."""
    return value_and_gradient(loss, scores, batch.labels, **settings)[1] / (batch.p * (1 - batch.p))


def of_closed_form(loss: Loss, label: int) -> Verdict:
    """DR-Q2 and DR-Q3."""
    ours, theirs, count, against, of = 0.0, 0.0, 0, 0, 0
    for scores, batch, settings in batches():
        chosen = batch.labels == label
        p = batch.p.clone().requires_grad_()
        Batch(p, batch.labels, (batch.pos_lambda, batch.neg_lambda, batch.slope, batch.margin)).value.backward()
        closed = batch.gradient()[chosen]
        ours = max(ours, difference(to_probabilities(loss, scores, batch, settings)[chosen], closed))
        theirs, count = max(theirs, difference(p.grad[chosen], closed)), count + 1
        against, of = against + int((closed * (1 - 2 * label) < 0).sum()), of + int(chosen.sum())
    what = (
        "negatives below P- - lambda- are pushed up" if label == 0 else "positives above P+ + lambda+ are pushed down"
    )
    return Verdict(
        (
            agree(f"library and the closed form, {count} batches and parameters", ours, 1e-9),
            agree("autograd through the value's formula and the closed form", theirs, 1e-10),
        ),
        exceptions=f"the sign is not that of the side: {what}, {against} of {of} here.",
    )


def smooth_problems() -> Iterator[tuple[str, Tensor, Callable[[Tensor], Tensor], float]]:
    """Name, start [5], gradient of [R, 5], loss at the start: losses >= 0 with mu = 1, one convex, one not."""
    start = torch.tensor([1.5, -1.0, 0.5, 2.0, -0.7], dtype=torch.float64)
    yield "log cosh", start, torch.tanh, start.cosh().log().sum().item()
    yield "1 - cos", start, torch.sin, (1 - start.cos()).sum().item()


def descend(
    start: Tensor, gradient: Callable[[Tensor], Tensor], eta: float, steps: int, delta: float, m: int, repeats: int,
    independent: bool = True,
) -> Tensor:  # fmt: skip
    """[R]: sum over steps of the squared true gradient; each step's noise is the mean of m vectors of length delta."""
    generator = torch.Generator().manual_seed(6)
    theta, total = start.repeat(repeats, 1), torch.zeros(repeats, dtype=torch.float64)
    for _ in range(steps):
        true = gradient(theta)
        total += true.square().sum(1)
        noise = torch.randn(repeats, m if independent else 1, len(start), generator=generator, dtype=torch.float64)
        theta = theta - eta * (true + delta * (noise / noise.norm(dim=2, keepdim=True)).mean(1))
    return total


def common_noise(repeats: int, steps: int) -> float:
    """The bound's share for m = 16 gradients that all have the same noise, near the minimum."""
    start, m, delta = torch.full((5,), 0.1, dtype=torch.float64), 16, 1.0
    initial = start.cosh().log().sum().item()
    eta = min(1.0, math.sqrt(2 * m * initial / steps) / delta)
    norms = descend(start, torch.tanh, eta, steps, delta, m, repeats, independent=False)
    return norms.mean().item() / (2 * initial / eta + eta * steps * delta**2 / m)
