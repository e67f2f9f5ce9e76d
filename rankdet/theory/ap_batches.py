"""AP-loss (TPAMI 2020), Sections 3.4.1 and 3.4.4: what a larger batch costs, and what it is needed for."""

import math
import time
import weakref
from collections.abc import Callable
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rankdet.losses.ap import ap_loss
from rankdet.theory.claim import Finding, Plot, Table, Verdict, at_most, claim
from rankdet.theory.pair_matrix import algorithm_1, differences, piecewise, primary_terms, score_gradient
from rankdet.theory.probe import Loss, value_and_gradient

REPEATS = 3  # the fastest counts
NUM_POSITIVES = 40
SIZES = {  # scores in all
    "all pairs": (240, 480, 960, 1920),  # matrices under 32 MiB: larger ones cost page faults at every use
    "Algorithm 1": (20_000, 60_000, 180_000),
    "library": (20_000, 60_000, 180_000, 540_000),
}
SQUARE, LINEAR, SUBLINEAR = 1.7, 1.25, 0.5  # slopes of time: at least; at most; at most


class Cost(NamedTuple):
    """What one loss and gradient took."""

    seconds: float  # of the processor, the least of REPEATS
    num_bytes: int  # of tensors alive at once, beyond the inputs


@claim(
    "AP-Q14",
    "Sec. 3.4.4",
    "Cost: Algorithm 1 takes O(P N_hat + N) time and O(N) memory, the plain form O((P + N)^2) of both.",
)
def cost(loss: Loss = ap_loss, sizes: dict[str, tuple[int, ...]] = SIZES) -> Verdict:
    """Processor time and tensors alive at once against the number of scores, and their log-log slopes."""
    forms = {
        "all pairs": all_pairs,
        "Algorithm 1": lambda scores, labels: algorithm_1(scores, labels, 1.0),
        "library": lambda scores, labels: value_and_gradient(loss, scores, labels),
    }
    costs = {name: [measure(form, *batch(n, NUM_POSITIVES)) for n in sizes[name]] for name, form in forms.items()}
    time_of = {name: slope(sizes[name], [cost.seconds for cost in of]) for name, of in costs.items()}
    memory_of = {name: slope(sizes[name], [cost.num_bytes for cost in of]) for name, of in costs.items()}
    n = sizes["library"][-2]
    few, many = (measure(forms["library"], *batch(n, count)).seconds for count in (20, 2000))
    early, late = (measure(forms["Algorithm 1"], *batch(n, NUM_POSITIVES, lift)).seconds for lift in (0, 8))
    findings = [
        Finding(
            time_of["all pairs"] >= SQUARE,
            f"all pairs: exponent of time {time_of['all pairs']:.2f} (allowed: at least {SQUARE})",
        ),
        Finding(
            1.9 <= memory_of["all pairs"] <= 2.1,
            f"all pairs: exponent of memory {memory_of['all pairs']:.2f} (allowed: 1.9 to 2.1)",
        ),
    ]
    for name in ("Algorithm 1", "library"):
        findings += [
            at_most(f"{name}: exponent of time in N, {NUM_POSITIVES} positives", time_of[name], LINEAR),
            at_most(f"{name}: exponent of memory", memory_of[name], 1.1),
        ]
    findings += [
        at_most(
            f"library: exponent of time in P, 20 to 2000 positives, {n} scores", math.log(many / few, 100), SUBLINEAR
        ),
        Finding(late < early / 2, f"Algorithm 1 with few negatives near the positives: {late / early:.2f} of its time"),
    ]
    rows = [
        (name, n, f"{1e3 * one.seconds:.3f}", f"{one.num_bytes / 2**20:.3f}", f"{one.num_bytes / n:.1f}")
        for name in forms
        for n, one in zip(sizes[name], costs[name], strict=True)
    ]
    headers = ("form", "scores", "ms", "MiB", "bytes per score")
    return Verdict(
        tuple(findings),
        reading="In the text's last bound N and N_hat are mixed (N << N); O(P N_hat + N) is meant. The library needs "
        "neither the loop over positives nor N_hat.",
        tables=(Table("cost", headers, rows),),
        plots=(
            Plot(
                "cost",
                f"Time and memory of a loss and its gradient against the number of scores ({NUM_POSITIVES} positives).",
                (9, 3.8),
                lambda figure: draw_cost(figure, sizes, costs),
            ),
        ),
    )  # fmt: skip


@claim("AP-Q15", "Sec. 3.4.1", "Score shift: two images can each be ranked perfectly while their joint ranking is bad.")
def score_shift(loss: Loss = ap_loss) -> Verdict:
    """A positive 3 above a negative in either image, the second image's scores shifted down by 0 to 20."""
    scores = torch.tensor([[20.0, 17.0], [20.0, 17.0]], dtype=torch.float64)
    labels = torch.tensor([[1, 0], [1, 0]])
    alone, joint = [], []
    for shift in range(21):
        shifted = scores - torch.tensor([[0.0], [shift]])
        alone += [loss(shifted[image], labels[image]).item() for image in range(2)]
        joint.append(loss(shifted, labels).item())
    return Verdict(
        (
            at_most("largest loss of an image ranked alone, at any shift", max(alone), 0),
            Finding(
                joint[0] == 0 < joint[-1],
                f"loss of both ranked together: {joint[0]:.4f} at equal scores, {joint[-1]:.4f} with the second "
                f"image's {len(joint) - 1} lower",
            ),
        )
    )


class PeakMemory(TorchDispatchMode):
    """Within it, `peak` is the largest number of bytes in storages made and not yet freed."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        """Runs the operation and looks at what it returns."""
        given = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                address = storage.data_ptr()
                if address and address not in given and address not in self._alive:
                    self._alive[address] = storage.nbytes()
                    self._now += storage.nbytes()
                    self.peak = max(self.peak, self._now)
                    weakref.finalize(storage, self._freed, address)
        return result

    def _freed(self, address: int) -> None:
        self._now -= self._alive.pop(address)


def batch(n: int, num_positives: int, lift: float = 0.0) -> tuple[Tensor, Tensor]:
    """n scores (float64) about 0 of which some are positives, those `lift` higher, and their labels."""
    scores = torch.randn(n, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    labels = torch.zeros(n, dtype=torch.int8)
    labels[:num_positives] = 1
    return scores + lift * labels, labels


def all_pairs(scores: Tensor, labels: Tensor) -> Tensor:
    """The gradient by Eq. 14 over the whole matrix."""
    return score_gradient(primary_terms(differences(scores), labels, piecewise(1.0)), labels) / (labels == 1).sum()


def measure(form: Callable[[Tensor, Tensor], object], scores: Tensor, labels: Tensor) -> Cost:
    """Time and memory of one call, which also warms up, in that order."""
    with PeakMemory() as memory:
        form(scores, labels)
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        form(scores, labels)
        seconds.append(time.process_time() - start)
    return Cost(min(seconds), memory.peak)


def slope(sizes: tuple[int, ...], values: list[float]) -> float:
    """Exponent of growth over the upper half of the sizes, where fixed costs weigh least."""
    first = len(sizes) // 2 - 1
    return math.log(values[-1] / values[first]) / math.log(sizes[-1] / sizes[first])


def draw_cost(figure: Figure, sizes: dict[str, tuple[int, ...]], costs: dict[str, list[Cost]]) -> None:
    """Two log-log panels."""
    left, right = figure.subplots(1, 2)
    for name, of in costs.items():
        left.loglog(sizes[name], [cost.seconds for cost in of], marker="o", label=name)
        right.loglog(sizes[name], [cost.num_bytes / 2**20 for cost in of], marker="o", label=name)
    left.set_ylabel("processor time, s")
    right.set_ylabel("memory beyond the inputs, MiB")
    for axes in (left, right):
        axes.set_xlabel("scores P + N")
        axes.legend(frameon=False)
        axes.grid(alpha=0.3)
