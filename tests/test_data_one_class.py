"""A data set's classes made one."""

import numpy as np

from rankdet.data.one_class import OneClass
from rankdet.data.shapes import ShapesSource


def test_everything_else_stays(tmp_path):
    source = ShapesSource(str(tmp_path / "set"), num_train=3, num_val=1, num_test=1)
    many, one = source.read("train"), OneClass(source).read("train")
    assert len(many.classes) > 1
    assert (one.classes, one.category_ids, one.split, one.name) == (("object",), (1,), many.split, many.name)
    assert len(one.records) == 3
    for a, b in zip(many.records, one.records, strict=True):
        assert (a.image_id, a.path, len(a.boxes)) == (b.image_id, b.path, len(b.labels))
        np.testing.assert_array_equal(a.boxes, b.boxes)
        assert (b.labels == 0).all()
        assert b.labels.dtype == a.labels.dtype
    assert one.fingerprint() != many.fingerprint()
