"""Strips and the sheet: every image is there, clipped and rounded, below a caption that fits."""

import numpy as np
import pytest

from rankdet.errors import UserError
from rankdet.robustness.pictures import HEIGHT, MARGIN, read_picture, save_picture, sheet, strip


def test_a_strip_shows_its_images_side_by_side():
    """A grey 200 x 300 and a 100 x 50 that is enlarged twofold; values beyond 0..255 are clipped."""
    images = [np.full((HEIGHT, 300, 3), 90.4), np.full((100, 50, 3), 999.0)]
    picture = strip(images, "two images")
    height, width = picture.shape[:2]
    assert width == 300 + 100 + 3 * MARGIN
    first = picture[height - MARGIN - HEIGHT : height - MARGIN, MARGIN : MARGIN + 300]
    assert (first == 90).all()
    assert (picture[height - MARGIN - HEIGHT :, 2 * MARGIN + 300 :] == 255).all()
    assert (picture[: height - MARGIN - HEIGHT] < 128).any()  # the caption
    longer = strip(images, "two images, of which a great deal more is said than one line can hold " * 2)
    assert longer.shape[1] == width
    assert longer.shape[0] > height


def test_a_strip_without_images_still_says_what_it_is():
    assert (strip([], "nothing was attacked") < 128).any()


def test_a_sheet_holds_all_strips(tmp_path):
    wide, narrow = strip([np.zeros((20, 60, 3), np.uint8)] * 2, "wide"), strip([np.zeros((20, 20, 3))], "narrow")
    whole = sheet([wide, narrow])
    assert whole.shape == (wide.shape[0] + narrow.shape[0], max(wide.shape[1], narrow.shape[1]), 3)
    assert np.array_equal(whole[: wide.shape[0], : wide.shape[1]], wide)
    assert np.array_equal(whole[wide.shape[0] :, : narrow.shape[1]], narrow)
    save_picture(whole, tmp_path / "pictures" / "sheet.png")
    assert np.array_equal(read_picture(tmp_path / "pictures" / "sheet.png"), whole)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"broken\.png: cannot be read"):
        read_picture(tmp_path / "broken.png")
