"""Archives for evaluation servers: lines and entries by hand, read back, refused where a server would; the registry."""

import io
import json
import math
import tarfile
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from voc_folders import annotation, voc_folder

from rankdet.data.records import DetectionSet
from rankdet.data.voc import VOCSource
from rankdet.errors import UserError
from rankdet.evaluation.submission import coco, voc
from rankdet.evaluation.submission.coco import coco_path, read_coco, write_coco
from rankdet.evaluation.submission.images import (
    COCO,
    VOC,
    ImageInfo,
    doubts,
    info_of,
    read_image_info,
    require_own_ids,
)
from rankdet.evaluation.submission.round_trip import require_same
from rankdet.evaluation.submission.voc import read_voc, voc_path, write_voc
from rankdet.evaluation.voc import voc_metrics
from rankdet.results.datasets import load_datasets
from rankdet.results.registry import load_registry

INFO = ImageInfo({0: "2008_000001.jpg", 1: "2008_000004.jpg", 2: "2009_000032.jpg"}, {1: "cat", 2: "dog", 3: "sofa"})
COCO_INFO = ImageInfo({1: "000000000001.jpg", 16: "000000000016.jpg"}, {1: "person", 90: "toothbrush"})


def result(image_id, category_id, bbox, score):
    return {"image_id": image_id, "category_id": category_id, "bbox": bbox, "score": score}


RESULTS = [
    result(2, 1, [0.0, 0.0, 500.0, 375.0], 0.25),
    result(0, 3, [10.126, 20.0, 5.5, 7.25], float(np.float32(0.1))),
    result(0, 1, [1.0, 2.0, 3.0, 4.0], 1e-05),
]


def members(path):
    with tarfile.open(path) as archive:
        return {name: archive.extractfile(name).read().decode() for name in archive.getnames()}


def test_voc_lines_by_hand(tmp_path):
    """The whole of a 500 x 375 image is pixels 1 ... 500, 1 ... 375. 10.126 + 5.5 = 15.626, printed to hundredths."""
    path = voc_path(tmp_path, "ap-loss")
    assert path.name == "ap-loss_voc2012_comp4.tar.gz"
    write_voc(RESULTS, INFO, path)
    assert members(path) == {
        "results/VOC2012/Main/comp4_det_test_cat.txt": (
            "2009_000032 0.25 1.00 1.00 500.00 375.00\n2008_000001 1e-05 2.00 3.00 4.00 6.00\n"
        ),
        "results/VOC2012/Main/comp4_det_test_dog.txt": "",
        "results/VOC2012/Main/comp4_det_test_sofa.txt": "2008_000001 0.100000001 11.13 21.00 15.63 27.25\n",
    }
    first = path.read_bytes()
    write_voc(RESULTS, INFO, path)
    assert path.read_bytes() == first
    write_voc([], INFO, path)
    assert set(members(path).values()) == {""}
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_coco_entries_by_hand(tmp_path):
    path = coco_path(tmp_path, "RetinaNet-500_AP")
    results = [result(16, 90, [0.126, 2, 3.0, 4.0], float(np.float32(0.1))), result(1, 1, [0, 0, 10, 20.333], 1)]
    write_coco(results, COCO_INFO, path)
    assert path.name == "detections_test-dev2017_RetinaNet-500_AP_results.zip"
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["detections_test-dev2017_RetinaNet-500_AP_results.json"]
        content = json.loads(archive.read(archive.namelist()[0]))
    assert content == [
        result(1, 1, [0.0, 0.0, 10.0, 20.33], 1.0),
        result(16, 90, [0.13, 2.0, 3.0, 4.0], 0.100000001),
    ]
    assert read_coco(path, COCO_INFO) == content
    first = path.read_bytes()
    write_coco(results[::-1], COCO_INFO, path)
    assert path.read_bytes() == first
    write_coco([], COCO_INFO, path)
    assert read_coco(path, COCO_INFO) == []


numbers = st.floats(0, 2000, width=32)
entries = st.tuples(st.integers(0, 2), st.integers(1, 3), numbers, numbers, numbers, numbers, st.floats(0, 1, width=32))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.lists(entries, max_size=12))
def test_the_round_trip(tmp_path, drawn):
    """Half a hundredth of a pixel for a corner and nothing that float32 tells apart for a score, for both servers."""
    results = [result(image, label, list(box), score) for image, label, *box, score in drawn]
    path = voc_path(tmp_path, "x")
    write_voc(results, INFO, path)
    found = read_voc(path, INFO)
    expected = [each for category in INFO.categories for each in results if each["category_id"] == category]
    write_coco(results, INFO, coco_path(tmp_path, "x"))
    for wanted, other in (
        (expected, found),
        (sorted(results, key=lambda each: each["image_id"]), read_coco(coco_path(tmp_path, "x"), INFO)),
    ):
        assert len(wanted) == len(other)
        for one, two in zip(wanted, other, strict=True):
            assert (one["image_id"], one["category_id"]) == (two["image_id"], two["category_id"])
            assert np.float32(one["score"]) == np.float32(two["score"])
            for place in (0, 1):
                assert abs(one["bbox"][place] - two["bbox"][place]) <= 0.00501
                assert abs(one["bbox"][place + 2] - two["bbox"][place + 2]) <= 0.01001


def test_the_devkits_rules_see_the_same_detections(tmp_path):
    """What the server computes from the pixels, with its + 1, is what our metric computes from continuous boxes."""
    generator = np.random.default_rng(0)
    corners = generator.integers(0, 100, (60, 2))
    sides = generator.integers(5, 60, (60, 2))
    boxes = np.concatenate([corners, sides], axis=1).astype(float)
    truth = {
        "images": [{"id": key} for key in INFO.images],
        "categories": [{"id": key, "name": name} for key, name in INFO.categories.items()],
        "annotations": [
            {"image_id": place % 3, "category_id": 1 + place % 2, "bbox": box.tolist()}
            for place, box in enumerate(boxes)
        ],
    }
    found = boxes + generator.normal(0, 3, boxes.shape).round(1)
    results = [
        result(place % 3, 1 + place % 2, box.tolist(), float(generator.uniform()))
        for place, box in enumerate(found)
    ]  # fmt: skip
    write_voc(results, INFO, voc_path(tmp_path, "x"))
    ours = voc_metrics(truth, results)
    as_pixels = [each | {"bbox": _devkit(each["bbox"])} for each in read_voc(voc_path(tmp_path, "x"), INFO)]
    pixels = [each | {"bbox": _devkit(each["bbox"])} for each in truth["annotations"]]
    theirs = voc_metrics(truth | {"annotations": pixels}, as_pixels, plus_one=True)
    assert 0.2 < ours["voc_AP50_area"] < 0.98
    assert theirs == pytest.approx(ours, abs=1e-12, nan_ok=True)


def _devkit(bbox):
    """x, y and last pixel minus first, of pixels counted from 1."""
    x, y, width, height = bbox
    return [x + 1, y + 1, width - 1, height - 1]


BAD_RESULTS = [
    (result(7, 1, [0, 0, 1, 1], 0.5), "image_id 7"),
    (result(0, 7, [0, 0, 1, 1], 0.5), "category_id 7"),
    (result(0, 1, [0, 0, 1, 1], math.nan), "score nan"),
    (result(0, 1, [0, math.inf, 1, 1], 0.5), "inf"),
    (result(0, 1, [0, 0, -1, 1], 0.5), "negative"),
    (result(0, 1, [0, 0, 1], 0.5), "bbox"),
    ({"image_id": 0}, "category_id"),
]


@pytest.mark.parametrize(("bad", "words"), BAD_RESULTS)
def test_bad_results_leave_nothing(tmp_path, bad, words):
    """Not even in the place of an archive that is there already."""
    for path, write in ((voc_path(tmp_path, "x"), write_voc), (coco_path(tmp_path, "x"), write_coco)):
        with pytest.raises(UserError, match=rf"entry 1.*{words}"):
            write([RESULTS[0], bad], INFO, path)
        assert not list(tmp_path.iterdir())
    path = coco_path(tmp_path, "x")
    write_coco([], INFO, path)
    before = path.read_bytes()
    with pytest.raises(UserError):
        write_coco([bad], INFO, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_coco_takes_a_hundred_of_an_image(tmp_path):
    path = coco_path(tmp_path, "x")
    hundred = [result(1, 1, [0, 0, place, 1], 0.5) for place in range(100)]
    write_coco(hundred, COCO_INFO, path)
    assert len(read_coco(path, COCO_INFO)) == 100
    with pytest.raises(UserError, match="image_id 1 has 101 detections"):
        write_coco([*hundred, hundred[0]], COCO_INFO, path)


def test_images_of_a_union_are_refused():
    """Its ids are places, COCO's are in the names; names of another kind say nothing of ids."""
    require_own_ids(COCO_INFO)
    require_own_ids(ImageInfo({16: "COCO_test2015_000000000016.jpg", 5: "dog_000012.jpg", 6: "7.jpg"}, {}))
    with pytest.raises(UserError, match=r"000000000139\.jpg has image id 0, but the server knows it as 139"):
        require_own_ids(ImageInfo({0: "000000000139.jpg"}, {}))


def tar(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"{voc.FOLDER}/{voc.FILE.format(name)}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def test_what_a_voc_server_would_refuse(tmp_path):
    good = dict.fromkeys(("cat", "dog", "sofa"), "")
    line = "2008_000001 0.5 1 2 3 4\n"
    (found,) = read_voc(tar(tmp_path / "a", good | {"dog": line}), INFO)
    assert found == result(0, 2, [0, 1, 3, 3], 0.5)
    for files, words in (
        ({"cat": "", "dog": ""}, "must hold 3 files"),
        (good | {"cow": ""}, "must hold 3 files"),
        (good | {"dog": line + "2008_000001 0.5 1 2 3\n"}, "dog.txt, line 2: .* five numbers"),
        (good | {"dog": line.replace("2008", "2007")}, "line 1: there is no image 2007_000001"),
        (good | {"dog": line.replace("0.5", "nan")}, "not finite"),
        (good | {"dog": line.replace("0.5", "half")}, "five numbers"),
    ):
        with pytest.raises(UserError, match=words):
            read_voc(tar(tmp_path / "a", files), INFO)
    whole = tar(tmp_path / "a", good | {"dog": 1000 * line}).read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"nonsense"):
        (tmp_path / "a").write_bytes(content)
        with pytest.raises(UserError, match="no readable"):
            read_voc(tmp_path / "a", INFO)
    for info in (ImageInfo({0: "a b.jpg"}, {1: "cat"}), ImageInfo({0: "a.jpg", 1: "a.png"}, {1: "cat"})):
        with pytest.raises(UserError, match="image name"):
            write_voc([], info, tmp_path / "b.tar.gz")
    with pytest.raises(UserError, match="class name 'dining table'"):
        write_voc([], ImageInfo({0: "a.jpg"}, {1: "dining table"}), tmp_path / "b.tar.gz")
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_what_a_coco_server_would_refuse(tmp_path):
    path = coco_path(tmp_path, "x")
    entry = result(1, 1, [0, 0, 1, 1], 0.5)
    name = f"{path.stem}.json"
    for files, words in (
        ({"other.json": "[]"}, "must hold"),
        ({name: "[]", "b": ""}, "must hold"),
        ({name: "[1,"}, "no readable"),
        ({name: "{}"}, "holds no list"),
        ({name: json.dumps([entry | {"image_id": 2}])}, "image_id 2"),
        ({name: json.dumps([entry | {"score": math.nan}])}, "score nan"),
        ({name: json.dumps(101 * [entry])}, "101 detections"),
    ):
        with zipfile.ZipFile(path, "w") as archive:
            for member, text in files.items():
                archive.writestr(member, text)
        with pytest.raises(UserError, match=words):
            read_coco(path, COCO_INFO)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UserError, match="no readable"):
        read_coco(path, COCO_INFO)


def test_a_round_trip_that_loses_something_is_noticed(tmp_path, monkeypatch):
    """A reader that drops the last detection stands for a full disk: nothing is left."""
    for module, read, write, path in (
        (voc, "read_voc", write_voc, voc_path(tmp_path, "x")),
        (coco, "read_coco", write_coco, coco_path(tmp_path, "x")),
    ):
        real = getattr(module, read)
        with monkeypatch.context() as patch:
            patch.setattr(module, read, lambda *args, real=real: real(*args)[:-1])
            with pytest.raises(UserError, match="does not read back"):
                write(RESULTS, INFO, path)
    assert not list(tmp_path.iterdir())
    same = (RESULTS[:1], RESULTS[:1])
    require_same(*same, tmp_path, 0.005, 1e-8)
    for change in ({"score": 0.2500001}, {"bbox": [0.02, 0, 500, 375]}, {"image_id": 1}, {"category_id": 2}):
        with pytest.raises(UserError):
            require_same(RESULTS[:1], [RESULTS[0] | change], tmp_path, 0.005, 1e-8)


def test_every_server_row_of_the_registry_has_a_server(repo):
    """The authors' own rows whose annotations a server keeps: 2 + 3 + 2 + 8 + 4 + 3 of AP-loss, 7 of aLRP, 5 of DR."""
    registry = load_registry(repo / "experiments" / "registry.yaml")
    sets = load_datasets(repo / "experiments" / "datasets.yaml")
    servers = {key: one.server for key, one in sets.items() if one.server}
    rows = {}
    for table in registry.tables.values():
        for row in table.own_rows():
            if row.dataset in servers:
                rows.setdefault(table.id, []).append(servers[row.dataset])
            else:
                assert "test-dev" not in row.dataset, (table.id, row.key)
                assert not row.dataset.startswith("voc12"), (table.id, row.key)
    assert {table: sorted(names) for table, names in rows.items()} == {
        "ap-loss/table-5": 2 * [VOC],
        "ap-loss/table-6": 3 * [COCO],
        "ap-loss/table-7": 2 * [VOC],
        "ap-loss/table-11": 4 * [COCO] + 4 * [VOC],
        "ap-loss/table-12": 4 * [COCO],
        "ap-loss/table-13": 3 * [VOC],
        "alrp/table-6": 7 * [COCO],
        "dr-loss/table-2": 5 * [COCO],
    }


def test_doubts_name_what_the_server_will_not_like():
    assert doubts(INFO, VOC, RESULTS) == [
        "these are 3 images, the server's test set has 10991: it will not take them",
        "these are 3 classes, the server's test set has 20: it will not take them",
        "1 of 3 images have no detection",
    ]
    whole = ImageInfo({key: str(key) for key in range(20288)}, {key: str(key) for key in range(80)})
    assert doubts(whole, COCO, [result(key, 1, [], 1) for key in range(20288)]) == []


def test_image_info_from_files_and_sets(tmp_path):
    path = tmp_path / "image_info_test-dev2017.json"
    content = {
        "images": [{"id": 16, "file_name": "000000000016.jpg", "height": 1, "width": 1}],
        "categories": [{"id": 90, "name": "toothbrush"}],
    }
    path.write_text(json.dumps(content))
    assert read_image_info(path) == ImageInfo({16: "000000000016.jpg"}, {90: "toothbrush"})
    for change in ({"images": [{"id": 16}]}, {"categories": None}, {"images": 2 * content["images"]}):
        path.write_text(json.dumps(content | change))
        with pytest.raises(UserError, match="image_info"):
            read_image_info(path)
    assert info_of(DetectionSet("x", "test", ("cat",), (5,), ())) == ImageInfo({}, {5: "cat"})


@pytest.fixture(scope="module")
def main(front_end):
    return front_end("submission")


@pytest.fixture
def folder(tmp_path):
    """A VOC folder of two test images."""
    one = annotation(("cat", 1, 1, 10, 10), ("dog", 1, 1, 9, 9))
    return voc_folder(tmp_path / "some", {"test": ["a", "b"]}, {"a": one, "b": one}, "ab")


def test_the_command(main, folder, tmp_path, capsys):
    """From somebody's results with a data config, from a run, and for COCO with a JSON of images."""
    results = tmp_path / "results.json"
    results.write_text(json.dumps([result(1, 2, [0, 0, 5, 5], 0.5)]))
    output = ["--output", str(tmp_path / "out")]
    data = ["data=voc", f"data.root={folder}"]
    assert main(["--server", "voc", "--name", "mine", "--run", "", "--results", str(results), *output, *data]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-2:] == [
        "1 detections, 2 images, 2 classes; read back and the same",
        f"saved {tmp_path / 'out' / 'mine_voc2012_comp4.tar.gz'}",
    ]
    archive = tmp_path / "out" / "mine_voc2012_comp4.tar.gz"
    assert members(archive)["results/VOC2012/Main/comp4_det_test_dog.txt"] == "b 0.5 1.00 1.00 5.00 5.00\n"

    run = tmp_path / "run"
    (run / "evaluation" / "test").mkdir(parents=True)
    (run / "config.yaml").write_text(
        f"data: {{root: {folder}, source: {{_target_: rankdet.data.voc.VOCSource, root: '${{data.root}}'}}}}\n"
    )
    arguments = ["--server", "voc", "--name", "run", "--run", str(run), *output]
    assert main(arguments) == 2
    assert "python -m rankdet.evaluate run=" in capsys.readouterr().err
    (run / "evaluation" / "test" / "detections.json").write_text(results.read_text())
    assert main(arguments) == 0
    assert members(tmp_path / "out" / "run_voc2012_comp4.tar.gz") == members(archive)

    images = tmp_path / "info.json"
    images.write_text(json.dumps({"images": [{"id": 1, "file_name": "1.jpg"}], "categories": [{"id": 2, "name": "x"}]}))
    assert main(["--server", "coco", "--name", "c", "--results", str(results), "--images", str(images), *output]) == 0
    found = read_coco(coco_path(tmp_path / "out", "c"), read_image_info(images))
    assert found == json.loads(results.read_text())


def test_mistakes_are_one_line_and_leave_nothing(main, folder, tmp_path, capsys):
    results = tmp_path / "results.json"
    results.write_text(json.dumps([result(9, 2, [0, 0, 5, 5], 0.5)]))
    (tmp_path / "broken.json").write_text("[{")
    (tmp_path / "file").touch()
    good = {"--server": "voc", "--name": "mine", "--results": str(results), "--output": str(tmp_path / "out")}
    for change, words in (
        ({"--server": ""}, "SERVER="),
        ({"--name": ""}, "NAME="),
        ({"--name": "../x"}, "NAME=../x"),
        ({"--results": ""}, "RUN="),
        ({"--run": str(tmp_path)}, "RUN="),
        ({"--results": str(tmp_path / "none.json")}, "none.json"),
        ({"--results": str(tmp_path / "broken.json")}, "broken.json"),
        ({"--images": str(tmp_path / "broken.json")}, "broken.json"),
        ({}, "image_id 9"),
        ({"data": None}, "whose images"),
        ({"data": f"data.root={tmp_path / 'nowhere'}"}, "nowhere"),
    ):
        given_options = good | {key: value for key, value in change.items() if key.startswith("--")}
        arguments = [part for item in given_options.items() for part in item]
        data = [] if "data" in change else ["data=voc", f"data.root={folder}"]
        data = ["data=voc", change["data"]] if change.get("data") else data
        assert main([*arguments, *data]) == 2, words
        printed = capsys.readouterr()
        (line,) = printed.err.splitlines()
        assert words in line
        assert printed.out == ""
    assert not (tmp_path / "out").exists()
    results.write_text("[]")
    arguments = [part for item in (good | {"--output": str(tmp_path / "file")}).items() for part in item]
    assert main([*arguments, "data=voc", f"data.root={folder}"]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.full
def test_on_photographs(shared_data, tmp_path):
    """Every object of bccd's test split as its own detection: whole pixels, so each comes back as it was."""
    split = VOCSource(shared_data / "bccd").read("test")
    results = [
        result(each.image_id, int(label) + 1, [x1, y1, x2 - x1, y2 - y1], 1.0)
        for each in split.records
        for (x1, y1, x2, y2), label in zip(each.boxes.tolist(), each.labels, strict=True)
    ]
    write_voc(results, info_of(split), voc_path(tmp_path, "x"))
    assert len(results) == 945
    assert read_voc(voc_path(tmp_path, "x"), info_of(split)) == sorted(results, key=lambda one: one["category_id"])
