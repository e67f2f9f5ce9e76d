"""What a user may get wrong: one line on stderr that names the file or key, an exit code, and nothing half-written."""

import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
import tiny
import torch
from PIL import Image

from rankdet import config, evaluate, predict, train
from rankdet.build import make
from rankdet.config import compose, run_directory

SHORT = ("schedule.length=8", "schedule.milestones=[]", "splits.monitor=null")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A sound VOC folder: JPEG pictures of 8 to train, 4 to validate and 5 to test on."""
    folder = tmp_path_factory.mktemp("drawn")
    counts = ["data.source.num_train=8", "data.source.num_val=4", "data.source.num_test=5"]
    source = make(compose([*tiny.overrides(folder), *counts]).data.source)
    source.read("train")
    for path in (source.folder / "JPEGImages").iterdir():
        Image.open(path).save(path.with_suffix(".jpg"), quality=95)
        path.unlink()
    return source.folder


@pytest.fixture(scope="module")
def finished(drawn, tmp_path_factory):
    """The directory of a finished run on the sound folder."""
    folder = tmp_path_factory.mktemp("finished")
    arguments = tiny.voc(folder, drawn, *SHORT)
    assert tiny.call(train.main, arguments).code == 0
    return run_directory(compose(arguments))


@pytest.fixture
def voc(drawn, tmp_path):
    """A copy of the sound folder, to be spoilt."""
    return Path(shutil.copytree(drawn, tmp_path / "VOC"))


@pytest.fixture
def coco(drawn, tmp_path):
    """The same pictures in COCO layout, with whole JSON files."""
    root = tmp_path / "COCO"
    categories: dict[str, int] = {}
    for split in ("train", "val", "test"):
        content = {"images": [], "annotations": []}
        (root / split).mkdir(parents=True)
        for image_id, stem in enumerate((drawn / "ImageSets" / "Main" / f"{split}.txt").read_text().split()):
            shutil.copy(drawn / "JPEGImages" / f"{stem}.jpg", root / split)
            content["images"].append({"id": image_id, "file_name": f"{stem}.jpg", "height": 120, "width": 160})
            for item in ElementTree.parse(drawn / "Annotations" / f"{stem}.xml").findall("object"):
                left, top, right, bottom = (
                    float(item.findtext(f"bndbox/{k}")) for k in ("xmin", "ymin", "xmax", "ymax")
                )
                category = categories.setdefault(item.findtext("name"), 3 * len(categories) + 1)
                content["annotations"].append(
                    {
                        "id": len(content["annotations"]) + 1,
                        "image_id": image_id,
                        "category_id": category,
                        "bbox": [left - 1, top - 1, right - left + 1, bottom - top + 1],
                        "iscrowd": 0,
                    }
                )
        path = root / "annotations" / f"instances_{split}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    for path in (root / "annotations").iterdir():
        names = [{"id": key, "name": name} for name, key in categories.items()]
        path.write_text(json.dumps(json.loads(path.read_text()) | {"categories": names}))
    return root


def refused(main, arguments, *named, code=2):
    """Asserts the one line, that it names what it should, and the exit code."""
    done = tiny.call(main, arguments)
    lines = [line for line in done.err.splitlines() if not line.startswith(("run ", "step "))]
    assert done.code == code, done
    assert len(lines) == 1, done.err
    assert lines[0].startswith("error: ")
    for name in named:
        assert str(name) in lines[0]
    return lines[0]


def refused_training(folder, arguments, *named, code=2):
    """The same for a training, which leaves nothing that looks finished or half-written."""
    line = refused(train.main, arguments, *named, code=code)
    left = [path.name for path in folder.rglob("*") if path.is_file() and "runs" in path.parts]
    assert not {"record.json", "weights.pt"} & set(left)
    assert not [name for name in left if "partial" in name or name.endswith(".tmp")]
    return line


def annotation(root, stem="train_00000"):
    return root / "Annotations" / f"{stem}.xml"


def image(root, stem="train_00000"):
    return root / "JPEGImages" / f"{stem}.jpg"


def edit(path, pattern, replacement):
    """Replaces a pattern's first match in a text file; it must be there."""
    text, number = re.subn(pattern, replacement, path.read_text(), count=1, flags=re.DOTALL)
    assert number == 1
    path.write_text(text)


def empty(path, kept=()):
    """Takes all objects but those of the kept classes out of an annotation."""
    tree = ElementTree.parse(path)
    for item in tree.findall("object"):
        if item.findtext("name") not in kept:
            tree.getroot().remove(item)
    tree.write(path)


def cut(path, share=0.5):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


class TestVOC:
    """A folder in VOC layout with one thing wrong."""

    def test_the_sound_folder_trains(self, finished):
        assert (finished / "record.json").is_file()

    def test_no_such_folder(self, tmp_path):
        refused_training(tmp_path, tiny.voc(tmp_path, tmp_path / "nowhere"), tmp_path / "nowhere", "data.root")

    def test_no_folder_given(self, tmp_path):
        arguments = ["data=voc", f"runtime.runs={tmp_path}/runs"]
        refused_training(tmp_path, arguments, "data.root is not set")

    def test_a_folder_of_something_else(self, tmp_path):
        (tmp_path / "other").mkdir()
        refused_training(tmp_path, tiny.voc(tmp_path, tmp_path / "other"), tmp_path / "other", "Annotations")

    def test_a_missing_split_file(self, tmp_path, voc):
        (voc / "ImageSets" / "Main" / "test.txt").unlink()
        refused_training(tmp_path, tiny.voc(tmp_path, voc), "Main/test.txt", "train, trainval, val")

    def test_a_split_that_is_not_there(self, tmp_path, voc):
        refused_training(tmp_path, tiny.voc(tmp_path, voc, "splits.test=minival"), "Main/minival.txt")

    def test_an_unknown_class_name(self, tmp_path, voc):
        edit(annotation(voc), "<name>[a-z]*</name>", "<name>dics</name>")
        classes = "data.classes=[cross,disc,ring,square,star,triangle]"
        refused_training(tmp_path, tiny.voc(tmp_path, voc, classes), annotation(voc), "'dics'", "data.classes")

    def test_an_annotation_without_its_image(self, tmp_path, voc):
        image(voc).unlink()
        refused_training(tmp_path, tiny.voc(tmp_path, voc), image(voc).with_suffix(""))

    def test_an_image_without_its_annotation(self, tmp_path, voc):
        annotation(voc).unlink()
        refused_training(tmp_path, tiny.voc(tmp_path, voc), annotation(voc))

    def test_xml_that_does_not_parse(self, tmp_path, voc):
        cut(annotation(voc))
        refused_training(tmp_path, tiny.voc(tmp_path, voc), annotation(voc), "not valid XML")

    def test_a_corner_that_is_no_number(self, tmp_path, voc):
        edit(annotation(voc), "<xmin>[0-9]*</xmin>", "<xmin>left</xmin>")
        refused_training(tmp_path, tiny.voc(tmp_path, voc), annotation(voc), "'left'")

    def test_an_image_of_another_size_than_annotated(self, tmp_path, voc):
        Image.open(image(voc)).resize((90, 70)).save(image(voc))
        refused_training(tmp_path, tiny.voc(tmp_path, voc, *SHORT), image(voc), "90 x 70", "160 x 120")

    @pytest.mark.parametrize("workers", [0, 1])
    @pytest.mark.parametrize("stem", ["train_00000", "test_00004"])
    def test_a_truncated_jpeg(self, tmp_path, voc, stem, workers):
        """Found when it is first decoded: while training, or only in the evaluation; also by a loader's worker."""
        cut(image(voc, stem))
        arguments = tiny.voc(tmp_path, voc, *SHORT, f"runtime.num_workers={workers}")
        refused_training(tmp_path, arguments, image(voc, stem), "cannot be decoded")

    def test_an_image_that_is_none(self, tmp_path, voc):
        image(voc).write_text("no image")
        refused_training(tmp_path, tiny.voc(tmp_path, voc, *SHORT), image(voc), "cannot be decoded")

    def test_after_mending_the_same_command_goes_on(self, tmp_path, voc):
        whole = image(voc, "test_00004").read_bytes()
        cut(image(voc, "test_00004"))
        refused_training(tmp_path, tiny.voc(tmp_path, voc, *SHORT), "test_00004")
        image(voc, "test_00004").write_bytes(whole)
        done = tiny.call(train.main, tiny.voc(tmp_path, voc, *SHORT))
        assert done.code == 0
        assert "continuing at step 2" in done.err

    def test_an_empty_training_set(self, tmp_path, voc):
        (voc / "ImageSets" / "Main" / "train.txt").write_text("\n")
        refused_training(tmp_path, tiny.voc(tmp_path, voc), "split 'train'", "no image to train on")

    def test_a_training_set_without_objects(self, tmp_path, voc):
        for path in (voc / "Annotations").glob("train_*.xml"):
            empty(path)
        refused_training(tmp_path, tiny.voc(tmp_path, voc), "split 'train'", "no object to learn from")

    def test_no_class_at_all(self, tmp_path, voc):
        for path in (voc / "Annotations").glob("*.xml"):
            empty(path)
        refused_training(tmp_path, tiny.voc(tmp_path, voc), "Annotations", "data.classes")

    def test_boxes_that_can_be_mended_are_counted_once_and_trained_without(self, tmp_path, voc):
        """One of no area, one inverted, one outside and one sticking out of the image; and one in the test split."""
        for stem, corners in {
            "train_00000": (50, 50, 50, 80),
            "train_00001": (90, 50, 40, 80),
            "train_00002": (400, 50, 440, 80),
            "train_00003": (-9, 50, 30, 80),
            "test_00000": (50, 50, 50, 50),
        }.items():
            box = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True))
            edit(annotation(voc, stem), "</size>", f"</size><object><name>disc</name><bndbox>{box}</bndbox></object>")
        done = tiny.call(train.main, tiny.voc(tmp_path, voc, *SHORT))
        assert done.code == 0
        said = [line for line in done.err.splitlines() if line.startswith("VOC/")]
        assert said == [
            "VOC/train: dropped 1 zero-area box, dropped 1 inverted box, dropped 1 box outside its image, "
            "clipped 1 box to its image",
            "VOC/test: dropped 1 zero-area box",
        ]


class TestCOCO:
    """A folder in COCO layout with one thing wrong."""

    def arguments(self, tmp_path, root, *more):
        return ["data=coco", f"data.root={root}", f"runtime.runs={tmp_path}/runs", *tiny.settings(*SHORT, *more)]

    def json(self, root, split="train"):
        return root / "annotations" / f"instances_{split}.json"

    def spoil(self, root, change):
        content = json.loads(self.json(root).read_text())
        change(content)
        self.json(root).write_text(json.dumps(content))

    def test_the_sound_folder_trains(self, tmp_path, coco):
        done = tiny.call(train.main, self.arguments(tmp_path, coco))
        assert done.code == 0, done.err

    def test_json_that_does_not_parse(self, tmp_path, coco):
        cut(self.json(coco))
        refused_training(tmp_path, self.arguments(tmp_path, coco), self.json(coco), "not valid JSON")

    def test_json_of_something_else(self, tmp_path, coco):
        self.json(coco).write_text("[1, 2]")
        refused_training(tmp_path, self.arguments(tmp_path, coco), self.json(coco), "'images'")

    def test_an_annotation_without_its_image(self, tmp_path, coco):
        self.spoil(coco, lambda content: content["images"].pop())
        refused_training(tmp_path, self.arguments(tmp_path, coco), self.json(coco), "image_id")

    def test_a_listed_image_that_is_not_there(self, tmp_path, coco):
        (coco / "train" / "train_00003.jpg").unlink()
        refused_training(tmp_path, self.arguments(tmp_path, coco), coco / "train" / "train_00003.jpg", "does not exist")

    def test_an_unknown_category(self, tmp_path, coco):
        self.spoil(coco, lambda content: content["annotations"][0].update(category_id=2))
        refused_training(tmp_path, self.arguments(tmp_path, coco), self.json(coco), "category_id 2")

    def test_splits_of_other_classes(self, tmp_path, coco):
        self.spoil(coco, lambda content: content["categories"].append({"id": 99, "name": "wheel"}))
        refused_training(tmp_path, self.arguments(tmp_path, coco), "list different categories")

    def test_a_missing_split_file(self, tmp_path, coco):
        self.json(coco).unlink()
        refused_training(tmp_path, self.arguments(tmp_path, coco), "instances_train.json")

    def test_boxes_that_can_be_mended(self, tmp_path, coco):
        self.spoil(coco, lambda content: content["annotations"][0].update(bbox=[5, 5, 0, 10]))
        done = tiny.call(train.main, self.arguments(tmp_path, coco))
        assert done.code == 0
        assert "COCO/train: dropped 1 zero-area box" in done.err.splitlines()


class TestSettings:
    """Keys, values and machines."""

    @pytest.mark.parametrize(
        ("setting", "named"),
        [
            ("loss.dleta=0.5", "loss.dleta"),
            ("+loss.dleta=0.5", "loss.dleta"),
            ("loss=app", "loss/app"),
            ("batch_size=0", "batch_size=0"),
            ("precision=fp8", "precision=fp8"),
            ("data.cache=disk", "disk"),
            ("evaluation.nms_iou=1.5", "nms_iou"),
            ("matching.positive_iou=0.1", "positive_iou"),
            ("schedule.lr=fast", "schedule"),
            ("prior=2", "prior"),
            ("loss.delta=-1", "delta"),
            ("model.heads.norm=bn", "model.heads.norm"),
            ("model.backbone.weights=nowhere.pth", "model.backbone.weights=nowhere.pth"),
            ("init_from=nowhere.pt", "init_from=nowhere.pt"),
            ("data.source.num_train=0", "data.source.num_"),
            ("runtime.device=gpu", "runtime.device=gpu"),
            ("runtime.progress=dots", "runtime.progress=dots"),
            ("clip_grad_norm=-1", "clip_grad_norm=-1"),
        ],
    )
    def test_of_a_training(self, tmp_path, setting, named):
        refused_training(tmp_path, tiny.overrides(tmp_path, setting), named)

    def test_a_key_inside_an_experiment_file(self, tmp_path, repo, monkeypatch):
        shutil.copytree(repo / "configs", tmp_path / "configs")
        slip = tmp_path / "configs" / "experiment" / "slip.yaml"
        slip.write_text("# @package _global_\nschedule: {milestone: [10]}\n")
        monkeypatch.setattr(config, "CONFIG_DIR", tmp_path / "configs")
        refused_training(tmp_path, tiny.overrides(tmp_path, "experiment=slip"), "schedule.milestone'", "milestones")

    @pytest.mark.parametrize("main", [train.main, evaluate.main, predict.main])
    def test_a_gpu_where_there_is_none(self, tmp_path, finished, drawn, main, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        if main is train.main:
            refused_training(tmp_path, tiny.overrides(tmp_path, "runtime.device=cuda"), "device=cuda", "no usable GPU")
        else:
            more = [f"input={image(drawn)}"] if main is predict.main else []
            refused(main, [f"run={finished}", "device=cuda", *more], "device=cuda", "no usable GPU")

    def test_a_folder_of_runs_that_cannot_be(self, tmp_path):
        (tmp_path / "file").touch()
        refused_training(tmp_path, tiny.overrides(tmp_path, f"runtime.runs={tmp_path}/file/runs"), "runtime.runs")

    def test_a_loss_that_is_not_finite(self, tmp_path):
        """Code 3, and the last checkpoint stays for another try."""
        arguments = tiny.overrides(
            tmp_path, "loss=focal", "schedule.lr=1e9", "schedule.warmup_steps=0", "clip_grad_norm=null"
        )
        line = refused_training(tmp_path, arguments, "is not finite", "image ids of the batch", code=3)
        assert re.search(r"step \d+: the (loss|network output|gradient) is not finite", line)


class TestInitFrom:
    """Another run's weights."""

    def test_of_another_number_of_classes_is_said(self, tmp_path, voc, finished):
        """Three of the classes only; the class head is new, and the log says so."""
        for path in (voc / "Annotations").iterdir():
            empty(path, kept={"cross", "disc", "ring"})
        done = tiny.call(train.main, tiny.voc(tmp_path, voc, *SHORT, f"init_from={finished}/weights.pt"))
        assert done.code == 0, done.err
        lines = done.err.splitlines()
        assert f"initialised from {finished}/weights.pt" in lines
        (said,) = [line for line in lines if "start fresh" in line]
        assert "another number of classes" in said
        assert "heads.class_output.weight" in said

    def test_without_it_a_run_is_not_continued_with_other_classes(self, tmp_path, voc):
        """The run's directory is the same, since the folder is; its checkpoint is of six classes, not seven."""
        arguments = tiny.voc(tmp_path, voc, *SHORT)
        assert tiny.call(train.main, arguments).code == 0
        directory = run_directory(compose(arguments))
        for name in ("record.json", "weights.pt"):
            (directory / name).unlink()
        edit(annotation(voc), "<name>[a-z]*</name>", "<name>wheel</name>")
        refused_training(tmp_path, arguments, directory, "other data")

    def test_of_another_architecture(self, tmp_path, drawn, finished):
        arguments = tiny.voc(tmp_path, drawn, *SHORT, "model.fpn.channels=32", f"init_from={finished}/weights.pt")
        refused_training(tmp_path, arguments, f"init_from={finished}/weights.pt", "another architecture")


class TestEvaluateAndPredict:
    """Finished runs and what is asked of them."""

    @pytest.mark.parametrize("main", [evaluate.main, predict.main])
    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            ([], "run= is missing"),
            (["run"], "run: settings are written key=value"),
            (["run=nowhere", "input=x"], "nowhere/config.yaml: no such file"),
        ],
    )
    def test_of_no_run(self, main, arguments, named):
        refused(main, arguments, named)

    @pytest.mark.parametrize("main", [evaluate.main, predict.main])
    @pytest.mark.parametrize(
        ("more", "named"),
        [
            ("evaluation.nms_uio=0.4", "nms_uio"),
            ("evaluation.nms_iou=3", "nms_iou"),
            ("model.fpn.channels=32", "weights.pt"),
            ("device=tpu", "device=tpu"),
        ],
    )
    def test_a_setting_that_is_none(self, main, more, named, finished, drawn):
        source = [f"input={image(drawn)}"] if main is predict.main else []
        refused(main, [f"run={finished}", *source, more], named)

    def test_a_run_that_is_not_finished(self, tmp_path, finished, drawn):
        shutil.copy(finished / "config.yaml", tmp_path)
        refused(evaluate.main, [f"run={tmp_path}"], "weights.pt", "not finished")
        refused(predict.main, [f"run={tmp_path}", f"input={image(drawn)}"], "weights.pt", "not finished")

    def test_weights_that_are_cut(self, tmp_path, finished):
        shutil.copy(finished / "config.yaml", tmp_path)
        shutil.copy(finished / "weights.pt", tmp_path)
        cut(tmp_path / "weights.pt")
        refused(evaluate.main, [f"run={tmp_path}"], tmp_path / "weights.pt")

    def test_data_of_other_classes(self, tmp_path, voc, finished):
        edit(annotation(voc), "<name>[a-z]*</name>", "<name>wheel</name>")
        arguments = [f"run={finished}", f"data.root={voc}", f"output={tmp_path / 'out'}", "device=cpu"]
        refused(evaluate.main, arguments, voc, "wheel")
        assert not (tmp_path / "out").exists()

    def test_a_truncated_jpeg(self, tmp_path, voc, finished):
        cut(image(voc, "test_00001"))
        arguments = [f"run={finished}", f"data.root={voc}", f"output={tmp_path / 'out'}", "device=cpu"]
        refused(evaluate.main, arguments, image(voc, "test_00001"), "cannot be decoded")
        assert not (tmp_path / "out").exists()
        refused(
            predict.main, [f"run={finished}", f"input={image(voc, 'test_00001')}", "device=cpu"], "cannot be decoded"
        )

    def test_a_split_that_is_not_there(self, finished):
        refused(evaluate.main, [f"run={finished}", "split=minival", "device=cpu"], "Main/minival.txt")

    @pytest.mark.parametrize(
        ("more", "named"),
        [
            (["input=nowhere"], "input=nowhere: no such file or folder"),
            (["input={empty}"], "holds no image"),
            (["input={image}", "threshold=high"], "threshold=high"),
            (["input={image}", "threshold=1.5"], "threshold=1.5"),
            ([], "input= is missing"),
        ],
    )
    def test_of_predict(self, more, named, tmp_path, finished, drawn):
        filled = [text.format(empty=tmp_path, image=image(drawn)) for text in more]
        refused(predict.main, [f"run={finished}", "device=cpu", f"output={tmp_path / 'out'}", *filled], named)
        assert not (tmp_path / "out").exists()
