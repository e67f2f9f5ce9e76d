"""Harmonic loss, supplement, Figs. 1 and 2: its gradients as surfaces, and beside them where the text does not hold."""

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from tabulate import tabulate
from torch import Tensor

from rankdet.figures.content import Content
from rankdet.files import as_csv
from rankdet.losses.harmonic import harmonic_loss
from rankdet.theory.harmonic_claims import ROOT, gradients, grid
from rankdet.theory.harmonic_figures import offset_gradients, plain_loss

SIZE = (11.4, 3.9)
NUM_P, NUM_T, NUM_L = 60, 61, 60  # points of the surfaces
REACH = 3.0  # of t
P_SHOWN = (0.01, 0.1, 0.2, 0.3, 0.5, 0.9)
T_SHOWN = (0.05, 0.1, 0.5, 1.0, 2.0)
L_SHOWN = (0.5, 1.0, 1.5, 2.0, 3.0, 5.0)
LOWEST = -20.0  # of dL/dp, in the plots


def of_offsets() -> Content:
    """Fig. 1: |dL/dt|, and the (p, t) at which a box is pushed away from its object."""
    p, t = torch.meshgrid(grid(NUM_P)[0][:, 0], torch.linspace(-REACH, REACH, NUM_T).double(), indexing="ij")
    harmonic, standard = offset_gradients(harmonic_loss, p, t), offset_gradients(plain_loss, p, t)
    off = t[0].abs() > 1e-9  # at t = 0 all gradients are 0
    falls = harmonic.abs().diff(dim=0)[:, off] < 0
    away = (harmonic * t.sign() < 0)[:, off]
    factor = _factors(P_SHOWN, T_SHOWN)
    low, high = factor[P_SHOWN.index(0.01), T_SHOWN.index(0.1)], factor[P_SHOWN.index(0.9), T_SHOWN.index(0.1)]
    return Content(
        _table("p", P_SHOWN, "t", T_SHOWN, factor),
        _csv(("p", "t", "harmonic", "standard"), p, t, harmonic, standard),
        {
            "harmonic": f"it rises with p at {1 - falls.double().mean():.1%} of (p, t); below p = "
            f"{p[:-1, off][falls].max():.3f} and near t = 0 it falls to 0 first, where dL/dt changes its sign",
            "low-scores": f"at p = 0.01, t = 0.1 dL/dt is {low:+.2f} times the plain gradient, at p = 0.9 {high:+.2f} "
            f"times: the low score is not suppressed, its box is pushed away; so at {away.double().mean():.1%} of "
            f"(p, t), up to p = {p[:, off][away].max():.3f}",
            "standard": f"largest change with p: {(standard - standard[:1]).abs().max():.1g}",
        },
        [
            f"Exact, by autograd through harmonic_loss and smooth L1 (beta 1), at {NUM_P} p and {NUM_T} t. In the "
            "table: dL/dt as a multiple of the plain loss's. The text's proportion is read as rising with p.",
            f"Right: where dL/dt has the sign of -t, so that a step of descent moves the box away from its object. The "
            f"factor is 1 + p + e^-L log p (Eq. 5), negative for small L where p is below {_root():.5f}; a head starts "
            "at p = 0.01.",
        ],
        lambda figure: _draw_offsets(figure, p, t, harmonic, standard),
        SIZE,
        "two surfaces over p and t, and a map of the sign",
    )


def of_scores() -> Content:
    """Fig. 2: dL/dp, and the (p, L) at which the loss of a confident box rises with its score."""
    p, box = grid(NUM_L)
    surface = gradients(harmonic_loss, p, box)[2]
    condition = -p.log() > box.log() - (1 + (-box).exp()).log()
    rises = surface > 0
    shown = torch.tensor(P_SHOWN).double(), torch.tensor(L_SHOWN).double()
    values = gradients(harmonic_loss, *torch.meshgrid(*shown, indexing="ij"))[2]
    return Content(
        _table("p", P_SHOWN, "L", L_SHOWN, values),
        _csv(("p", "L", "dL_dp"), p, box, surface),
        {
            "condition": f"negative exactly where that holds: at {int((~rises == condition).sum())} of {p.numel()} "
            "(p, L)",
            "always": f"not at {rises.double().mean():.1%} of (p, L) in (0, 1) x (0, 5], all with L above {ROOT:.3f} "
            f"(the lowest here: {box[rises].min():.2f}); at p = 0.9, L = 3 dL/dp = "
            f"{values[P_SHOWN.index(0.9), L_SHOWN.index(3.0)]:+.3f}: the score of a confident, badly placed box is "
            "lowered",
        },
        [
            f"Exact, by autograd through harmonic_loss, at {NUM_L} p and {NUM_L} L; the table has dL/dp. Plots are cut "
            f"off at {LOWEST:g}.",
            "Right: where dL/dp is positive, above the line p = (1 + e^-L)/L.",
        ],
        lambda figure: _draw_scores(figure, p, box, surface),
        (8.6, 4.0),
        "a surface over p and L, and a map of the sign",
    )


def _factors(p: Sequence[float], t: Sequence[float]) -> Tensor:
    """dL/dt over that of the plain loss, float64 [p, t]."""
    places = torch.meshgrid(torch.tensor(p).double(), torch.tensor(t).double(), indexing="ij")
    return offset_gradients(harmonic_loss, *places) / offset_gradients(plain_loss, *places)


def _root() -> float:
    """The p of 1 + p + log p = 0."""
    return float(torch.tensor(-ROOT).double().exp())


def _table(row: str, rows: Sequence[float], column: str, columns: Sequence[float], values: Tensor) -> str:
    body = [[f"{at:g}", *(f"{value:+.3f}" for value in line)] for at, line in zip(rows, values.tolist(), strict=True)]
    headers = [row, *(f"{column} = {at:g}" for at in columns)]
    return tabulate(body, headers, tablefmt="github", disable_numparse=True, colalign=["right"] * len(headers))


def _csv(header: Sequence[str], *columns: Tensor) -> str:
    return as_csv(
        header, (map("{:.6g}".format, line) for line in torch.stack([c.flatten() for c in columns], 1).tolist())
    )


def _draw_offsets(figure: Figure, p: Tensor, t: Tensor, harmonic: Tensor, standard: Tensor) -> None:
    surfaces = (("(a) $|dL/dt|$, harmonic loss", harmonic), ("(b) $|dL/dt|$, CE + smooth L1", standard))
    for number, (name, surface) in enumerate(surfaces, 1):
        _surface(figure, (1, 3, number), p, t, surface.abs(), ("p", "t"), name)
    axes = figure.add_subplot(1, 3, 3)
    _map(axes, p, t, -harmonic * t.sign(), "box pushed away")
    axes.axvline(_root(), color="black", lw=0.8, ls=":")
    axes.set(xlabel="p", ylabel="t", title="sign of $dL/dt$, harmonic loss")


def _draw_scores(figure: Figure, p: Tensor, box: Tensor, surface: Tensor) -> None:
    _surface(figure, (1, 2, 1), p, box, surface.clamp(min=LOWEST), ("p", "L"), "$dL/dp$")
    axes = figure.add_subplot(1, 2, 2)
    _map(axes, p, box, surface, "score lowered")
    axes.axhline(ROOT, color="black", lw=0.8, ls=":")
    axes.set(xlabel="p", ylabel="box loss L", title="sign of $dL/dp$")


def _surface(
    figure: Figure, place: tuple[int, int, int], x: Tensor, y: Tensor, z: Tensor, labels: tuple[str, str], title: str
) -> None:
    axes = figure.add_subplot(*place, projection="3d")
    axes.plot_surface(x.numpy(), y.numpy(), z.numpy(), cmap="viridis", rcount=NUM_P, ccount=NUM_T, rasterized=True)
    axes.set_xlabel(labels[0])
    axes.set_ylabel(labels[1])
    axes.set_title(title, fontsize=10)
    axes.view_init(25, -125)


def _map(axes: Axes, x: Tensor, y: Tensor, values: Tensor, wrong: str) -> None:
    """Where values are positive, in red and hatched."""
    axes.contourf(x.numpy(), y.numpy(), values.numpy(), levels=[0, float("inf")], colors=["#d55e0088"], hatches=["//"])
    axes.set_facecolor("#0072b222")
    handles = [Patch(facecolor="#d55e0088", hatch="//", label=wrong), Patch(facecolor="#0072b222", label="as meant")]
    axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncol=2, frameon=False, fontsize=8)
