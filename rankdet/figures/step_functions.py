"""AP-loss Fig. 4: the hard step and the piecewise one for several delta, read off the loss as it applies them."""

import torch
from tabulate import tabulate

from rankdet.figures.content import Content
from rankdet.files import as_csv
from rankdet.losses.ap import ap_loss
from rankdet.theory.ap_training import DELTAS, draw_steps, slope_at_zero, step_of

REACH = 500  # of the score difference, in hundredths


def content() -> Content:
    """The figure."""
    x = torch.arange(-REACH, REACH + 1, dtype=torch.float64) / 100
    hard = step_of(ap_loss, x, step="heaviside")
    soft = {delta: step_of(ap_loss, x, delta=delta) for delta in DELTAS}
    body, away, at_zero = [], 0.0, []
    for delta, values in soft.items():
        off = (values - hard).abs()
        away = max(away, off[x.abs() >= delta].max().item())
        at_zero.append(values[x == 0].item())
        body.append(
            (f"{delta:g}", f"{slope_at_zero(ap_loss, 1e-3, delta=delta):.3f}", f"{at_zero[-1]:.2f}",
             f"{x[off > 1e-9].abs().max().item():.2f}", f"{off.sum().item() / 100:.3f}")
        )  # fmt: skip
    headers = ["delta", "slope at 0", "f(0)", "largest difference of scores where f is not H", "area between f and H"]
    lines = [
        [f"{place:.2f}", f"{hard[i].item():g}", *(f"{values[i].item():.6g}" for values in soft.values())]
        for i, place in enumerate(x.tolist())
    ]
    return Content(
        tabulate(body, headers, tablefmt="github", disable_numparse=True, colalign=["right"] * len(headers)),
        as_csv(("x", "H", *(f"f_delta_{delta:g}" for delta in DELTAS)), lines),
        {
            "limit": f"the area between them falls from {body[-1][-1]} at delta {DELTAS[-1]:g} to {body[0][-1]} at "
            f"{DELTAS[0]:g}; at 0 f is {' or '.join(dict.fromkeys(f'{value:g}' for value in at_zero))} where H is 1",
            "near-zero": f"largest difference at score differences of delta or more: {away:.1g}",
        },
        [
            f"Exact: the steps are read off the gradient that ap_loss gives {len(x)} negatives beside one positive, at "
            f"score differences from {x[0]:g} to {x[-1]:g}.",
        ],
        lambda figure: draw_steps(figure, ap_loss, "delta", DELTAS, True),
        (7.2, 4.4),
        "the hard step and the piecewise step for five delta",
    )
