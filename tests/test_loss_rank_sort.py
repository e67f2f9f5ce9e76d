"""Rank & Sort loss against the authors' numbers, worked arithmetic and a slow twin."""

import numpy as np
import pytest
import torch
from reference import golden_files, value_and_gradient

from rankdet.losses.rank_sort import rank_sort_loss

# golden README: loss absolute, gradient absolute, gradient relative to its largest element
TOLERANCES = {torch.float64: (1e-10, 1e-12, 1e-9), torch.float32: (1e-6, 1e-8, 1e-5)}


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_golden(dtype):
    """Every file and delta: both parts, the gradient of their sum, its sums over both sides, and exact zeros."""
    loss_atol, grad_atol, grad_rtol = TOLERANCES[dtype]
    visited = 0
    files = golden_files("ranksort")
    for file in files:
        z = np.load(file)
        flat = z["labels"].reshape(-1)
        for d, delta in enumerate(z["deltas"]):
            case = f"{file.name} delta {delta}"
            logits = torch.from_numpy(z["logits"]).to(dtype).requires_grad_()
            parts = rank_sort_loss(logits, torch.from_numpy(z["targets"]), float(delta))
            sum(parts).backward()
            gradient = logits.grad.double().reshape(-1).numpy()
            assert np.abs(np.array([part.item() for part in parts]) - z["loss"][d]).max() <= loss_atol, case
            tolerance = grad_atol + grad_rtol * np.abs(z["grad"][d]).max()
            assert np.abs(gradient[z["grad_idx"]] - z["grad"][d]).max() <= tolerance, case
            assert (gradient[flat == -1] == 0).all(), case
            for name, total in (("pos", gradient[flat == 1].sum()), ("neg", gradient[flat == 0].sum())):
                assert abs(total - z[f"grad_sum_{name}"][d]) <= max(loss_atol, grad_rtol), case
            visited += 1
    assert visited == 3 * len(files) >= 3
