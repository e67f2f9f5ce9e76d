"""The config tree: everything composes, every key is known and used, and a run's directory says what it computes."""

import importlib
import inspect
import re
import shutil
import subprocess
import sys

import pytest
import torch
from omegaconf import DictConfig, OmegaConf, open_dict

from rankdet import config
from rankdet.build import make
from rankdet.config import compose, config_hash, identity, load, merge_dotlist, run_directory
from rankdet.errors import UserError

PROTOCOLS = ("mini", "mini_long", "paper")
PREFIXES = ("rankdet.", "torch.", "torchvision.", "albumentations.")
ROOT = "data.root=somewhere/VOC2007"  # asked for by data=voc and data=coco
# What the code, not the yaml, hands to a constructor.
HANDED = {
    "rankdet.models.retinanet.RetinaNet": {"num_channels", "prior_bias"},
    "rankdet.models.ssd.SSD": {"num_channels", "prior_bias"},
    "rankdet.models.ssd.ExtraLayers": {"in_channels"},
    "rankdet.models.faster_rcnn.FasterRCNN": {
        "num_channels",
        "prior_bias",
        "num_classes",
        "rpn_num_channels",
        "rpn_prior_bias",
    },
    "rankdet.models.deformable_detr.DeformableDETR": {"num_channels", "prior_bias"},
    "rankdet.models.level_tokens.LevelTokens": {"in_channels", "in_strides"},
    "rankdet.models.rpn.RPNHead": {"in_channels", "anchors_per_cell", "num_channels", "prior_bias"},
    "rankdet.models.roi_head.RoIHead": {"in_channels", "strides", "num_classes", "num_channels", "prior_bias"},
    "rankdet.models.roi_align.PyramidRoIAlign": {"strides"},
    "rankdet.models.fpn.FPN": {"in_channels", "in_strides"},
    "rankdet.models.heads.RetinaHeads": {"in_channels", "anchors_per_cell", "num_channels", "prior_bias"},
    "rankdet.matching.anchors.AnchorGenerator": {"strides"},
    "torch.optim.SGD": {"params", "lr"},
    "torch.optim.AdamW": {"params", "lr"},
}


def names(repo, group):
    """The options of a config group."""
    return sorted(path.stem for path in (repo / "configs" / group).glob("*.yaml"))


def groups(repo):
    return sorted(path.name for path in (repo / "configs").iterdir() if path.is_dir() and path.name != "hydra")


def targets(node, prefix=""):
    """Every (dotted place, node) with a _target_, lists included."""
    if isinstance(node, list):
        for position, item in enumerate(node):
            yield from targets(item, f"{prefix}{position}.")
    if isinstance(node, dict):
        if "_target_" in node:
            yield prefix.rstrip("."), node
        for key, value in node.items():
            yield from targets(value, f"{prefix}{key}.")


@pytest.fixture(scope="module")
def every(repo):
    """(group, option) -> a composed config with it, for every file of every group; a round takes one of each group."""
    options = {group: names(repo, group) for group in groups(repo)}
    found = {}
    for position in range(max(map(len, options.values()))):
        chosen = {group: there[position % len(there)] for group, there in options.items()}
        given = ["candidates.rpn=weights.pt"] if chosen["candidates"] == "top_ranked" else []
        cfg = compose([*(f"{group}={option}" for group, option in chosen.items()), ROOT, *given])
        found |= {choice: cfg for choice in chosen.items()}
    return found


@pytest.fixture(scope="module")
def plain():
    """What `python -m rankdet.train` runs."""
    return compose([])


@pytest.fixture
def own_configs(repo, tmp_path, monkeypatch):
    """A copy of the config tree that a test may spoil."""
    folder = tmp_path / "configs"
    shutil.copytree(repo / "configs", folder)
    monkeypatch.setattr(config, "CONFIG_DIR", folder)
    config.known_keys.cache_clear()
    yield folder
    config.known_keys.cache_clear()


class TestEverything:
    """Nothing in configs/ is left out."""

    def test_every_option_of_every_group_composes(self, repo, every):
        files = [path for path in (repo / "configs").glob("*/*.yaml")]  # configs/hydra/launcher/ is test_slurm.py's
        assert len(every) == len(files) > 25
        assert [path.name for path in (repo / "configs").glob("*.yaml")] == ["train.yaml"]
        assert every["loss", "focal"].loss.gamma == 2.0
        assert every["model", "retinanet_r101"].model.backbone.name == "resnet101"
        assert every["protocol", "paper"].protocol.name == "paper"

    def test_every_experiment_composes_under_every_protocol(self, repo):
        experiments = names(repo, "experiment")
        assert names(repo, "protocol") == sorted(PROTOCOLS)
        composed = {}
        for experiment in experiments:
            for protocol in PROTOCOLS:
                cfg = compose([f"experiment={experiment}", f"protocol={protocol}", "data=voc", ROOT])
                assert cfg.protocol.name == protocol
                assert cfg.protocol.version >= 1
                composed[experiment, protocol] = cfg
        assert len(composed) == 3 * len(list((repo / "configs" / "experiment").iterdir())) >= 6
        lengths = {protocol: composed["ap_table_2", protocol].schedule.length for protocol in PROTOCOLS}
        assert lengths["mini_long"] == 4 * lengths["mini"]
        assert composed["ap_table_2", "paper"].schedule.unit == "epochs"
        assert composed["ap_table_2", "mini"].splits == {"train": "trainval", "monitor": None, "test": "test"}

    def test_every_target_takes_its_keys(self, every):
        """Importable, of the four allowed packages; no key too many, and of ours none that only the code would know."""
        visited = {}
        for cfg in every.values():
            for place, node in targets(OmegaConf.to_container(cfg, resolve=True)):
                name = node["_target_"]
                assert name.startswith(PREFIXES), f"{place}: {name}"
                module, _, attribute = name.rpartition(".")
                target = getattr(importlib.import_module(module), attribute)
                keys = {key: value for key, value in node.items() if key not in ("_target_", "_partial_")}
                handed = dict.fromkeys(HANDED.get(name, ()))
                assert not keys.keys() & handed.keys(), f"{place}: the code sets {keys.keys() & handed.keys()}"
                bound = inspect.signature(target).bind(**keys, **handed)
                visited[name] = visited.get(name, 0) + 1
                parameters = inspect.signature(target).parameters.values()
                named = {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
                if name.startswith("rankdet."):
                    assert named <= bound.arguments.keys(), f"{place}: {named - bound.arguments.keys()} not in the yaml"
        assert len(visited) >= 20
        assert HANDED.keys() <= visited.keys()

    def test_every_augmentation_can_be_made(self, repo, every):
        """Its transforms refuse arguments that they do not know; of other nodes the signatures say it."""
        made = [make(every["augment", name].augment) for name in names(repo, "augment")]
        assert len(made) == 5
        assert {len(augment.transforms) for augment in made} == {0, 1, 2, 8}

    def test_every_key_is_read(self, repo, every):
        """Keys under a _target_ are its arguments; every other one is read by the code or by another key."""
        code = "\n".join(path.read_text() for path in sorted((repo / "rankdet").rglob("*.py")))
        yaml = "\n".join(path.read_text() for path in sorted((repo / "configs").rglob("*.yaml")))
        plain = set()

        def collect(node, prefix):
            for key, value in node.items():
                if isinstance(value, dict) and "_target_" not in value and value:
                    collect(value, f"{prefix}{key}.")
                elif not isinstance(value, dict):
                    plain.add(f"{prefix}{key}")

        for cfg in every.values():
            collect(
                {
                    k: v
                    for k, v in OmegaConf.to_container(cfg).items()
                    if not isinstance(v, dict) or "_target_" not in v
                },
                "",
            )
        unread = {
            key
            for key in plain
            if not re.search(rf"(cfg|self\.cfg)\.{re.escape(key)}\b", code) and f"${{{key}}}" not in yaml
        }
        assert len(plain) >= 25
        assert unread == set()


class TestMistakes:
    """A key that is not there is an error that names it, wherever it stands."""

    @pytest.mark.parametrize(
        "override",
        ["loss.dleta=0.5", "+loss.dleta=0.5", "+dleta=0.5", "++model.fpn.chanels=8"],
    )
    def test_on_the_command_line(self, override):
        with pytest.raises(UserError) as caught:
            compose([override])
        assert re.search("dleta|chanels", str(caught.value))
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("group", ["experiment", "protocol", "loss"])
    def test_in_a_file(self, own_configs, group):
        """Where Hydra merges it without a word; in a group's own file it would be an argument that nothing takes."""
        if group == "loss":
            path, choice, named = own_configs / "loss" / "ap.yaml", "loss=ap", "dleta"
            path.write_text(path.read_text() + "dleta: 0.5\n")
            cfg = compose([choice])
            with pytest.raises(UserError, match=named):
                make(cfg.loss)
            return
        path = own_configs / group / "slip.yaml"
        path.write_text("# @package _global_\nschedule: {milestone: [10]}\n")
        with pytest.raises(UserError, match=r"there is no key 'schedule\.milestone'.*milestones"):
            compose([f"{group}=slip"])

    def test_at_the_top_of_an_experiment(self, own_configs):
        (own_configs / "experiment" / "slip.yaml").write_text("# @package _global_\nbatchsize: 4\n")
        with pytest.raises(UserError, match=r"there is no key 'batchsize'.*batch_size"):
            compose(["experiment=slip"])

    def test_in_an_experiment_without_its_package_line(self, own_configs):
        """Its keys would land under experiment.* and change nothing."""
        (own_configs / "experiment" / "slip.yaml").write_text("batch_size: 4\n")
        with pytest.raises(UserError, match="there is no key 'experiment'"):
            compose(["experiment=slip"])

    def test_a_new_experiment_is_taken(self, own_configs):
        (own_configs / "experiment" / "mine.yaml").write_text(
            "# @package _global_\ndefaults: [{override /loss: focal}]\nloss: {gamma: 1.5}\nbatch_size: 2\n"
        )
        cfg = compose(["experiment=mine"])
        assert (cfg.loss.gamma, cfg.loss.alpha, cfg.batch_size) == (1.5, 0.25, 2)

    @pytest.mark.parametrize(
        ("override", "named"),
        [
            ("loss=app", "loss/app.* ap auc binary_cross_entropy ce_ohem "),
            ("losss=ap", "losss"),
            ("~loss", "loss"),
            ("~loss.delta", "loss.delta"),
            ("loss=null", "Config group"),
            ("delta", "delta"),
            ("data=voc", r"data\.root is not set"),
            ("loss.delta=${nothing.here}", "nothing"),
            ("batch_size=0", r"batch_size=0: must be a whole number from 1 on"),
            ("batch_size=many", r"batch_size=many: must"),
            ("seed=-1", r"seed=-1: must be a whole number from 0 on"),
            ("runtime.checkpoint_every=0.5", r"runtime\.checkpoint_every=0\.5: must"),
        ],
    )
    def test_in_a_choice_or_a_value(self, override, named):
        with pytest.raises(UserError, match=named) as caught:
            compose([override])
        assert "\n" not in str(caught.value)

    def test_in_a_saved_config(self, tmp_path):
        OmegaConf.save(compose([]), tmp_path / "config.yaml")
        cfg = load(tmp_path / "config.yaml")
        with pytest.raises(UserError, match="nms_uio"):
            merge_dotlist(cfg, ["evaluation.nms_uio=0.4"])
        assert merge_dotlist(cfg, ["evaluation.nms_iou=0.4"]).evaluation.nms_iou == 0.4
        with pytest.raises(UserError, match=r"other/config\.yaml: no such file"):
            load(tmp_path / "other" / "config.yaml")

    def test_a_saved_config_takes_another_test(self, plain):
        """By a file's name, also where the config is older than the key; the rest of it, and itself, stay."""
        older = merge_dotlist(plain, [])
        with open_dict(older):
            del older.test_input
        changed = merge_dotlist(older, ["test_input=keep_aspect", "test_input.cap=2", "evaluation.nms_iou=0.4"])
        assert (changed.test_input.shorter, changed.test_input.cap, changed.test_input.flip) == (120, 2, False)
        assert changed.loss == older.loss
        assert "test_input" not in older
        same = compose(["test_input=keep_aspect", "test_input.cap=2", "evaluation.nms_iou=0.4"])
        assert config_hash(changed) == config_hash(same)
        assert merge_dotlist(changed, ["test_input=stretch", "evaluation=default"]) == plain
        for wrong, named in (
            ("test_input=short_7", "short_7"),
            ("test_input=null", "string"),
            ("test_input.cap=2", "cap"),
        ):
            with pytest.raises(UserError, match=named) as caught:
                merge_dotlist(older, [wrong])
            assert "\n" not in str(caught.value)

    def test_a_saved_config_follows_its_data_root(self, tmp_path):
        """As it was composed to do: the data source reads its root from data.root."""
        cfg = compose(["data=voc", ROOT])
        (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(cfg))
        saved = load(tmp_path / "config.yaml")
        assert merge_dotlist(saved, ["data.root=elsewhere"]).data.source.root == "elsewhere"
        assert config_hash(saved) == config_hash(cfg)


class TestRunDirectory:
    """A function of what the run computes."""

    def test_reads_as_what_it_is(self):
        cfg = compose(["loss=focal", "protocol=mini_long", "seed=3", "runtime.runs=out/runs"])
        expected = f"out/runs/shapes/mini_long/retinanet_resnet18-focal-{config_hash(cfg)}/seed3"
        assert str(run_directory(cfg)) == expected
        assert re.fullmatch(r"[0-9a-f]{8}", config_hash(cfg))

    def test_one_gpu_is_the_same_run_as_none_and_two_are_another(self, plain):
        assert run_directory(compose(["gpus=1"])) == run_directory(plain) != run_directory(compose(["gpus=2"]))

    def test_ignores_where_and_how(self, plain):
        elsewhere = [
            "seed=5",
            "runtime.runs=elsewhere",
            "runtime.threads=7",
            "runtime.num_workers=2",
            "data.root=elsewhere/shapes",
            "data.cache=none",
            "splits.monitor=null",
            "schedule.monitor_every=17",
        ]
        cfg = compose(elsewhere)
        assert config_hash(cfg) == config_hash(plain)
        assert str(run_directory(cfg)) == str(run_directory(plain)).replace("runs/", "elsewhere/", 1)[:-1] + "5"

    @pytest.mark.parametrize(
        "override",
        [
            "loss.delta=0.5",
            "loss=auc",
            "gpus=2",
            "splits.train=trainval",
            "data.source.seed=1",
            "evaluation.nms_iou=0.4",
        ],
    )
    def test_follows_what_is_computed(self, override, plain):
        assert config_hash(compose([override])) != config_hash(plain)

    def test_a_value_counts_and_not_how_it_came_about(self, plain):
        assert config_hash(compose(["loss.delta=1.0"])) == config_hash(plain)
        assert config_hash(compose(["schedule=mini_long", "protocol.name=mini"])) == config_hash(
            compose(["schedule.length=16000", "schedule.milestones=[12000]"])
        )

    def test_a_key_younger_than_the_records_changes_nothing_at_its_neutral_value(self, monkeypatch):
        """Without the key the hash is the same; with another value it is another."""
        hashes = [config_hash(compose(["loss=ap", f"loss.ranking_scope={scope}"])) for scope in ("gpu", "global")]
        plain = identity(compose(["loss=ap"]))
        assert "ranking_scope" not in plain["loss"]
        assert hashes[0] == config_hash(compose(["loss=ap"])) != hashes[1]

    def test_the_test_s_input_counts_but_for_the_stretch(self, plain):
        """The key is younger than the records, whose tests stretched their images."""
        hashes = [config_hash(compose([f"test_input={name}"])) for name in ("stretch", "keep_aspect", "short_600")]
        assert "test_input" not in identity(plain)
        assert hashes[0] == config_hash(plain)
        assert len(set(hashes)) == 3

    def test_a_backbone_s_younger_keys_count_where_they_change_what_is_computed(self, plain):
        """Without them the published records' hashes; activations computed again change nothing at all."""
        backbone = identity(plain)["model"]["backbone"]
        assert backbone.keys() == {"_target_", "name", "width", "norm", "frozen_stages", "weights"}
        hashes = {config_hash(compose([f"model.backbone.{k}"])) for k in ("outputs=[c2,c3,c4,c5]", "deformable=[5]")}
        assert len(hashes | {config_hash(plain)}) == 3
        assert config_hash(compose(["model.backbone.checkpoint=true"])) == config_hash(plain)

    def test_data_of_one_name_may_lie_anywhere(self):
        """The name is the folder's: two of the same name are the same data as far as the directory knows."""
        here, there, other = (compose(["data=voc", f"data.root={r}"]) for r in ("a/VOC", "b/c/VOC", "a/bccd"))
        assert run_directory(here) == run_directory(there) != run_directory(other)
        assert (here.data.name, other.data.name) == ("VOC", "bccd")
        assert "root" not in identity(here)["data"]["source"]

    def test_another_process_finds_the_same(self):
        overrides = ["loss=ap", "loss.delta=0.5", "seed=2"]
        line = f"from rankdet.config import *; print(run_directory(compose({overrides!r})))"
        done = subprocess.run(
            [sys.executable, "-c", line], env={"PYTHONHASHSEED": "12345"}, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == str(run_directory(compose(overrides)))


def test_optimisers_are_made_with_the_schedules_rate(every, repo):
    weight = torch.nn.Parameter(torch.zeros(1))
    made = {name: make(every["optimizer", name].optimizer)([weight], lr=0.125) for name in names(repo, "optimizer")}
    assert {name: type(o).__name__ for name, o in made.items()} == {"adamw": "AdamW", "sgd": "SGD"}
    assert all(o.param_groups[0]["lr"] == 0.125 for o in made.values())


def test_composed_configs_are_closed(plain):
    assert isinstance(plain, DictConfig)
    assert OmegaConf.is_struct(plain)
    assert "hydra" not in plain
