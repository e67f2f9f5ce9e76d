"""The manifests of Parameterized AP loss's three tables: what is trained, and with which functions."""

import shutil

import numpy as np
import pytest
from omegaconf import OmegaConf

from rankdet.errors import UserError
from rankdet.results.manifest import load_manifest
from rankdet.results.plan import make_plan
from rankdet.results.runs import config_of
from rankdet.search.found import findings, save
from rankdet.search.lookup import FOLDER, publish_searches, searched
from rankdet.search.parameters import as_list
from rankdet.search.rounds import begin, run_search
from rankdet.search.settings import SEARCHES, load_search, search_directory, settings_of

TABLES = ("table-1", "table-2", "table-3")
SEARCHED = {  # row -> search
    "searched-on-voc": "retinanet-voc",
    "searched-shared": "retinanet-coco-shared-unscaled",
    "searched-shared-scale": "retinanet-coco-shared",
}


@pytest.fixture
def root(repo, tmp_path):
    """A checkout where nothing was searched or trained yet; its searches are of one round of two samples."""
    (tmp_path / "experiments").mkdir()
    for name in ("datasets.yaml", "registry.yaml"):
        shutil.copy(repo / "experiments" / name, tmp_path / "experiments")
    shutil.copytree(
        repo / "experiments" / "pap", tmp_path / "experiments" / "pap", ignore=shutil.ignore_patterns("se*")
    )
    few = (repo / SEARCHES).read_text().replace("rounds: 8", "rounds: 1").replace("samples: 8", "samples: 2")
    (tmp_path / SEARCHES).write_text(few)
    return tmp_path


def rows_of(root, registry, protocol="mini", names=TABLES):
    """Row key -> its plan's row, in all tables."""
    manifests = [load_manifest(root / "experiments" / "pap" / f"{name}.yaml", registry) for name in names]
    return {
        row.printed.key: row
        for manifest in manifests
        for row in make_plan(manifest, protocol, None, root).rows
        if not row.printed.quoted
    }


def search(root, name):
    """Ends the search of that name, without a training; gives what it found."""
    one = load_search(root / SEARCHES, name, "mini", None, 0)
    directory = search_directory(one, root)
    begin(directory, settings_of(one) | {"data_hash": "made up"})
    done = run_search(one, lambda _, theta: theta.mean(dim=1).tolist(), directory, lambda start, rounds: None)
    best, _ = findings(one, 0.1, done)
    save(one, best, directory)
    (directory / "report.md").write_text(f"# {name}\n")
    return one.space.shapes(best.theta)["loss"]


@pytest.mark.full
@pytest.mark.parametrize("protocol", ["paper", "mini"])
def test_detectors_and_blocking(root, registry, protocol):
    """Table 1: three detectors, each with the denominator's gradient and without, in every part of it."""
    rows = rows_of(root, registry, protocol, ["table-1"])
    assert len(rows) == 6
    for detector, kind, stages in (
        ("retinanet", "RetinaNet", ["loss"]),
        ("faster-rcnn", "FasterRCNN", ["loss", "rpn.loss"]),
        ("deformable-detr", "DeformableDETR", ["loss"]),
    ):
        configs = {}
        for how in ("unblocked", "blocked"):
            runs = rows[f"{detector}-{how}"].runs
            assert len(runs) == 3
            configs[how] = cfg = config_of(runs[0].overrides)
            assert cfg.model._target_.rpartition(".")[2] == kind
            assert not cfg.box_loss and cfg.loss._target_.endswith("ParameterizedAPLoss")
            blocks = [OmegaConf.select(cfg, f"{stage}.block_gradient") for stage in stages]
            assert blocks == [how == "blocked"] * len(stages)
        if kind == "FasterRCNN":  # each stage by its own functions, without sampling
            assert (cfg.rpn.loss.gradient_scale, cfg.loss.gradient_scale) == (1.695, 7.1324)
            assert cfg.model.roi_sampler.num_samples is None
        for stage in stages:
            for cfg in configs.values():
                OmegaConf.update(cfg, f"{stage}.block_gradient", None)
        assert configs["blocked"] == configs["unblocked"], "nothing else differs"
    if protocol == "paper":
        detr = config_of(rows["deformable-detr-blocked"].runs[0].overrides)
        assert detr.optimizer._target_.endswith("AdamW") and detr.model.refine
        assert (detr.batch_size, detr.schedule.lr, detr.schedule.lr_batch) == (32, 2e-4, 32)
        assert (detr.schedule.length, list(detr.schedule.milestones), detr.schedule.warmup_steps) == (50, [40], 0)
        assert list(detr.augment.shorter) == list(range(480, 801, 32))
        for detector, lr, milestones in (("retinanet", 0.016, [60, 80]), ("faster-rcnn", 0.024, [75, 95])):
            cfg = config_of(rows[f"{detector}-blocked"].runs[0].overrides)
            assert (cfg.batch_size, cfg.gpus, cfg.schedule.length) == (64, 8, 100)
            assert cfg.schedule.lr * cfg.batch_size / cfg.schedule.lr_batch == pytest.approx(lr)
            assert list(cfg.schedule.milestones) == milestones
            assert (list(cfg.data.image_size), cfg.test_input.shorter) == ([512, 512], 500)


def test_rows_wait_for_their_search(root, registry):
    """Its command stands in the place of the trainings, also while it is under way."""
    for protocol, end in (("mini", ""), ("paper", " PROTOCOL=paper")):
        rows = rows_of(root, registry, protocol, TABLES[1:])
        waiting = {key: row.why for key, row in rows.items() if not row.runs}
        assert waiting == {
            key: f"its functions are to be searched first: make search-pap SEARCH={name}{end}"
            for key, name in SEARCHED.items()
        }
    (root / SEARCHES).write_text((root / SEARCHES).read_text().replace("rounds: 1\n", "rounds: 2\n"))
    directory = search_directory(load_search(root / SEARCHES, "retinanet-voc", "mini", None, 0), root)
    (directory / "best").mkdir(parents=True)
    (directory / "best" / "loss.yaml").write_text("defaults: [parameterized_ap]\ngradient_scale: 2.0\n")
    assert searched("retinanet-voc", "mini", root) == ()


def test_rows_train_by_what_their_search_found(root, registry):
    """The same runs from runs/ and, once published, from there; mini_long takes mini's."""
    found = {key: search(root, name) for key, name in SEARCHED.items()}
    rows = rows_of(root, registry, names=TABLES[1:])
    assert all(row.runs for row in rows.values())
    for key, shape in found.items():
        loss = config_of(rows[key].runs[0].overrides).loss
        assert as_list(loss.control_points) == as_list(shape.control_points)
        assert loss.gradient_scale == pytest.approx(shape.gradient_scale)
        assert (loss.gradient_scale == 1.0) == (key == "searched-shared")
        assert len(np.unique(loss.control_points, axis=0)) == (5 if key == "searched-on-voc" else 1)
    assert [path.parent.name for path in publish_searches(root)] == sorted(SEARCHED.values())
    assert (root / FOLDER / "mini" / "retinanet-voc" / "best" / "loss.yaml").is_file()
    shutil.rmtree(root / "runs")
    again = rows_of(root, registry, names=TABLES[1:])
    assert {key: row.runs for key, row in again.items()} == {key: row.runs for key, row in rows.items()}
    assert searched("retinanet-voc", "mini_long", root) == searched("retinanet-voc", "mini", root) != ()
    assert searched("retinanet-voc", "paper", root) == ()


def test_rows_do_not_take_what_another_search_found(root):
    """Made with ARGS, or before experiments/searches.yaml said something else: neither taken nor published, nor taken
    where it was published before."""
    search(root, "retinanet-voc")
    assert searched("retinanet-voc", "mini", root)
    (root / FOLDER / "mini" / "retinanet-voc" / "best").mkdir(parents=True)
    (root / FOLDER / "mini" / "retinanet-voc" / "best" / "rpn.yaml").write_text("# an earlier one's, of two stages")
    assert len(publish_searches(root)) == 1
    assert not (root / FOLDER / "mini" / "retinanet-voc" / "best" / "rpn.yaml").exists()
    directory = search_directory(load_search(root / SEARCHES, "retinanet-voc", "mini", None, 0), root)
    begun = (directory / "search.json").read_text()
    (directory / "search.json").write_text(begun.replace('"schedule.length=640"', '"schedule.length=64"'))
    assert searched("retinanet-voc", "mini", root)  # the published one
    (directory / "search.json").write_text(begun)
    (root / SEARCHES).write_text((root / SEARCHES).read_text().replace("sigma: 0.2", "sigma: 0.3"))
    assert searched("retinanet-voc", "mini", root) == ()
    (root / FOLDER / "mini" / "retinanet-voc" / "report.md").unlink()
    assert publish_searches(root) == []


def test_an_unknown_search(root, registry):
    path = root / "experiments" / "pap" / "table-2.yaml"
    path.write_text(path.read_text().replace("searched_by: retinanet-voc", "searched_by: retinanet-vox"))
    with pytest.raises(UserError, match=r"retinanet-vox: .* has retinanet-coco, "):
        rows_of(root, registry, names=["table-2"])
