"""Slow float64 twins of the losses, written pair by pair from the papers' equations, and where the golden data lies."""

import json
import math
import os
from pathlib import Path

import numpy as np
import torch

from rankdet.losses.inputs import LossInputs

GOLDEN = Path(os.environ.get("RANKDET_GOLDEN") or Path(__file__).parent / "golden")


def golden_files(family):
    """The files <family>_*.npz of the golden data, sorted: at least one, and all that the manifest lists."""
    files = sorted(GOLDEN.glob(f"{family}_*.npz"))
    assert files, f"no golden data for {family} in {GOLDEN}"
    manifest = GOLDEN / "MANIFEST.json"
    if manifest.exists():
        listed = {name for name in json.loads(manifest.read_text()) if name.startswith(f"{family}_")}
        assert listed == {file.name for file in files}
    return files


def step_value(x, step, size):
    """f(x) for one difference x: linear with half width `size`, hard, or sigmoid with scale `size`."""
    if step == "heaviside":
        return float(x >= 0)
    if step == "linear":
        return min(max(x / (2 * size) + 0.5, 0.0), 1.0)
    return 1 / (1 + math.exp(-x / size)) if x > -700 * size else 0.0


def pair_steps(points, scores, step, size):
    """[P, N] matrix of f(score - point)."""
    return np.array([[step_value(n - p, step, size) for n in scores] for p in points]).reshape(len(points), len(scores))


def split(scores, labels):
    """Flat float64 scores, and the flat indices of the positives and of the negatives."""
    labels = np.asarray(labels).reshape(-1)
    return np.asarray(scores, dtype=np.float64).reshape(-1), np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)


def ap_twin(scores, labels, delta=1.0, interpolate=True, step="linear", k=0.5):
    """AP-loss value and gradient by AP-loss Algorithm 1: a loop over the positives, lowest score first."""
    s, pos, neg = split(scores, labels)
    gradient, value, best = np.zeros_like(s), 0.0, 0.0
    size = k if step == "sigmoid" else delta
    for i in sorted(pos, key=lambda i: s[i]):
        rank_pos = 1 + sum(step_value(s[j] - s[i], step, size) for j in pos if j != i)
        above = np.array([step_value(s[j] - s[i], step, size) for j in neg])
        rank = rank_pos + above.sum()
        precision, row = rank_pos / rank, above / rank
        if interpolate and precision < best:
            row = row * (1 - best) / (1 - precision)
            precision = best
        best = max(best, precision)
        value += (1 - precision) / len(pos)
        gradient[i] -= row.sum() / len(pos)
        gradient[neg] += row / len(pos)
    return value, gradient


def auc_twin(scores, labels, delta=1.0):
    """AUC-loss value and gradient over the full matrix of pairs (AP-loss Eq. 7 and 14)."""
    s, pos, neg = split(scores, labels)
    gradient = np.zeros_like(s)
    if len(pos) == 0 or len(neg) == 0:
        return 0.0, gradient
    share = pair_steps(s[pos], s[neg], "linear", delta) / (len(pos) * len(neg))
    gradient[pos], gradient[neg] = -share.sum(1), share.sum(0)
    return share.sum(), gradient


def ce_ohem_twin(logits, labels, negatives_per_positive, min_negatives):
    """CE + OHEM value and gradient, one image and one anchor after the other; background is the last channel."""
    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    probabilities = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)
    gradient, value, num_positives = np.zeros_like(logits), 0.0, 0
    for b in range(len(logits)):
        positives = [a for a in range(logits.shape[1]) if (labels[b, a] == 1).any()]
        negatives = [a for a in range(logits.shape[1]) if (labels[b, a] == 0).all()]
        negatives.sort(key=lambda a: probabilities[b, a, -1])
        count = max(min_negatives, math.ceil(negatives_per_positive * len(positives)))
        for a in positives + negatives[:count]:
            target = list(labels[b, a]).index(1) if a in positives else logits.shape[2] - 1
            value -= math.log(probabilities[b, a, target])
            gradient[b, a] = probabilities[b, a]
            gradient[b, a, target] -= 1
        num_positives += len(positives)
    return value / max(1, num_positives), gradient / max(1, num_positives)


def value_and_gradient(loss, logits, *args, dtype=torch.float64, **kwargs):
    """A loss function's value (float) and gradient (float64 array, flat) at logits of type dtype."""
    logits = torch.as_tensor(np.asarray(logits)).to(dtype).requires_grad_()
    value = loss(logits, *args, **kwargs)
    value.backward()
    return value.item(), logits.grad.double().reshape(-1).numpy()


def loss_inputs(logits, labels, apart=2.0):
    """LossInputs around the given scores; boxes of side 10, each prediction `apart` pixels right of its target."""
    labels = torch.as_tensor(labels, dtype=torch.int8)
    positives = (labels.reshape(-1) == 1).nonzero().squeeze(1)
    deltas = torch.full((len(positives), 4), 0.5, dtype=logits.dtype, requires_grad=True)
    target_boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0]]).repeat(len(positives), 1)
    pred_boxes = target_boxes + deltas.sum(1, keepdim=True) * torch.tensor([apart, 0, apart, 0]) / 2
    return LossInputs(logits, labels, positives, deltas, torch.zeros_like(deltas).detach(), pred_boxes, target_boxes)
