"""Parameterized AP loss against the authors' numbers, worked arithmetic, a slow twin and finite differences."""

import numpy as np
import pytest
import torch
from reference import golden_files

from rankdet.losses.curves import piecewise_curve
from rankdet.losses.parameterized_ap import parameterized_ap_loss

# golden README: loss absolute, gradient absolute, gradient relative to its largest element
TOLERANCES = {torch.float64: (1e-10, 1e-12, 1e-9), torch.float32: (2e-6, 2e-6, 1e-4)}


def loss_files():
    return [file for file in golden_files("pap") if file.name.split("_")[1] not in ("curve", "theta", "search")]


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_golden(dtype):
    """Every file, form and blocking: loss, gradients to scores and IoUs, and exact zeros."""
    loss_atol, grad_atol, grad_rtol = TOLERANCES[dtype]
    visited = 0
    files = loss_files()
    for file in files:
        z = np.load(file)
        flat = z["labels"].reshape(-1)
        for (f, b), loss in np.ndenumerate(z["loss"]):
            form, points = str(z["forms"][f]), torch.from_numpy(z["ctrl_points"])
            if form == "searched_signH1":
                form, points = "searched", points[:4]
            case = f"{file.name} {z['forms'][f]} blocked {z['block_grad'][b]}"
            logits, ious = (torch.from_numpy(z[name]).to(dtype).requires_grad_() for name in ("logits", "ious"))
            value = parameterized_ap_loss(
                logits, torch.from_numpy(z["labels"]), ious, points, form, bool(z["block_grad"][b]), int(z["num_topk"])
            )
            value.backward()
            gradient = logits.grad.double().reshape(-1).numpy()
            assert abs(value.item() - loss) <= loss_atol, case
            for computed, expected in ((gradient[z["grad_idx"]], z["grad"][f, b]), (ious.grad, z["grad_ious"][f, b])):
                tolerance = grad_atol + grad_rtol * np.abs(expected).max()
                assert np.abs(np.asarray(computed) - expected).max() <= tolerance, case
            assert (gradient[flat == -1] == 0).all(), case
            visited += 1
    assert visited == 10 * len(files) >= 10


def test_golden_curves():
    visited = 0
    for file in golden_files("pap_curve"):
        z = np.load(file)
        for c, points in enumerate(z["curves"]):
            y, slope = piecewise_curve(torch.from_numpy(z["x"]).double(), torch.from_numpy(points).double())
            np.testing.assert_allclose(y, z["y"][c], atol=1e-10)
            np.testing.assert_allclose(slope, z["dydx"][c], atol=1e-10)
            visited += 1
    assert visited >= 10
