"""Images held out of a split: two parts that share none, the same for everybody, and the other splits untouched."""

import pytest

from rankdet.build import open_source
from rankdet.config import compose, config_hash
from rankdet.data.held_out import HeldOut
from rankdet.data.shapes import ShapesSource
from rankdet.errors import UserError


def paths(found):
    return [record.path for record in found.records]


def test_two_parts_of_one_split(tmp_path):
    source = ShapesSource(str(tmp_path / "set"), num_train=7, num_val=3, num_test=2)
    parted, whole = HeldOut(source, "trainval", 4), source.read("trainval")
    kept, held_out = parted.read("kept"), parted.read("held_out")
    assert (len(kept.records), len(held_out.records)) == (6, 4)
    assert sorted(paths(kept) + paths(held_out)) == sorted(paths(whole))
    assert paths(kept) == [path for path in paths(whole) if path in paths(kept)]
    assert (kept.split, held_out.split, kept.classes) == ("kept", "held_out", whole.classes)
    assert paths(HeldOut(source, "trainval", 4).read("kept")) == paths(kept)
    assert parted.read("test").fingerprint() == source.read("test").fingerprint()


@pytest.mark.parametrize("num", [0, 10, 2.5])
def test_a_part_without_images(tmp_path, num):
    source = ShapesSource(str(tmp_path / "set"), num_train=7, num_val=3, num_test=2)
    with pytest.raises(UserError, match=rf"hold_out\.num={num}: must be a whole number from 1 to 9"):
        HeldOut(source, "trainval", num).read("kept")


def test_by_config(tmp_path):
    """The group's neutral option changes no run's name."""
    few = [f"data.root={tmp_path}/set", "data.source.num_train=7", "data.source.num_val=3", "data.source.num_test=2"]
    cfg = compose([*few, "hold_out=part", "hold_out.num=4", "splits.train=kept"])
    assert len(open_source(cfg).read(cfg.splits.train).records) == 6
    plain = compose(few)
    assert config_hash(plain) == config_hash(compose([*few, "hold_out=none"])) != config_hash(cfg)
