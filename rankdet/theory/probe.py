"""What the checks feed to a loss and read from it: random batches, the steps, value and gradient."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from rankdet.theory.pair_matrix import StepFunction, heaviside, piecewise, sigmoid

Loss = Callable[..., Tensor]  # (logits, labels, settings ...) -> scalar

# name -> the step written down, and the settings by which ap_loss is asked for it
STEPS: dict[str, tuple[StepFunction, dict[str, object]]] = {
    "hard": (heaviside, {"step": "heaviside"}),
    "piecewise, delta 1": (piecewise(1.0), {"delta": 1.0}),
    "piecewise, delta 0.25": (piecewise(0.25), {"delta": 0.25}),
    "sigmoid, k 0.5": (sigmoid(0.5), {"step": "sigmoid", "k": 0.5}),
}


def random_batches(count: int = 30, seed: int = 0, ties: bool = True) -> Iterator[tuple[Tensor, Tensor]]:
    """Scores (float64 [n], n from 2 to 61) and labels (int8 [n]) with a positive and a negative, and some ignored.

    With `ties` every third batch has whole scores: equal ones, and differences of exactly 1.
    """
    generator = torch.Generator().manual_seed(seed)
    for i in range(count):
        n = 2 + int(torch.randint(60, (), generator=generator))
        scores = 2 * torch.randn(n, generator=generator, dtype=torch.float64)
        labels = torch.tensor([0.5, 0.3, 0.2]).multinomial(n, replacement=True, generator=generator).to(torch.int8)
        labels[labels == 2] = -1
        labels[0], labels[1] = 1, 0
        yield (scores.round() if ties and i % 3 == 2 else scores), labels


def value_and_gradient(loss: Loss, scores: Tensor, labels: Tensor, **settings: object) -> tuple[float, Tensor]:
    """A loss's value, and its gradient in the shape of the scores."""
    scores = scores.detach().clone().requires_grad_()
    value = loss(scores, labels, **settings)
    value.backward()
    return value.item(), scores.grad
