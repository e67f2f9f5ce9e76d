"""make report on a run of seconds: the page, in a real browser, and what is refused."""

import base64
import html
import io
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import browser
import numpy as np
import pytest
import tiny
from matplotlib.axes import Axes
from PIL import Image

from rankdet import train
from rankdet.config import compose, run_directory
from rankdet.errors import UserError
from rankdet.evaluation.coco import coco_metrics
from rankdet.report import finished_run
from rankdet.report.figures import DARK, LIGHT, picture, plot
from rankdet.training.distributed import world

MARKUP = "<script>alert(1)</script>"
SHORT = ("schedule.length=16", "schedule.milestones=[]", "schedule.monitor_every=8")


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """The settings of a run of 4 steps on drawn shapes."""
    return tiny.overrides(tmp_path_factory.mktemp("finished"), *SHORT)


@pytest.fixture(scope="module")
def finished(arguments):
    """The directory of that run, finished."""
    done = tiny.call(train.main, arguments)
    assert done.code == 0, done.err
    return run_directory(compose(arguments))


@pytest.fixture(scope="module")
def main(front_end):
    """The command."""
    return front_end("report")


@pytest.fixture(scope="module")
def page(finished, main):
    """The page of that run, as the command writes it."""
    done = tiny.call(main, [f"run={finished}", "device=cpu"])
    assert done.code == 0, done.err
    path = finished / "report-test.html"
    assert str(path) in done.out
    return path


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the run, to be spoilt."""
    return shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))


@pytest.fixture
def refused(main):
    """Runs the command, which must fail, and gives the one line that it ends with."""

    def run(*arguments):
        done = tiny.call(main, [*arguments, "device=cpu"])
        assert done.code == 2, done
        assert done.err.startswith("error: ")
        assert done.err.count("\n") == 1, done.err
        assert not done.out
        return done.err

    return run


class Elements(HTMLParser):
    """Every element's tag and attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_page_is_one_file_and_says_what_it_shows(page, finished):
    text = page.read_text()
    assert len(text) < 5e6
    elements = Elements(text).found
    links = [value for _, attrs in elements for key, value in attrs.items() if key in ("src", "srcset", "href")]
    assert len(links) > 30
    assert all(link.startswith(("data:", "#")) for link in links)
    assert not any(tag in ("script", "iframe", "object") for tag, _ in elements)
    images = [attrs for tag, attrs in elements if tag == "img"]
    assert len(images) > 12
    assert all(len(attrs["alt"]) > 10 for attrs in images)
    record = json.loads((finished / "record.json").read_text())
    for told in ("commit", "config_hash", "data_hash", "hardware", "date", "run"):
        assert str(record[told]) in text, told
    for heading in ("Summary", "Precision and recall", "Errors", "Scores", "Images", "Training", "Config"):
        assert f">{heading}</h2>" in text
    assert "AP during training" in text  # the monitor's


def test_page_has_the_runs_figures(page, finished):
    metrics = json.loads((finished / "evaluation" / "test" / "metrics.json").read_text())
    for name in ("AP", "AP50", "AP75"):
        assert f"<dt>{name}</dt><dd>{100 * metrics[name]:.1f}</dd>" in page.read_text()


@pytest.mark.full
def test_same_run_same_page(page, finished, copied, main, tmp_path):
    """Also where the detections have to be found anew: they are saved as the training had saved them.

    What looks like markup in a record is text on the page.
    """
    shutil.rmtree(copied / "evaluation")
    record = json.loads((copied / "record.json").read_text())
    (copied / "record.json").write_text(json.dumps(record | {"hardware": MARKUP}))
    assert tiny.call(main, [f"run={copied}", "device=cpu", f"output={tmp_path}/page.html"]).code == 0
    text = (tmp_path / "page.html").read_text()
    assert text.count(html.escape(MARKUP)) == 1
    assert text.replace(html.escape(MARKUP), record["hardware"]) == page.read_text()
    for name in ("detections.json", "metrics.json"):
        saved = [(folder / "evaluation" / "test" / name).read_text() for folder in (copied, finished)]
        assert saved[0] == saved[1], name


def load(run, *overrides, split=None):
    with world("cpu", 1) as here:
        return finished_run.load_run(run, split, overrides, here)


def test_saved_detections_are_reused(copied, monkeypatch):
    monkeypatch.setattr(finished_run, "assess", None)  # to call it would fail
    run = load(copied, "runtime.num_workers=0")
    assert run.notes == ()
    assert run.results == json.loads((copied / "evaluation" / "test" / "detections.json").read_text())
    assert run.metrics["AP50"] == coco_metrics(run.ground_truth, run.results)["AP50"]
    anchors = run.anchors
    images = len(run.split.records)
    assert anchors.overlap.sum() % images == 0  # every anchor of every image
    assert anchors.foreground.sum() > 0
    assert anchors.background.sum() > 5 * anchors.overlap.sum() * 0.9  # 6 classes, few ignored


def test_other_settings_are_evaluated_anew_told_and_not_saved(copied):
    before = (copied / "evaluation" / "test" / "detections.json").read_bytes()
    run = load(copied, "evaluation.score_threshold=0.011")
    assert run.notes == (
        "Evaluated with evaluation.score_threshold=0.011: the figures are not those of the run's record.",
    )
    assert (copied / "evaluation" / "test" / "detections.json").read_bytes() == before


def test_another_split_is_evaluated_and_saved(copied):
    run = load(copied, split="val")
    assert (len(run.split.records), run.notes) == (4, ())
    assert (copied / "evaluation" / "val" / "detections.json").is_file()
    assert load(copied, split="val").metrics == run.metrics


def test_images_that_the_run_has_learnt_from_are_told(copied):
    assert load(copied, split="train").notes == (
        "The run has learnt from these images: the figures say nothing of new ones.",
    )
    assert (copied / "evaluation" / "train" / "detections.json").is_file()


def test_split_without_objects_is_refused(copied, monkeypatch):
    read = finished_run.open_source

    def kept(cfg):
        return SimpleNamespace(read=lambda split: replace(read(cfg).read(split), labelled=False))

    monkeypatch.setattr(finished_run, "open_source", kept)
    with pytest.raises(UserError, match="a server keeps the objects of the split test"):
        load(copied)


def test_changed_data_are_told(copied):
    record = json.loads((copied / "record.json").read_text())
    train_hash, test_hash = record["data_hash"].split("-")
    record["data_hash"] = f"{train_hash}-{'0' * 16}"
    (copied / "record.json").write_text(json.dumps(record))
    run = load(copied)
    expected = f"(data hash {'0' * 16}, now {test_hash}): evaluated on today's."
    assert len(run.notes) == 1
    assert run.notes[0].endswith(expected)


# What is refused


def test_no_run(refused):
    assert "run= is empty" in refused("run=")
    assert "run= is missing" in refused("split=test")


def test_run_that_is_not_there(refused, tmp_path):
    assert f"{tmp_path}/none: no such folder" in refused(f"run={tmp_path}/none")
    assert f"{tmp_path}: is not the directory of a run" in refused(f"run={tmp_path}")


def test_unfinished_run(refused, copied):
    (copied / "record.json").unlink()
    assert re.search(r"record\.json: not there, so the run is not finished", refused(f"run={copied}"))


def test_broken_record(refused, copied):
    (copied / "record.json").write_text('{"run": 1')
    assert "record.json: not valid JSON" in refused(f"run={copied}")


def test_detections_of_another_split(refused, copied):
    assert load(copied, split="val")
    shutil.copy(copied / "evaluation" / "val" / "detections.json", copied / "evaluation" / "test")
    line = refused(f"run={copied}")
    assert re.search(r"test/detections\.json: its AP\S* is \S+, not \S+ as metrics\.json beside it says", line)


def test_detections_of_other_images(refused, copied):
    path = copied / "evaluation" / "test" / "detections.json"
    path.write_text(json.dumps([{"image_id": 77, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.5}]))
    line = refused(f"run={copied}")
    assert "test/detections.json entry 0: image_id 77 is not in the ground truth" in line
    assert "and report again" in line


def test_edited_detections(refused, copied):
    path = copied / "evaluation" / "test" / "detections.json"
    results = json.loads(path.read_text())
    assert len(results) > 20
    path.write_text(json.dumps([each | {"score": 1 - each["score"]} for each in results]))
    assert "test/detections.json: its AP" in refused(f"run={copied}")
    path.write_text("[1, 2")
    assert "test/detections.json: not a JSON file" in refused(f"run={copied}")


@pytest.mark.parametrize("text", [None, "[]", "{}", '{"AP": "x"}', "{"])
def test_detections_without_metrics(refused, copied, text):
    path = copied / "evaluation" / "test" / "metrics.json"
    path.unlink()
    if text is not None:
        path.write_text(text)
    assert "metrics.json" in refused(f"run={copied}")


def test_missing_picture(refused, arguments, copied, tmp_path):
    drawn = tiny.shapes(arguments)
    moved = shutil.copytree(drawn, tmp_path / drawn.name)
    (moved / "JPEGImages" / "test_00003.png").unlink()
    assert "test_00003" in refused(f"run={copied}", f"data.root={tmp_path}/shapes", f"output={tmp_path}/page.html")
    assert not list(tmp_path.glob("*.html"))


def test_broken_log(refused, copied):
    (copied / "log.jsonl").write_text('{"step": 2, "train/loss": 1}\nnonsense\n')
    assert "log.jsonl, line 2: is not an entry of a training log" in refused(f"run={copied}")


def test_setting_that_is_none(refused, finished):
    assert "settings are written key=value" in refused(f"run={finished}", "split")
    assert "nothere" in refused(f"run={finished}", "split=nothere")


def test_output_that_cannot_be_written(refused, finished, page):
    assert "report-test.html: cannot be made" in refused(f"run={finished}", f"output={page}/page.html")


# Plots


def test_plot_has_two_themes_and_the_same_bytes_each_time():
    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color="C0")
        axes.plot([0, 1], [1, 0], color="C7")

    once, again = plot(draw, "a cross"), plot(draw, "a cross")
    assert once == again
    light, dark = (base64.b64decode(uri.partition(",")[2]).decode() for uri in once[:2])
    assert LIGHT[0] in light
    assert LIGHT[7] in light
    assert not any(colour in dark for colour in LIGHT)
    assert DARK[0].upper() in dark


def test_picture_is_a_jpeg_of_its_pixels():
    image = np.zeros((8, 16, 3), np.uint8)
    image[:, 8:] = (255, 0, 0)
    uri = picture(image)
    assert uri.startswith("data:image/jpeg;base64,")
    back = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
    assert np.abs(back[:, [0, -1]].astype(int) - image[:, [0, -1]]).max() < 12


# In a browser


@pytest.mark.parametrize(
    ("width", "dark", "phone"),
    [
        (1280, False, False),
        (375, True, True),
        pytest.param(1280, True, False, marks=pytest.mark.full),
        pytest.param(320, False, True, marks=pytest.mark.full),
    ],
)
def test_page_in_a_browser(chromium, page, tmp_path, width, dark, phone):
    """No error, no request, every image decoded, nothing wider than the screen, something in the screenshot."""
    assert chromium.open(page, width, dark=dark, phone=phone) == []
    seen = chromium.evaluate(browser.MEASURE)
    assert seen["broken"] == 0
    assert seen["images"] > 12
    assert seen["links"] > 6 and seen["lost"] == 0
    assert seen["overflow"] <= 0
    assert (seen["dark"] > 8) == dark
    chromium.screenshot(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as shot:
        assert shot.height > 3000
        assert abs(shot.width - width) <= 20  # a scroll bar
        corner = shot.convert("RGB").getpixel((2, 2))
        colours = len(shot.convert("RGB").resize((200, 800)).getcolors(200 * 800))
    assert (max(corner) < 60) == dark
    assert colours > 500


def test_the_browser_finds_what_is_wrong(chromium, tmp_path):
    """Else the test above could not fail."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<html><body style='width: 3000px'><img src='http://localhost:1/x.png'><img src='data:image/png;base64,AAAA'>"
        "<a href='#nowhere'>x</a><script>console.error('oh'); nothere();</script></body></html>"
    )
    problems = "\n".join(chromium.open(bad, 800))
    for expected in ("request: http://localhost:1/x.png", "console.error: ['oh']", "exception: Uncaught"):
        assert expected in problems
    seen = chromium.evaluate(browser.MEASURE)
    assert (seen["broken"], seen["lost"]) == (2, 1)
    assert seen["overflow"] > 2000
    good = tmp_path / "good.html"
    good.write_text("<html><body>well</body></html>")
    assert chromium.open(good, 800) == []
