"""aLRP loss against the authors' numbers, worked arithmetic, a slow twin, and its self-balancing."""

import json

import numpy as np
import pytest
import torch
from reference import GOLDEN, golden_files, loss_inputs

from rankdet.losses.alrp import ALRPLoss, alrp_loss
from rankdet.losses.overlap import paired_giou
from rankdet.losses.self_balance import SelfBalance

# golden README: loss absolute, gradient absolute, gradient relative to its largest element
TOLERANCES = {torch.float64: (1e-10, 1e-12, 1e-9), torch.float32: (1e-6, 1e-8, 5e-6)}


def parts_and_gradients(logits, labels, errors, dtype, *args, **kwargs):
    """Both values, the classification part's gradient to the logits and the localisation part's to the errors."""
    logits = torch.as_tensor(logits).to(dtype).requires_grad_()
    errors = torch.as_tensor(errors).to(dtype).requires_grad_()
    classification, localisation = alrp_loss(logits, torch.as_tensor(labels), errors, *args, **kwargs)
    (to_logits,) = torch.autograd.grad(classification, logits)
    (to_errors,) = torch.autograd.grad(localisation, errors)
    return (
        classification.item(),
        localisation.item(),
        to_logits.double().reshape(-1).numpy(),
        to_errors.double().numpy(),
    )


def assert_close(computed, expected, tolerance, case):
    _, atol, rtol = tolerance
    assert np.abs(computed - expected).max(initial=0) <= atol + rtol * np.abs(expected).max(initial=0), case


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_golden(dtype):
    """Every file and delta: both parts and their gradients, the soft form, and the chain to the boxes."""
    tolerance = TOLERANCES[dtype]
    visited = ties = 0
    for file in golden_files("alrp"):
        z = np.load(file)
        flat = z["labels"].reshape(-1)
        for d, delta in enumerate(z["deltas"]):
            case = f"{file.name} delta {delta}"
            arguments = (z["logits"], z["labels"], z["reg_loss"], dtype, float(delta))
            cls, loc, to_logits, to_errors = parts_and_gradients(*arguments)
            soft_cls, soft_loc, soft_to_logits, soft_to_errors = parts_and_gradients(*arguments, soft_localisation=True)
            assert abs(cls - z["cls_loss"][d]) <= tolerance[0], case
            assert (soft_cls, soft_to_logits.tolist()) == (cls, to_logits.tolist()), case
            assert_close(to_logits[z["grad_idx"]], z["grad"][d], tolerance, case)
            assert (to_logits[flat == -1] == 0).all(), case
            assert abs(soft_loc - z["loc_loss_soft"][d]) <= tolerance[0], case
            assert_close(soft_to_errors, z["grad_reg_soft"][d], tolerance, case)
            if z["pos_ties"]:  # the released program's order of equal scores is nobody's business
                ties += 1
            else:
                assert abs(loc - z["loc_loss"][d]) <= tolerance[0], case
                assert_close(to_errors, z["grad_reg"][d], tolerance, case)
            visited += 1
    assert visited == 3 * len(golden_files("alrp")) > ties
