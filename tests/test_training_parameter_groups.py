"""lr_factors: which parts of a network learn at which multiple of the rate, and what is refused."""

import pytest
import torch
from test_training_loop import batch, reports_of, training, weights
from torch import nn

from rankdet.build import build_optimizer
from rankdet.config import compose, config_hash, identity
from rankdet.errors import UserError
from rankdet.training.parameter_groups import parameter_groups


def model() -> nn.Module:
    """Parts: body, of a frozen layer and a trained one, and head."""
    layers = nn.ModuleDict({"0": nn.Linear(2, 2), "offsets": nn.Linear(2, 2)})
    layers["0"].requires_grad_(False)
    return nn.ModuleDict({"body": layers, "head": nn.Linear(2, 1), "offsets": nn.Linear(2, 3)})


def test_without_factors_it_is_a_list():
    net = model()
    assert parameter_groups(net, []) == [p for p in net.parameters() if p.requires_grad]
    assert len(parameter_groups(net, [])) == 6


def test_groups():
    """A part may stand anywhere in a name; of two that fit, the first holds."""
    net = model()
    found = parameter_groups(net, [["body", 0.5], ["offsets", 0.1]])
    shapes = [(group["lr_factor"], [tuple(p.shape) for p in group["params"]]) for group in found]
    assert shapes == [(1.0, [(1, 2), (1,)]), (0.5, [(2, 2), (2,)]), (0.1, [(3, 2), (3,)])]
    assert [group["lr_factor"] for group in parameter_groups(net, [["offsets", 0.1], ["body", 0.5]])] == [1.0, 0.1]


@pytest.mark.parametrize(
    ("factors", "named"),
    [
        ([["bodi", 0.1]], r"^lr_factors: the model trains no part named 'bodi'"),
        ([["0", 0.1]], r"^lr_factors: the model trains no part named '0'"),  # it is frozen
        ([["body", 0.0]], r"^lr_factors: \['body', 0\.0\] is no pair of a part's name and a factor above 0"),
        ([["body"]], r"^lr_factors: \['body'\] is no pair"),
        (["body"], r"^lr_factors: body is no pair"),
    ],
)
def test_what_is_refused(factors, named):
    with pytest.raises(UserError, match=named):
        parameter_groups(model(), factors)


def test_a_part_s_steps_are_its_factor_s():
    """Under gradient descent a hundredth of the rate moves the backbone a hundredth as far, and the rest as before."""
    moved = {}
    for factors in ([], [["backbone", 0.01]]):
        trained = training(lr=0.5)
        cfg = compose(["optimizer=sgd", "optimizer.momentum=0", "optimizer.weight_decay=0"])
        cfg.lr_factors = factors
        trained.optimizer = build_optimizer(cfg, trained.model, 123.0)
        before = weights(trained)
        reports_of(trained, [batch()])
        names = [name for name, _ in trained.model.named_parameters()]
        steps = [after - start for after, start in zip(weights(trained), before, strict=True)]
        moved[bool(factors)] = dict(zip(names, steps, strict=True))
    backbone = [name for name in moved[False] if name.startswith("backbone")]
    assert 10 < len(backbone) < len(moved[False])
    for name, step in moved[False].items():
        factor = 0.01 if name in backbone else 1.0
        torch.testing.assert_close(moved[True][name], factor * step, atol=2e-7, rtol=2e-3)


def test_without_factors_a_run_is_the_one_it_was():
    """The key is younger than the records."""
    plain = compose([])
    assert "lr_factors" not in identity(plain)
    assert config_hash(compose(["lr_factors=[[backbone,0.1]]"])) != config_hash(plain)
