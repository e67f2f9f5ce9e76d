"""From theta to the settings of a loss: sizes, the identity line, what trains, and files that training takes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from rankdet.build import make
from rankdet.config import compose, config_hash
from rankdet.errors import UserError
from rankdet.search.parameters import FUNCTIONS, Space, overrides

LINE = (0.2, 0.2, 0.4, 0.4, 0.6, 0.6, 0.8, 0.8)
BOTH = ("rpn.loss", "loss")


@pytest.mark.parametrize(
    ("stages", "functions", "scale", "size"),
    [
        (("loss",), "separate", True, 41),
        (("loss",), "separate", False, 40),
        (("loss",), "shared", True, 9),
        (("loss",), "fixed", True, 1),
        (BOTH, "separate", True, 82),
        (BOTH, "shared", False, 16),
    ],
)
def test_sizes_and_the_identity_line(stages, functions, scale, size):
    space = Space(stages, functions, scale)
    assert space.size == size == len(space.start()) == len(space.names()) == len(set(space.names()))
    shapes = space.shapes(space.start())
    assert tuple(shapes) == stages
    for shape in shapes.values():
        assert [list(row) for row in shape.control_points] == [pytest.approx(LINE, abs=1e-9)] * 5
        assert shape.gradient_scale == 1


def test_every_coordinate_is_where_its_name_says():
    """Moved from the start, one by one: h1 y3 of the RPN moves points 3 and 4 of that row in y, and nothing else."""
    space = Space(BOTH, "separate", True)
    names, start = space.names(), space.shapes(space.start())
    for place, name in enumerate(names):
        moved = space.start()
        moved[place] += 0.05
        stage, _, coordinate = name.partition(" ")
        for other, shape in space.shapes(moved).items():
            changed = {
                (FUNCTIONS[row], "xy"[column % 2], column // 2 + 1)
                for row in range(5)
                for column in range(8)
                if shape.control_points[row][column] != start[other].control_points[row][column]
            }
            assert (shape.gradient_scale != 1) == (other == stage and coordinate == "scale")
            if other != stage or coordinate == "scale":
                assert not changed
            else:
                function, point = coordinate.split()
                assert changed == {(function, point[0], k) for k in range(int(point[1]), 5)}


def test_shared_functions_are_one():
    shape = Space(("loss",), "shared", False).shapes(torch.rand(8))["loss"]
    assert len(set(shape.control_points)) == 1


def test_gradient_scale():
    """10 ** (2 theta - 1): from 0.1 to 10, at 1/2 it is 1, at 3/4 the root of 10."""
    space = Space(("loss",), "fixed", True)
    scales = [space.shapes(torch.tensor([theta]))["loss"].gradient_scale for theta in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert scales == pytest.approx([10**-0.98, 10**-0.5, 1, 10**0.5, 10**0.98])


@settings(max_examples=25, deadline=None)
@given(theta=st.lists(st.floats(0, 1), min_size=41, max_size=41), corner=st.sampled_from([None, 0.0, 1.0]))
def test_any_theta_can_be_trained(theta, corner):
    """Also where the policy is cut off: points that would meet are kept apart, as written down with 9 digits."""
    theta = torch.tensor(theta) if corner is None else torch.full((41,), corner)
    shape = Space(("loss",), "separate", True).shapes(theta)["loss"]
    loss = make(
        OmegaConf.create({"_target_": "rankdet.losses.parameterized_ap.ParameterizedAPLoss", **shape._asdict()})
    )
    assert loss.control_points.shape == (5, 12)
    assert (loss.control_points[:, 0::2].diff() > 0).all()


@pytest.mark.parametrize(("functions", "scale"), [("fixed", False), ("seperate", True)])
def test_nothing_to_search(functions, scale):
    with pytest.raises(ValueError, match=r"nothing to search|must be one of separate, shared, fixed"):
        Space(("loss",), functions, scale)


def test_as_overrides():
    """Faster R-CNN's two stages get a set each, and other functions another run."""
    space = Space(BOTH, "separate", True)
    detector = ["model=faster_rcnn_quarter", "rpn=pap", "matching=roi", "loss=parameterized_ap", "box_loss=none"]
    theta = torch.linspace(0.1, 0.9, 82, dtype=torch.float64)
    cfg = compose([*detector, *overrides(space.shapes(theta))])
    for stage, shape in space.shapes(theta).items():
        node = OmegaConf.select(cfg, stage)
        assert tuple(map(tuple, node.control_points)) == shape.control_points
        assert node.gradient_scale == shape.gradient_scale
    assert config_hash(cfg) != config_hash(compose([*detector, *overrides(space.shapes(space.start()))]))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([0.5, 0.2, 0.4, 0.4, 0.6, 0.6, 0.8, 0.8], r"control_points must ascend.*got row 2: \[0\.0, 0\.0, 0\.5"),
        ([0.2, 0.2, 0.4, 0.1, 0.6, 0.6, 0.8, 0.8], "control_points must ascend.*got row 2"),
        ([0.2, 0.2], "control_points must be five rows of 8 numbers.* got 5 of 8, 8, 2, 8, 8"),
    ],
)
def test_points_that_do_not_increase(row, message):
    """One line, in a config as in a file."""
    rows = [list(LINE), list(LINE), row, list(LINE), list(LINE)]
    cfg = compose(["loss=parameterized_ap", "box_loss=none", f"loss.control_points={rows}"])
    with pytest.raises(UserError, match=message) as caught:
        make(cfg.loss)
    assert "\n" not in str(caught.value)
