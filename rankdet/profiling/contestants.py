"""What is measured: every loss as a name and a call on a problem."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from rankdet.losses.alrp import alrp_loss
from rankdet.losses.ap import ap_loss
from rankdet.losses.approximate import smoothed_ap_loss
from rankdet.losses.auc import auc_loss
from rankdet.losses.binary_cross_entropy import binary_cross_entropy_loss
from rankdet.losses.ce_ohem import ce_ohem_loss
from rankdet.losses.cross_entropy import cross_entropy_loss
from rankdet.losses.dr import dr_loss
from rankdet.losses.focal import focal_loss
from rankdet.losses.ghm import ghm_c_loss
from rankdet.losses.hinge import structured_hinge_ap_loss
from rankdet.losses.ndcg import ndcg_loss
from rankdet.losses.parameterized_ap import parameterized_ap_loss
from rankdet.losses.rank_sort import rank_sort_loss
from rankdet.profiling.problems import Problem
from rankdet.profiling.twins import ap_loss_by_loop, ap_loss_by_matrix

Loss = Callable[[Problem], Tensor]  # -> scalar to call backward() on

YARDSTICK, BCE, NONE = "torchvision focal", "BCE", "none"
AP, AP_GIVEN, AP_SIGMOID, AUC = "AP", "AP, positives given", "AP, sigmoid step", "AUC"
ALRP, RANKING, RANK_SORT, PARAMETERIZED = "aLRP", "Rank & Sort, ranking part", "Rank & Sort", "Parameterized AP"
FOCAL, OHEM, LOOP, MATRIX = "focal", "CE + OHEM", "AP, loop over positives", "AP, matrix of pairs"

# Five curves from (0, 0) to (1, 1) with four points between, as uneven as searched ones; what they are costs no time.
CONTROL_POINTS = [
    [0.0, 0.0, 0.1 + shift, 0.05, 0.35, 0.3 + shift, 0.6, 0.55 + shift, 0.8 + shift, 0.9, 1.0, 1.0]
    for shift in (0.0, 0.02, 0.04, 0.06, 0.08)
]


def losses(device: torch.device) -> dict[str, Loss]:
    """Every loss, in the order of the tables, for problems on the device.

    NONE is a network's gradient alone; RANKING computes the sorting part, too, but differentiates its own alone.
    """
    points = torch.tensor(CONTROL_POINTS, dtype=torch.float64, device=device)
    return {
        NONE: lambda p: p.logits.sum(),
        YARDSTICK: lambda p: sigmoid_focal_loss(p.logits, p.targets, reduction="sum"),
        BCE: lambda p: F.binary_cross_entropy_with_logits(p.logits, p.targets, reduction="sum"),
        AP: lambda p: ap_loss(p.logits, p.labels),
        AP_GIVEN: lambda p: ap_loss(p.logits, p.labels, positives=p.positives),
        AP_SIGMOID: lambda p: ap_loss(p.logits, p.labels, step="sigmoid"),
        f"{AP_SIGMOID}, positives given": lambda p: ap_loss(p.logits, p.labels, step="sigmoid", positives=p.positives),
        "AP, hard step": lambda p: ap_loss(p.logits, p.labels, step="heaviside"),
        "AP, hard step, positives given": lambda p: ap_loss(
            p.logits, p.labels, step="heaviside", positives=p.positives
        ),
        AUC: lambda p: auc_loss(p.logits, p.labels),
        "nDCG": lambda p: ndcg_loss(p.logits, p.labels),
        ALRP: lambda p: sum(alrp_loss(p.logits, p.labels, 2 * (1 - p.ious))),
        RANKING: lambda p: rank_sort_loss(p.logits, p.quality)[0],
        RANK_SORT: lambda p: sum(rank_sort_loss(p.logits, p.quality)),
        PARAMETERIZED: lambda p: parameterized_ap_loss(p.logits, p.labels, p.ious, points),
        "DR": lambda p: dr_loss(p.logits, p.labels),
        "GHM-C": lambda p: ghm_c_loss(p.logits, p.labels)[0],
        "smoothed AP": lambda p: smoothed_ap_loss(p.logits, p.labels),
        "structured hinge": lambda p: structured_hinge_ap_loss(p.logits, p.labels),
        FOCAL: lambda p: focal_loss(p.logits, p.labels),
        OHEM: lambda p: ce_ohem_loss(p.softmax_logits, p.labels),
        "cross entropy": lambda p: cross_entropy_loss(p.softmax_logits, p.labels),
        "binary cross entropy": lambda p: binary_cross_entropy_loss(p.logits, p.labels),
        LOOP: lambda p: ap_loss_by_loop(p.logits, p.labels),
        MATRIX: lambda p: ap_loss_by_matrix(p.logits, p.labels),
    }
