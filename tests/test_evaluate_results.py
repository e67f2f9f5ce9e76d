"""python -m rankdet.evaluate results=FILE annotations=PATH: anybody's files, sound and damaged."""

import json
import math
from types import SimpleNamespace

import pytest
import tiny
from evaluated import GOLDEN, golden, predictions
from omegaconf import OmegaConf
from PIL import Image

from rankdet import evaluate
from rankdet.data.records import DetectionSet
from rankdet.evaluation import files
from rankdet.evaluation.metrics import metrics_of, metrics_text

OBJECT = (
    "<object><name>{}</name><difficult>{}</difficult><bndbox><xmin>{}</xmin><ymin>{}</ymin>"
    "<xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
)


def call(*arguments):
    return tiny.call(evaluate.main, [str(argument) for argument in arguments])


@pytest.fixture
def coco(tmp_path):
    """(results file, annotation file) of two golden sets in a folder of their own."""
    truth, results = golden("lrp")[:2]
    (tmp_path / "theirs.json").write_text(json.dumps(results))
    (tmp_path / "instances.json").write_text(json.dumps(truth))
    return tmp_path / "theirs.json", tmp_path / "instances.json"


@pytest.fixture
def voc(tmp_path):
    """A VOC folder: dog of pixels 11..30 in 000007, which is image 0; cat (difficult) and dog in 000003, image 1."""
    root = tmp_path / "VOC2007"
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    (root / "ImageSets/Main/test.txt").write_text("000007\n000003\n")
    objects = {"000007": [("dog", 0)], "000003": [("cat", 1), ("dog", 0)]}
    for stem, found in objects.items():
        Image.new("RGB", (60, 50)).save(root / f"JPEGImages/{stem}.jpg")
        boxes = "".join(OBJECT.format(name, hard, 11, 11, 30, 30) for name, hard in found)
        size = "<size><width>60</width><height>50</height><depth>3</depth></size>"
        (root / f"Annotations/{stem}.xml").write_text(f"<annotation>{size}{boxes}</annotation>")
    return root


def save(path, entries):
    path.write_text(json.dumps(entries))
    return path


class TestSoundFiles:
    """What is printed and written."""

    def test_against_a_coco_file(self, coco):
        results, annotations = coco
        done = call(f"results={results}", f"annotations={annotations}")
        assert (done.code, done.err) == (0, "")
        output = results.parent / "theirs-evaluation"
        metrics = json.loads((output / "metrics.json").read_text())
        expected = golden("lrp")[2]
        assert metrics["AP"] == pytest.approx(expected["coco_stats"][0], abs=1e-9)
        assert metrics["oLRP"] == pytest.approx(expected["oLRP"], abs=1e-9)
        assert metrics == metrics_of(*golden("lrp")[:2])
        assert done.out == f"{metrics_text(metrics)}\nwritten to {output}\n"
        assert sorted(path.name for path in results.parent.iterdir()) == [
            "instances.json",
            "theirs-evaluation",
            "theirs.json",
        ]

    def test_some_metrics_to_another_place(self, coco, tmp_path):
        results, annotations = coco
        done = call(f"results={results}", f"annotations={annotations}", "metrics=rho,bounds", f"output={tmp_path}/new")
        assert done.code == 0
        metrics = json.loads((tmp_path / "new/metrics.json").read_text())
        assert {key.partition("/")[0] for key in metrics} == {"rho"} | {
            f"{name}_{key}" for name in ("lower", "kept", "upper") for key in ("AP", "AP50", "AP75", "AP90", "rho")
        }
        assert not (tmp_path / "theirs-evaluation").exists()

    def test_no_results(self, coco):
        results, annotations = coco
        results.write_text("[]")
        assert call(f"results={results}", f"annotations={annotations}").code == 0
        metrics = json.loads((results.parent / "theirs-evaluation/metrics.json").read_text())
        assert (metrics["AP"], metrics["oLRP"], metrics["rho"]) == (0, 1, None)

    @pytest.mark.parametrize(
        ("images", "classes"), [((0, 1), (1, 2)), (("000007", "000003"), ("cat", "dog")), ((0, 1), ("cat", "dog"))]
    )
    def test_against_a_voc_folder_by_numbers_or_names(self, voc, tmp_path, images, classes):
        """Pixels 11..30, counted from 1, are the box 10 10 20 20. The cat is difficult and counts neither way.

        One dog of two is found, with IoU 1: AP 1 up to recall 1/2 (51 of 101 levels, 6 of 11, half of the area).
        """
        results = [
            {"image_id": images[0], "category_id": classes[1], "bbox": [10, 10, 20, 20], "score": 0.5},
            {"image_id": images[1], "category_id": classes[0], "bbox": [10, 10, 20, 20], "score": 0.9},
        ]
        path = save(tmp_path / "theirs.json", results)
        done = call(f"results={path}", f"annotations={voc}", "split=test")
        assert done.code == 0, done.err
        metrics = json.loads((tmp_path / "theirs-evaluation/metrics.json").read_text())
        assert metrics["AP/dog"] == metrics["AP50"] == pytest.approx(51 / 101)
        assert metrics["voc_AP50_11"] == pytest.approx(6 / 11)
        assert metrics["voc_AP50_area/dog"] == pytest.approx(0.5)
        assert metrics["AP/cat"] is metrics["voc_AP50_11/cat"] is None

    def test_photographs(self, shared_data, tmp_path):
        """Ten images' predictions against the whole split; and a COCO file against its own boxes, which is perfect."""
        path = save(tmp_path / "theirs.json", predictions()[1])
        assert call(f"results={path}", f"annotations={shared_data / 'bccd'}").code == 0
        few = json.loads((tmp_path / "theirs-evaluation/metrics.json").read_text())
        assert 0 < few["AP50"] < metrics_of(*predictions(), ["coco"])["AP50"]
        annotations = next((shared_data / "coco128/annotations").glob("*val*.json"))
        truth = json.loads(annotations.read_text())
        boxes = [entry for entry in truth["annotations"] if not entry.get("iscrowd", 0)]
        assert len(boxes) > 50
        results = [
            {key: entry[key] for key in ("image_id", "category_id", "bbox")} | {"score": 1 - place / 1e6}
            for place, entry in enumerate(boxes)
        ]
        path = save(tmp_path / "own.json", results)
        assert call(f"results={path}", f"annotations={annotations}").code == 0
        perfect = json.loads((tmp_path / "own-evaluation/metrics.json").read_text())
        assert perfect["AP"] == pytest.approx(1)
        assert perfect["voc_AP50_area"] == pytest.approx(1)
        assert perfect["oLRP"] == pytest.approx(0)


def refused(*arguments, named, folder):
    """Asserts exit code 2, one line on stderr that names these, and nothing written in the folder."""
    before = sorted(folder.rglob("*"))
    done = call(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1, done.err
    for word in named:
        assert word in done.err
    assert sorted(folder.rglob("*")) == before


class TestBadInput:
    """One clear line, code 2, nothing written."""

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            ({"image_id": 999}, "image_id 999 is not in the ground truth; were these predicted on another split?"),
            ({"category_id": 77}, "category_id 77"),
            ({"score": math.nan}, "score nan"),
            ({"bbox": [1, 2, -3, 4]}, "has a negative size"),
            ({"bbox": [1, 2, 3]}, "not four finite numbers"),
        ],
    )
    def test_an_entry_of_the_results(self, coco, tmp_path, change, named):
        results, annotations = coco
        entries = json.loads(results.read_text())
        entries[5] |= change
        save(results, entries)
        arguments = (f"results={results}", f"annotations={annotations}")
        refused(*arguments, named=[f"{results} entry 5: ", named], folder=tmp_path)

    @pytest.mark.parametrize("which", [0, 1])
    @pytest.mark.parametrize(
        ("damage", "named"),
        [
            (lambda content: content[:-100], "not a JSON file"),
            (lambda content: b"", "not a JSON file"),
            (lambda content: b"\xff\xfe\x00" + content, "not a JSON file"),
            (lambda content: b"3", "holds a JSON int"),
            (None, "cannot be read (No such file or directory)"),
        ],
    )
    def test_a_file_that_is_cut_or_gone(self, coco, tmp_path, which, damage, named):
        path = coco[which]
        if damage:
            path.write_bytes(damage(path.read_bytes()))
        else:
            path.unlink()
        refused(f"results={coco[0]}", f"annotations={coco[1]}", named=[str(path), named], folder=tmp_path)

    def test_ids_twice(self, coco, tmp_path):
        truth = json.loads(coco[1].read_text())
        save(coco[1], truth | {"images": [*truth["images"], truth["images"][0]]})
        named = [f"{coco[1]}: images: id", "occurs twice"]
        refused(f"results={coco[0]}", f"annotations={coco[1]}", named=named, folder=tmp_path)

    def test_results_and_annotations_swapped(self, coco, tmp_path):
        named = [f"{coco[0]}: holds a JSON list"]
        refused(f"results={coco[1]}", f"annotations={coco[0]}", named=named, folder=tmp_path)

    @pytest.mark.parametrize("which", [0, 1])
    def test_a_file_edited_under_way(self, coco, tmp_path, monkeypatch, which):
        """The metrics of an earlier evaluation stay."""
        arguments = (f"results={coco[0]}", f"annotations={coco[1]}")
        assert call(*arguments).code == 0
        before = (tmp_path / "theirs-evaluation/metrics.json").read_bytes()

        def measure_while_someone_writes(*inputs):
            coco[which].write_bytes(coco[which].read_bytes() + b"\n")
            return metrics_of(*inputs)

        monkeypatch.setattr(files, "metrics_of", measure_while_someone_writes)
        refused(*arguments, named=[f"{coco[which]}: changed while it was being evaluated"], folder=tmp_path)
        assert (tmp_path / "theirs-evaluation/metrics.json").read_bytes() == before

    def test_a_voc_annotation_edited_under_way(self, voc, tmp_path, monkeypatch):
        path = save(tmp_path / "theirs.json", [])

        def measure_while_someone_deletes(*inputs):
            (voc / "Annotations/000003.xml").unlink()
            return metrics_of(*inputs)

        monkeypatch.setattr(files, "metrics_of", measure_while_someone_deletes)
        done = call(f"results={path}", f"annotations={voc}")
        assert done.code == 2
        assert f"{voc}: changed while it was being evaluated" in done.err
        assert not (tmp_path / "theirs-evaluation").exists()

    def test_a_voc_folder_that_is_none(self, voc, tmp_path):
        path = save(tmp_path / "theirs.json", [{"image_id": "000009", "category_id": "dog", "bbox": [], "score": 1}])
        refused(f"results={path}", f"annotations={tmp_path}", named=["no folder Annotations"], folder=tmp_path)
        refused(f"results={path}", f"annotations={voc}", "split=val", named=["Main/val.txt"], folder=tmp_path)
        refused(
            f"results={path}", f"annotations={voc}", named=["theirs.json entry 0: image_id '000009'"], folder=tmp_path
        )

    @pytest.mark.parametrize(
        ("more", "named"),
        [
            (["metrics=coco,mAP"], "metrics=coco,mAP: there is no 'mAP'; there are coco, voc, lrp, rho, bounds"),
            (["metrics="], "there is no ''"),
            (["evaluation.nms_iou=0.4"], "evaluation.nms_iou=0.4: no such setting"),
            (["run=runs/x"], "run=runs/x: no such setting"),
            (["nonsense"], "nonsense: settings are written key=value"),
        ],
    )
    def test_settings(self, coco, tmp_path, more, named):
        refused(f"results={coco[0]}", f"annotations={coco[1]}", *more, named=[named], folder=tmp_path)

    def test_annotations_that_are_not_named(self, coco, tmp_path):
        refused(f"results={coco[0]}", named=["annotations= is missing"], folder=tmp_path)

    def test_a_place_that_cannot_be_written(self, coco, tmp_path):
        arguments = (f"results={coco[0]}", f"annotations={coco[1]}", f"output={coco[0]}/there")
        refused(*arguments, named=[f"{coco[0]}/there/metrics.json: cannot be written"], folder=tmp_path)


def test_a_run_on_a_split_whose_objects_a_server_keeps(tmp_path, monkeypatch):
    """Detections to submit, and no metrics."""
    split = DetectionSet("VOC", "test2012", ("cat",), (1,), (), labelled=False)
    cfg = OmegaConf.create({"runtime": {"threads": 1}, "data": {"root": "."}, "splits": {"test": "test"}})
    trained = SimpleNamespace(cfg=cfg, detector=None, require_classes=lambda *_: None)
    results = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5}]
    monkeypatch.setattr(evaluate, "load_trained", lambda *_: trained)
    monkeypatch.setattr(evaluate, "open_source", lambda _: SimpleNamespace(read=lambda _: split))
    monkeypatch.setattr(evaluate, "assess", lambda *_: (results, {"AP": None}))
    done = call(f"run={tmp_path}", "split=test2012", "device=cpu")
    output = tmp_path / "evaluation/test2012"
    assert done.code == 0, done.err
    assert (
        done.out == f"no metrics: the objects of VOC/test2012 are kept by an evaluation server\nwritten to {output}\n"
    )
    assert json.loads((output / "detections.json").read_text()) == results
    assert not (output / "metrics.json").exists()


@pytest.mark.full
def test_the_command_itself(tmp_path):
    done = tiny.command(
        "evaluate",
        [f"results={GOLDEN}/lrp_dt.json", f"annotations={GOLDEN}/lrp_gt.json", "metrics=lrp", f"output={tmp_path}"],
    )
    assert done.code == 0, done.err
    assert "oLRP                           64.40" in done.out
