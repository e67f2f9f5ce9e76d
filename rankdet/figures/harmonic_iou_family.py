"""Harmonic loss, supplement, Fig. 4: the harmonic IoU loss for gammas up to 1, and what a larger one does."""

import torch
from matplotlib.figure import Figure
from tabulate import tabulate

from rankdet.figures.content import Content
from rankdet.files import as_csv
from rankdet.losses.box import harmonic_iou
from rankdet.theory.harmonic_claims import GAMMAS, slopes

ABOVE = (1.5, 2.0, 3.0)  # gammas that the loss refuses
STEPS = 600  # of the IoU between 0 and 1: the highest losses of ABOVE, at (gamma - 1) / (gamma + 1), are among them


def content() -> Content:
    """The figure."""
    iou = torch.linspace(0, 1, STEPS + 1, dtype=torch.float64)
    curves = {gamma: harmonic_iou(iou, gamma) for gamma in (*GAMMAS, *ABOVE)}
    body, peaks, bend = [], {}, -float("inf")
    for gamma, values in curves.items():
        slope = slopes(harmonic_iou, iou, gamma)
        place = int(values.argmax())
        peaks[gamma] = iou[place].item()
        if gamma in GAMMAS:
            bend = max(bend, values.diff().diff().max().item())
        body.append(
            (f"{gamma:g}", f"{slope[0].item():+.3f}", f"{slope[STEPS // 2].item():+.3f}", f"{slope[-1].item():+.3f}",
             f"{peaks[gamma]:.3f}", f"{values[place].item():.3f}")
        )  # fmt: skip
    headers = ["gamma", "slope at IoU 0", "at 0.5", "at 1", "IoU of the highest loss", "highest loss"]
    lines = [
        (f"{at:.3f}", *(f"{curves[gamma][i].item():.6f}" for gamma in curves)) for i, at in enumerate(iou.tolist())
    ]
    rising = "; ".join(f"gamma {gamma:g}: up to IoU {peaks[gamma]:.3f}" for gamma in ABOVE)
    return Content(
        tabulate(body, headers, tablefmt="github", disable_numparse=True, colalign=["right"] * len(headers)),
        as_csv(("iou", *(f"gamma_{gamma:g}" for gamma in curves)), lines),
        {
            "family": f"largest second difference of these gammas: {max(bend, 0.0):.1g}; gamma 0 is the line 1 - IoU",
            "weights": "the slope's size at IoU 1 is 2^gamma, "
            f"{', '.join(f'{-float(row[3]):g}' for row in body[: len(GAMMAS)])}; at IoU 0 it is 1 - gamma",
            "condition": f"with a larger one the loss rises with the IoU at first: {rising}",
        },
        [
            f"Exact, at {STEPS + 1} IoUs. The paper does not list its five gammas. A gamma above 1 is refused by the "
            "loss; the formula is evaluated here all the same. Dots: the highest loss, at IoU (gamma - 1)/(gamma + 1).",
        ],
        lambda figure: _draw(figure, iou, curves, peaks),
        (8.8, 4.2),
        "the loss against the IoU, for gammas up to 1 and for larger ones",
    )


def _draw(figure: Figure, iou: torch.Tensor, curves: dict[float, torch.Tensor], peaks: dict[float, float]) -> None:
    panels = (("$\\gamma$ up to 1", GAMMAS), ("$\\gamma$ above 1: rises first", ABOVE))
    for axes, (title, gammas) in zip(figure.subplots(1, 2), panels, strict=True):
        for place, gamma in enumerate(gammas):
            color = f"C{place}"
            axes.plot(iou, curves[gamma], lw=1.6, color=color, label=f"$\\gamma$ = {gamma:g}")
            if gamma > 1:
                wrong = iou <= peaks[gamma]
                axes.plot(iou[wrong], curves[gamma][wrong], lw=5, alpha=0.3, color=color)
                axes.plot(peaks[gamma], curves[gamma].max(), "o", ms=6, color=color)
        axes.set(title=title, xlabel="IoU", ylabel="harmonic IoU loss", xlim=(0, 1))
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)
