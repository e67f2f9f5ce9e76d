"""loss=PATH.yaml: what such a file may say, and that it is the same as saying it on the command line."""

import pytest

from rankdet.config import compose, config_hash
from rankdet.errors import UserError
from rankdet.option_files import opened

POINTS = "[[0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8]]"


def test_a_loss(tmp_path):
    """It builds on an option of the group; a key given after it has the last word; no other setting is touched."""
    path = tmp_path / "mine.yaml"
    path.write_text("# mine\ndefaults: [parameterized_ap]\nform: square\nnum_topk: 1e3\ncontrol_points: null\n")
    cfg = compose([f"loss={path}", "box_loss=none", "loss.gradient_scale=0.5"])
    by_hand = ["loss=parameterized_ap", "loss.form=square", "loss.num_topk=1000.0", "loss.control_points=null"]
    assert config_hash(cfg) == config_hash(compose([*by_hand, "box_loss=none", "loss.gradient_scale=0.5"]))
    assert (cfg.loss.form, cfg.loss.control_points, cfg.loss.gradient_scale) == ("square", None, 0.5)
    assert compose([f"loss={path}", "loss.form=linear"]).loss.form == "linear"


def test_a_first_stage(tmp_path):
    """Nested keys, and a list of lists."""
    path = tmp_path / "rpn.yaml"
    path.write_text(f"defaults: [pap]\nweight: 0.5\nloss: {{control_points: {POINTS}, block_gradient: false}}\n")
    cfg = compose(["model=faster_rcnn_quarter", "matching=roi", f"rpn={path}"])
    assert cfg.rpn.loss.control_points == [[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]]
    assert (cfg.rpn.weight, cfg.rpn.loss.block_gradient, cfg.rpn.matching.positive_iou) == (0.5, False, 0.7)


def test_other_settings_stay():
    assert opened(["loss=ap", "loss.delta=0.5", "seed=1"]) == ["loss=ap", "loss.delta=0.5", "seed=1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"loss=.*mine\.yaml: no such file"),
        ("delta: 1", r"mine\.yaml: must say which option of loss it builds on, e\.g\. defaults: \[parameterized_ap\]"),
        ("- 1", r"mine\.yaml: must say which option"),
        ("defaults: [ap, focal]", r"mine\.yaml: must say which option"),
        ("defaults: [ap", r"loss=.*mine\.yaml: cannot be read"),
        ("defaults: [ap]\ndelta: 1\ndelta: 2", r"loss=.*mine\.yaml: cannot be read .*duplicate key delta"),
        ("defaults: [app]", r"loss/app"),
        ("defaults: [ap]\ndleta: 1", "dleta"),
    ],
)
def test_mistakes(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        compose([f"loss={path}"])
    assert "\n" not in str(caught.value)
