"""torch.compile takes every ranking loss as one graph, where the positives are given."""

from functools import partial
from unittest import mock

import pytest
import torch

from rankdet.losses import intervals
from rankdet.losses.alrp import alrp_loss
from rankdet.losses.ap import ap_loss
from rankdet.losses.auc import auc_loss
from rankdet.losses.ndcg import ndcg_loss
from rankdet.losses.parameterized_ap import parameterized_ap_loss
from rankdet.losses.rank_sort import rank_sort_loss

CURVE = torch.tensor([0.0, 0.0, 0.1, 0.2, 0.3, 0.3, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0], dtype=torch.float64)


@pytest.fixture(autouse=True)
def no_graphs_yet():
    """Compiled lambdas of one line count as recompilations of one function, of which there may be eight."""
    torch._dynamo.reset()


def rank_sort(logits, labels, each, positives):
    quality = labels.to(each.dtype).index_put((positives,), each.detach() + 0.1)
    return sum(rank_sort_loss(logits, quality, positives=positives))


def alrp(logits, labels, each, positives, **options):
    return sum(alrp_loss(logits, labels, each, positives=positives, **options))


def pap(logits, labels, each, positives, rows=5, **options):
    return parameterized_ap_loss(logits, labels, each, CURVE.repeat(rows, 1), positives=positives, **options)


def without_each(loss, **options):
    return lambda logits, labels, each, positives: loss(logits, labels, positives=positives, **options)


# name -> the loss of logits, labels, one number in [0, 1] for each positive, and the positives' indices
LOSSES = {
    "ap": without_each(ap_loss),
    "auc": without_each(auc_loss),
    "ndcg": without_each(ndcg_loss),
    "alrp": alrp,
    "rank_sort": rank_sort,
    "pap searched": pap,
}
VARIANTS = {
    "ap uninterpolated": without_each(ap_loss, interpolate=False),
    "ap heaviside": without_each(ap_loss, step="heaviside"),
    "alrp soft": partial(alrp, soft_localisation=True),
    "pap searched, four rows": partial(pap, rows=4, block_gradient=False, num_topk=50),
    "pap linear": partial(pap, form="linear"),
}


def problem(seed, num_positives=20):
    """80 logits, their labels, a number for each positive, the positives' indices."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor([1] * num_positives + [0] * 40 + [-1] * (40 - num_positives))
    labels, logits = labels[torch.randperm(80, generator=generator)], torch.randn(80, generator=generator)
    each = torch.rand(num_positives, generator=generator)
    return logits.requires_grad_(), labels, each.requires_grad_(), (labels == 1).nonzero().squeeze(1)


def value_and_gradients(loss, inputs):
    value = loss(*inputs)
    return [value, *torch.autograd.grad(value, (inputs[0], inputs[2]), allow_unused=True)]


def assert_same(compiled, loss, inputs):
    plain, traced = value_and_gradients(loss, inputs), value_and_gradients(compiled, inputs)
    assert plain[0] > 0
    assert plain[1].abs().max() > 0
    for ours, theirs in zip(traced, plain, strict=True):
        assert (ours is None and theirs is None) or torch.equal(ours, theirs)


@pytest.mark.parametrize("name", [*LOSSES, *(pytest.param(name, marks=pytest.mark.full) for name in VARIANTS)])
def test_one_graph(name):
    """The same bits as without it, and for other values too: the second problem may not compile again."""
    loss = (LOSSES | VARIANTS)[name]
    compiled = torch.compile(loss, fullgraph=True, backend="eager", dynamic=False)
    assert_same(compiled, loss, problem(1))
    with torch._dynamo.config.patch(error_on_recompile=True):
        assert_same(compiled, loss, problem(2))


def test_one_graph_of_many_scores(monkeypatch):
    """Where intervals come from a grid, how many scores lie beside an edge depends on values: one node of the graph."""
    monkeypatch.setattr(intervals, "LARGE", 1)
    compiled = torch.compile(LOSSES["ap"], fullgraph=True, backend="eager", dynamic=False)
    with mock.patch.object(intervals, "FEW", 0.0):  # else the plain form adds up in another order
        assert_same(compiled, LOSSES["ap"], problem(1))


@pytest.mark.full
@pytest.mark.parametrize("name", sorted(LOSSES.keys() - {"rank_sort"}))
def test_one_graph_for_any_number_of_positives(name):
    """The first is compiled for its 20, the second for any number.

    Not Rank & Sort: its loop over blocks of pairs of positives is unrolled, for each number of them anew.
    """
    compiled = torch.compile(LOSSES[name], fullgraph=True, backend="eager")
    assert_same(compiled, LOSSES[name], problem(1, 20))
    assert_same(compiled, LOSSES[name], problem(2, 10))
    with torch._dynamo.config.patch(error_on_recompile=True):
        for num_positives in (7, 30):
            assert_same(compiled, LOSSES[name], problem(3, num_positives))


def test_a_graph_asserts_the_values():
    """It cannot wait to say which ones; the message still names the argument, and gradients stay switched on."""
    compiled = torch.compile(LOSSES["auc"], fullgraph=True, backend="eager", dynamic=False)
    logits, labels, each, positives = problem(1)
    compiled(logits, labels, each, positives)
    with pytest.raises(RuntimeError, match="logits must be finite"):
        compiled(logits.detach().where(logits < 1, torch.nan), labels, each, positives)
    with pytest.raises(RuntimeError, match="labels must be 1, 0 or -1"):
        compiled(logits, labels * 2, each, positives)
    assert torch.is_grad_enabled()
