"""Pictures of detections: sizes, lines where the boxes are, text on top of them, the legend, the grid."""

import numpy as np
import torch
from PIL import Image, ImageColor

from rankdet.evaluation.draw import MARGIN, PALETTE, draw_detections, grid

GREY = np.full((60, 80, 3), 90, np.uint8)
CLASSES = ("red cell", "white cell")


def colour(label):
    return ImageColor.getrgb(PALETTE[label])


def has(pixels, wanted):
    return bool((pixels == np.array(wanted)).all(-1).any())


def test_small_image_is_enlarged_by_a_whole_factor_and_gets_a_legend():
    picture = draw_detections(GREY, [], [], [], CLASSES, short_side=110)
    assert picture.dtype == np.uint8
    assert picture.shape[1:] == (160, 3)  # 60 * 2 is nearest to 110
    assert picture.shape[0] > 120
    assert (picture[:120] == 90).all()
    assert (picture[120] == 255).all()
    assert has(picture[120:], (0, 0, 0))


def test_large_image_keeps_its_size_up_to_a_limit():
    assert draw_detections(np.zeros((500, 700, 3), np.uint8), [], [], [], CLASSES).shape[1] == 700
    assert draw_detections(np.zeros((2000, 3840, 3), np.uint8), [], [], [], CLASSES).shape[1] == 1920
    assert draw_detections(np.zeros((1, 1000, 3), np.uint8), [], [], [], CLASSES).shape[1] == 1920


def test_predicted_box_is_solid_where_it_lies():
    """Box 20 20 60 50, twice as large: its left line runs down columns 40 and 41, from row 40 to row 99."""
    picture = draw_detections(GREY, [[20, 20, 60, 50]], [1], [0.5], CLASSES, short_side=110)
    assert (picture[40:100, 40:42] == colour(1)).all()
    assert (picture[98:100, 40:120] == colour(1)).all()
    assert not has(picture[101:120], colour(1))
    assert not has(picture[:120], (255, 255, 255))
    assert (picture[50:90, 50:110] == 90).all()
    assert has(picture[22:40, 40:120], (0, 0, 0))  # the text above the box


def test_true_box_is_dashed_in_white_and_its_class():
    picture = draw_detections(
        GREY, [], [], [], CLASSES, truth=(torch.tensor([[20.0, 20, 60, 50]]), torch.tensor([0])), short_side=110
    )
    line = picture[40:100, 40]
    assert has(line, colour(0))
    assert has(line, (255, 255, 255))
    assert not has(line, (90, 90, 90))
    assert (picture[:39] == 90).all()  # no text


def test_legend_names_only_classes_present():
    picture = draw_detections(GREY, [[20, 20, 60, 50]], [1], [0.5], CLASSES, truth=([], []), short_side=480)
    legend = picture[480:]
    assert has(legend, colour(1))
    assert not has(legend, colour(0))


def test_boxes_out_of_the_picture_and_without_size_are_harmless():
    boxes = [[-50, -50, 20, 20], [70, 50, 500, 500], [30, 30, 30, 30], [-9, -9, -5, -5]]
    picture = draw_detections(GREY, boxes, [0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4], CLASSES, truth=(boxes, [0, 0, 1, 1]))
    assert picture.shape[1] == 640


def test_image_given_is_not_changed():
    image = GREY.copy()
    draw_detections(image, [[0, 0, 50, 50]], [0], [0.5], CLASSES, short_side=10)
    assert (image == GREY).all()


def test_more_classes_than_colours_and_a_narrow_picture():
    """Thirty classes in a picture of 60 pixels: colours repeat and the legend takes a line each."""
    names = tuple(f"class {i}" for i in range(30))
    boxes = [[0, 0, 10, 10]] * 30
    picture = draw_detections(GREY[:, :60], boxes, range(30), np.linspace(0, 1, 30), names, short_side=60)
    assert picture.shape[0] > 60 + 30 * 13
    assert picture.shape[1] == 60


def test_each_text_stands_at_its_own_box():
    boxes = [[20, 60, 120, 160], [200, 200, 300, 300], [330, 340, 400, 400]]
    picture = draw_detections(np.full((480, 480, 3), 90, np.uint8), boxes, [2, 0, 1], [0.2, 0.9, 0.5], "abc")
    assert [tuple(picture[y - 10, x + 1]) for x, y, _, _ in boxes] == [colour(2), colour(0), colour(1)]


def test_texts_avoid_each_other():
    """Two boxes at one place: the second text goes elsewhere along the edge, so both colours fill a label."""
    boxes = [[60, 60, 200, 200], [60, 60, 200, 200]]
    picture = draw_detections(np.full((480, 480, 3), 90, np.uint8), boxes, [0, 1], [0.9, 0.8], CLASSES)
    areas = [int((picture[:480] == np.array(colour(label))).all(-1).sum()) for label in (0, 1)]
    assert min(areas) > 500
    assert (picture[45, 61] == colour(0)).all()  # the higher score has the first place, above the box


def test_grid_places_pictures_row_by_row():
    pictures = [np.full((10 + i, 20, 3), i, np.uint8) for i in range(3)]
    sheet = grid(pictures, 2)
    assert sheet.shape == (2 * (12 + MARGIN), 2 * (20 + MARGIN), 3)
    assert (sheet[:10, :20] == 0).all()
    assert (sheet[:11, 24:44] == 1).all()
    assert (sheet[16:28, :20] == 2).all()
    assert (sheet[16:, 24:] == 255).all()
    assert grid(pictures[:1], 5).shape == (14, 24, 3)


def test_real_photograph(shared_data, tmp_path):
    path = sorted((shared_data / "bccd" / "JPEGImages").glob("*.jpg"))[0]
    image = np.asarray(Image.open(path).convert("RGB").resize((160, 120)))
    picture = draw_detections(image, [[10, 10, 50, 50]], [0], [0.875], CLASSES, truth=([[12, 12, 55, 55]], [0]))
    Image.fromarray(picture).save(tmp_path / "picture.png")
    back = np.asarray(Image.open(tmp_path / "picture.png"))
    assert back.shape[1] == 640
    assert has(back, colour(0))
