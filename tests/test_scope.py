"""Ranking over all processes: each has the loss and the gradients that one process has of all scores together."""

import multiprocessing
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from rankdet.losses.alrp import alrp_loss
from rankdet.losses.ap import APLoss, ap_loss
from rankdet.losses.auc import auc_loss
from rankdet.losses.ndcg import ndcg_loss
from rankdet.losses.parameterized_ap import parameterized_ap_loss
from rankdet.losses.rank_sort import rank_sort_loss
from rankdet.losses.scope import Scope, ranking_group

# name -> the loss's parts, of logits, labels and one number in (0, 1) for each positive
LOSSES = {
    "ap": lambda logits, labels, each, group: [ap_loss(logits, labels, group=group)],
    "ap uninterpolated": lambda logits, labels, each, group: [ap_loss(logits, labels, 0.5, False, group=group)],
    "ap heaviside": lambda logits, labels, each, group: [ap_loss(logits, labels, step="heaviside", group=group)],
    "ap sigmoid": lambda logits, labels, each, group: [ap_loss(logits, labels, step="sigmoid", group=group)],
    "auc": lambda logits, labels, each, group: [auc_loss(logits, labels, group=group)],
    "ndcg": lambda logits, labels, each, group: [ndcg_loss(logits, labels, group=group)],
    "alrp": lambda logits, labels, each, group: alrp_loss(logits, labels, each, group=group),
    "alrp soft": lambda logits, labels, each, group: alrp_loss(
        logits, labels, each, soft_localisation=True, group=group
    ),
    "rank_sort": lambda logits, labels, each, group: rank_sort(logits, labels, each, 0.5, group),
    "rank_sort hard": lambda logits, labels, each, group: rank_sort(logits, labels, each, 0.0, group),
    "pap": lambda logits, labels, each, group: [pap(logits, labels, each, True, 100_000, group)],
    "pap unblocked, top 8": lambda logits, labels, each, group: [pap(logits, labels, each, False, 8, group)],
}

# What each process holds; "far" has negatives that no positive sees, "equal" one score for all.
WORLDS = {
    2: [
        ("mixed", "mixed"),
        ("mixed", "no positives"),
        ("far", "mixed"),
        ("empty", "mixed"),
        ("mixed", "ignored"),
        ("positives", "negatives"),
        ("no positives", "no positives"),
        ("no positives", "empty"),
        ("equal", "equal"),
    ],
    3: [("mixed", "no positives", "far"), ("empty", "mixed", "mixed"), ("no positives", "far", "mixed")],
}
SINGLE = 3  # so many of a world's cases are computed in float32 too
CASES = [(size, case) for size, cases in WORLDS.items() for case in range(len(cases))]


def rank_sort(logits, labels, each, delta, group):
    quality = labels.to(logits.dtype)
    quality[labels == 1] = each.detach()
    return rank_sort_loss(logits, quality, delta, group=group)


def pap(logits, labels, each, block_gradient, num_topk, group):
    """Parameterized AP with one curve of no special shape for all five functions."""
    points = torch.tensor([[0, 0, 0.2, 0.1, 0.4, 0.5, 0.6, 0.7, 0.8, 0.75, 1, 1]] * 5, dtype=torch.float64)
    return parameterized_ap_loss(
        logits, labels, each, points, block_gradient=block_gradient, num_topk=num_topk, group=group
    )


def share(kind, seed):
    """logits float64 and labels of one process, of another length each time; a number in (0, 1) for each positive."""
    generator = torch.Generator().manual_seed(seed)
    count = 0 if kind == "empty" else 30 + seed % 7
    logits = torch.randn(count, generator=generator, dtype=torch.float64) * 2
    labels = torch.tensor([1, 0, 0, -1, 0] * 8, dtype=torch.int8)[:count]
    if kind == "no positives":
        labels = labels.clamp(max=0)
    elif kind == "far":
        logits = logits.where(labels == 1, -20.0)
    elif kind == "ignored":
        labels = torch.full_like(labels, -1)
    elif kind == "equal":
        logits = torch.full_like(logits, 0.25)
    elif kind in ("positives", "negatives"):
        labels = torch.full_like(labels, int(kind == "positives"))
    num_positives = int((labels == 1).sum())
    return logits, labels, torch.rand(num_positives, generator=generator, dtype=torch.float64)


def shares(size, case):
    """What the processes of one case hold, in order."""
    return [share(kind, 100 * size + 10 * case + rank) for rank, kind in enumerate(WORLDS[size][case])]


def precisions(case):
    """Types to compute a case in, and by how much values and gradients may differ."""
    return [(torch.float64, 1e-12), (torch.float32, 1e-6)][: 2 if case < SINGLE else 1]


def parts_and_gradients(name, logits, labels, each, group=None):
    """Each part's value, and its gradients to the logits and to `each` (zero where it has none)."""
    logits, each = logits.clone().requires_grad_(), each.clone().requires_grad_()
    results = []
    for part in LOSSES[name](logits, labels, each, group):
        gradients = torch.autograd.grad(part, (logits, each), retain_graph=True, materialize_grads=True)
        results.append((part.detach(), *gradients))
    return results


def one_rank(rank, size, folder):
    """All losses of all cases, and what the loss module makes of "global"."""
    store = f"file://{folder}/store-{size}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=size, timeout=timedelta(seconds=60))
    found = {}
    for case in range(len(WORLDS[size])):
        logits, labels, each = shares(size, case)[rank]
        for dtype, _ in precisions(case):
            for name in LOSSES:
                arguments = name, logits.to(dtype), labels, each.to(dtype), dist.group.WORLD
                found[case, dtype, name] = parts_and_gradients(*arguments)
    found["groups"] = [ranking_group(scope) is dist.group.WORLD for scope in ("gpu", "global")]
    found["module"] = APLoss(ranking_scope="global").group is dist.group.WORLD
    torch.save(found, folder / f"{size}-{rank}.pt")
    dist.destroy_process_group()


def all_worlds(folder):
    """Forks the processes of each world from this one, which has imported all they need."""
    torch.set_num_threads(1)
    context = multiprocessing.get_context("fork")
    for size in WORLDS:
        ranks = [context.Process(target=one_rank, args=(rank, size, folder)) for rank in range(size)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
            assert process.exitcode == 0


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """world size -> what each of its ranks found."""
    folder = tmp_path_factory.mktemp("ranks")
    process = multiprocessing.get_context("spawn").Process(target=all_worlds, args=(folder,))
    process.start()
    process.join(timeout=300)
    alive = process.is_alive()
    process.kill()
    assert not alive, "the ranks wait for each other"
    assert process.exitcode == 0
    return {size: [torch.load(folder / f"{size}-{rank}.pt") for rank in range(size)] for size in WORLDS}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(("size", "case"), CASES, ids=[f"{size}-{WORLDS[size][case]}" for size, case in CASES])
def test_the_ranks_share_one_loss(found, size, case, name):
    """The value on every rank, and after the mean that DistributedDataParallel takes, one process's gradient."""
    if name.endswith("top 8") and "equal" in WORLDS[size][case]:
        return  # of equal scores at the cut one process takes any 8, a group all
    held = shares(size, case)
    for dtype, atol in precisions(case):
        logits, labels, each = (torch.cat(tensors) for tensors in zip(*held, strict=True))
        expected = parts_and_gradients(name, logits.to(dtype), labels, each.to(dtype))
        assert len(expected) == (2 if name.startswith(("alrp", "rank_sort")) else 1)
        of_ranks = [ranks[case, dtype, name] for ranks in found[size]]
        for part, (value, to_logits, to_each) in enumerate(expected):
            for rank in range(size):
                torch.testing.assert_close(of_ranks[rank][part][0], value, rtol=0, atol=atol)
            for which, gradient in ((1, to_logits), (2, to_each)):
                shared = torch.cat([parts[part][which] for parts in of_ranks]) / size
                torch.testing.assert_close(shared, gradient, rtol=0, atol=atol)


def test_the_cases_are_what_they_say():
    """In every world each loss is above 0 where there are positives and negatives in range, and 0 without positives."""
    for size, case in CASES:
        logits, labels, each = (torch.cat(tensors) for tensors in zip(*shares(size, case), strict=True))
        value = parts_and_gradients("ap", logits, labels, each)[0][0]
        assert (value > 0) == bool((labels == 1).any()), WORLDS[size][case]


def test_modules_rank_over_the_world(found):
    for ranks in found.values():
        for rank in ranks:
            assert (rank["groups"], rank["module"]) == ([False, True], True)


def test_one_process_is_its_own_world():
    """Without a process group "global" is this process, which exchanges nothing."""
    assert ranking_group("global") is ranking_group("gpu") is None
    scope, values = Scope(), torch.arange(3)
    assert (scope.size, scope.gather(values), scope.total(values)) == (1, values, values)
    assert scope.own(values, 3) is values


def test_an_unknown_scope_is_named():
    with pytest.raises(
        ValueError, match='ranking_scope must be "gpu" or "global", got "world"'.replace('"world"', "'world'")
    ):
        ranking_group("world")
