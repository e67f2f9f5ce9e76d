"""The search as its command runs it: what it refuses, what it writes, and one real search of seconds, killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from results_made_up import write_record
from voc_folders import annotation, voc_folder

from rankdet.config import compose
from rankdet.errors import UserError
from rankdet.results.datasets import choose_data
from rankdet.results.launch import ANY
from rankdet.results.queue import Failure, Job
from rankdet.results.reading import read_yaml
from rankdet.search import __main__ as command
from rankdet.search import comparison, proxy
from rankdet.search.parameters import as_list
from rankdet.search.proxy import Proxy, ProxyFailure, check_splits, described
from rankdet.search.report import Report
from rankdet.search.rounds import begin, load_rounds, load_start, run_search
from rankdet.search.settings import SEARCHES, load_search, search_directory
from rankdet.training.codes import DEAD, NOT_FINITE

FEW = ("rounds: 8", "rounds: 2"), ("samples: 8", "samples: 2")
SHORT = ("start: [loss=ap", "start: [schedule.length=32, 'schedule.milestones=[]', batch_size=4, loss=ap")


def root_of(repo, folder, *changes):
    """A checkout's root with the searches' description, changed."""
    (folder / SEARCHES.parent).mkdir(parents=True)
    shutil.copy(repo / "experiments" / "datasets.yaml", folder / "experiments")
    text = (repo / SEARCHES).read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    (folder / SEARCHES).write_text(text)
    return folder


def shapes(folder):
    """A drawn set of a few images."""
    few = (f"data.root={folder}/shapes", "data.source.num_train=10", "data.source.num_val=4", "data.source.num_test=9")
    return (*few, "hold_out.num=4", f"runtime.runs={folder}/runs")


def quick(root, name="retinanet-voc"):
    """A search of a few images."""
    search = load_search(root / SEARCHES, name, "mini", None, 0)
    return replace(search, proxy=(*search.proxy, *shapes(root)))


def nearness(_, theta):
    return [0.5 - (row - 0.6).abs().mean().item() for row in theta]


@pytest.mark.full
def test_every_search_of_the_checkout_can_be_trained(repo):
    """Under both protocols the settings compose; the samples' splits are parts of the final training's."""
    sizes = {}
    for name in read_yaml(repo / SEARCHES)["searches"]:
        for protocol in ("mini", "paper"):
            search = load_search(repo / SEARCHES, name, protocol, None, 0)
            cfg = compose([*search.sample])
            assert (cfg.splits.train, cfg.splits.test, cfg.hold_out.of) == ("kept", "held_out", "trainval")
            assert cfg.loss._target_.endswith("ParameterizedAPLoss") and not cfg.box_loss
            assert cfg.runtime.dead_after == 50
            whole = compose([*comparison.final(search, ())])
            assert whole.splits == {"train": "trainval", "monitor": None, "test": "test"}
        sizes[name] = search.space.size
        assert (search.rounds, search.samples) == (40, 8)
    assert sizes["retinanet-voc"] == 41
    assert sizes["retinanet-coco-shared-unscaled"] == 8
    assert sizes["faster-rcnn-coco"] == 82


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rounds: 8", "rounds: 0", r"protocols\.mini\.rounds: expected a whole number from 1 on"),
        ("samples: 8", "samples: 1", r"protocols\.mini\.samples: expected a whole number from 2 on"),
        ("functions: separate, scale: true}", "functions: fixed, scale: false}", "retinanet-coco: .*nothing to search"),
        ("functions: separate, scale: true}", "functions: separate, scale: 1}", "scale: expected true or false"),
        ("data: coco-unstated", "data: coco-unknown", r"retinanet-coco\.data: 'coco-unknown' is not one of voc07-test"),
        ("method: random", "method: chance", r"method: 'chance' is not one of ppo, random"),
        ("sigma: 0.2", "sigma: 0", r"policy\.sigma: 0 makes no sense"),
        ("clip: 0.1", "clap: 0.1", "unknown key 'clap'"),
        ("lr: 0.01", "lr: 1e-2", r"ppo\.lr: expected a number, got '1e-2'"),
        ("steps: 100", "steps: 100.5", r"ppo\.steps: expected a whole number, got 100\.5"),
        ("seed: 1000", "seed: -1", r"proxy\.seed: expected a whole number from 0 on, got -1"),
        ("seed: 1000", "sead: 1000", "unknown key 'sead'"),
    ],
)
def test_mistakes_in_the_description(repo, tmp_path, old, new, message):
    root = root_of(repo, tmp_path, (old, new))
    with pytest.raises(UserError, match=message):
        for name in ("retinanet-coco", "retinanet-voc-random"):
            load_search(root / SEARCHES, name, "mini", None, 0)


def test_unknown_names(repo):
    with pytest.raises(UserError, match=r"SEARCH=retina: .*searches\.yaml has retinanet-coco, "):
        load_search(repo / SEARCHES, "retina", "mini", None, 0)
    with pytest.raises(UserError, match="PROTOCOL=mini_long: searches are described for mini and paper"):
        load_search(repo / SEARCHES, "retinanet-voc", "mini_long", None, 0)


def test_what_the_command_line_may_set(repo, tmp_path, capsys):
    """Another network is that of the training that all start from, too; what has a variable of its own is refused."""
    search = load_search(repo / SEARCHES, "retinanet-voc", "mini", None, 0)
    changed = replace(search, proxy=(*search.proxy, "model.fpn.channels=16", "runtime.device=cpu", "batch_size=4"))
    assert set(changed.opening) - set(search.opening) == {"model.fpn.channels=16", "runtime.device=cpu"}
    root = root_of(repo, tmp_path)
    for setting in ("seed=5", "data=photographs", "protocol=paper", "experiment=pap"):
        assert command.main(["retinanet-voc", setting], root) == 2
        assert f"ARGS: '{setting}': " in capsys.readouterr().err
    assert command.main(["retinanet-voc", "--seed", "-1"], root) == 2
    assert "SEED=-1: must be a whole number from 0 on" in capsys.readouterr().err
    assert not (root / "runs").exists()


def test_a_search_is_one_command_on_one_machine(repo, tmp_path, capsys):
    """But its samples may go to several by Slurm."""
    root = root_of(repo, tmp_path)
    machines = ["retinanet-voc", "--gpus", "1", "--nodes", "2"]
    assert command.main([*machines, "--rendezvous", "node0:29500"], root) == 2
    assert "error: NODES=2: a search is one command on one machine" in capsys.readouterr().err
    assert command.main([*machines, "--launcher", "slurm", "--protocol", "none"], root) == 2
    assert "error: PROTOCOL=none" in capsys.readouterr().err


def test_splits_that_overlap(repo, tmp_path):
    """Judged on the test split, on the images learnt from, or on a part of the test split."""
    search = quick(root_of(repo, tmp_path))
    assert len(check_splits(search)) == 33
    for changed, message in (
        (
            ("splits.test=test",),
            r"shapes: the splits test and test share 9 images, such as test_00000\.png; a search must",
        ),
        (("splits.test=kept",), "the splits kept and kept share 10 images, .*have not learnt from"),
        (("hold_out.of=test",), "the splits kept and test share 5 images, .*a search must not see test"),
    ):
        proxy_settings = tuple(item for item in search.proxy if item.partition("=")[0] != changed[0].partition("=")[0])
        with pytest.raises(UserError, match=message):
            check_splits(replace(search, proxy=(*proxy_settings, *changed)))


def test_rewards(repo, tmp_path, monkeypatch):
    """AP of what finished, 0 of what died or left the numbers; any other end stops the search. Weights do not stay."""
    search = replace(quick(root_of(repo, tmp_path)), samples=3)
    measure = Proxy(search, 2, ANY, tmp_path, "aaaa-bbbb")
    theta = search.space.start().repeat(3, 1) + search.space.start().new_tensor([[0.0], [0.01], [0.02]])
    codes = {1: DEAD, 2: NOT_FINITE}

    def trained(all_runs, *_):
        first, *runs = all_runs
        assert {run.after for run in runs} == {first} and first.label == "what all trainings start from"
        write_record(runs[0], 0.25, split="held_out")
        (runs[0].directory / "checkpoints").mkdir()
        (runs[0].directory / "evaluation" / "held_out").mkdir(parents=True)
        (runs[0].directory / "weights.pt").touch()
        jobs = {place: Job(run.label, (), run.directory) for place, run in enumerate(runs)}
        return [Failure(jobs[place], code, ("...",)) for place, code in codes.items()]

    monkeypatch.setattr(proxy, "run_all", trained)
    assert measure(4, theta) == [0.25, 0.0, 0.0]
    run = measure.run(4, 0, theta[0])
    assert (run.label, run.seed) == ("round 5 sample 1", 1000)
    assert [path.name for path in run.directory.iterdir()] == ["record.json"]
    codes[1] = 1
    with pytest.raises(ProxyFailure) as stop:
        measure(4, theta)
    assert [failure.job.name for failure in stop.value.failures] == ["round 5 sample 2"]
    (first,) = run.before()
    for one, wanted in ((run, "cccc-bbbb"), (first, "aaaa-bbbb")):  # the sample's, then of what it starts from
        write_record(first, 0.5, data_hash="cccc-bbbb")
        with pytest.raises(UserError, match=rf"{one.name}/seed1000: was trained or tested on other data; remove it"):
            replace(measure, data_hash=wanted)(4, theta)


def test_what_all_start_from_fails(repo, tmp_path, monkeypatch):
    """No outcome of a sample, however it ended: the search stops, and says so beside the samples that wait for it."""
    search = quick(root_of(repo, tmp_path))

    def failed(runs, *_):
        jobs = [Job(run.label, (), run.directory) for run in runs]
        return [Failure(jobs[0], NOT_FINITE, ("...",)), *(Failure(job, None, ("...",)) for job in jobs[1:])]

    monkeypatch.setattr(proxy, "run_all", failed)
    with pytest.raises(ProxyFailure) as stop:
        Proxy(search, 2, ANY, tmp_path, "aaaa-bbbb")(None, search.space.start()[None])
    names = [failure.job.name for failure in stop.value.failures]
    assert names == ["what all trainings start from", "the identity line"]


@pytest.mark.full
def test_what_is_written_round_by_round(repo, tmp_path, capsys):
    """Pictures, curves, a table, and files that a training takes as they are."""
    search = load_search(root_of(repo, tmp_path, *FEW) / SEARCHES, "faster-rcnn-coco", "mini", None, 0)
    folder = tmp_path / "search"
    rounds = run_search(search, nearness, folder, Report(search, folder, 0))
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["the identity line", "round 1/2", "round 2/2"]
    assert "left" in lines[1] and "left" not in lines[2]
    for name in ("best", "mean"):
        found = {path.name for path in (folder / name).iterdir()}
        assert found == {"loss.yaml", "rpn.yaml", "functions.png"}
    assert {path.name for path in folder.iterdir()} > {
        "progress.png",
        "report.md",
        "rewards.csv",
        "start.json",
        "rounds",
    }
    assert len((folder / "rewards.csv").read_text().splitlines()) == 5
    assert list(folder.glob("events.*"))
    index, place = max(((i, k) for i in (0, 1) for k in (0, 1)), key=lambda at: rounds[at[0]].rewards[at[1]])
    theta = rounds[index].theta[place]
    files = [f"loss={folder}/best/loss.yaml", f"rpn={folder}/best/rpn.yaml", "box_loss=none"]
    cfg = compose([*(item for item in search.training if not item.startswith("rpn=")), *files])
    shapes_found = search.space.shapes(search.space.start().new_tensor(theta))
    for stage, node, scale in (("loss", cfg.loss, theta[81]), ("rpn.loss", cfg.rpn.loss, theta[40])):
        assert node.gradient_scale == pytest.approx(10 ** (2 * scale - 1), abs=1e-8)
        assert as_list(node.control_points) == as_list(shapes_found[stage].control_points)


@pytest.fixture(scope="module")
def found(repo, tmp_path_factory):
    root = root_of(repo, tmp_path_factory.mktemp("root"), *FEW)
    pairs = []
    for name in ("retinanet-voc", "retinanet-voc-random"):
        search = quick(root, name)
        run_search(search, nearness, search_directory(search, root), lambda start, rounds: None)
        pairs.append((search, search_directory(search, root)))
    return pairs, comparison.contestants(pairs, (0, 1, 2), root)


@pytest.mark.full
class TestComparison:
    """What the searches found beside the identity line, from made-up records."""

    def test_the_table_says_what_beats_the_line(self, found, tmp_path):
        """AP of the line .20 .30 .40; ahead with all seeds; with two of three, though in the mean; unfinished."""
        pairs, contestants = found
        assert [one.label for one in contestants] == [
            "the identity line", "retinanet-voc, best sample", "retinanet-voc, last mean",
            "retinanet-voc-random, best sample",
        ]  # fmt: skip
        aps = ((0.2, 0.3, 0.4), (0.21, 0.31, 0.41), (0.3, 0.4, 0.39), (0.2, 0.2))
        for one, values in zip(contestants, aps, strict=True):
            for run, ap in zip(one.runs, values, strict=False):
                write_record(run, ap, metrics={"AP": ap, "AP50": ap * 2, "AP75": ap / 2})
        assert comparison.verdicts(contestants) == [
            "retinanet-voc, best sample: beats the identity line it starts from in AP: +1.00 in the mean, ahead with 3 "
            "of 3 seeds.",
            "retinanet-voc, last mean: does not beat the identity line it starts from in AP: +6.33 in the mean, ahead "
            "with 2 of 3 seeds.",
            "retinanet-voc-random, best sample: not all seeds are finished, so nothing is said.",
            "Functions that do no better than the line are ahead with all of 3 seeds in 1 of 8 cases, by chance.",
        ]
        *told, doubt = comparison.among_searches(contestants)
        assert told == [
            "retinanet-voc, best sample, less retinanet-voc-random, best sample: +11.00 AP in the mean; the seeds tell "
            "the two apart.",
            "retinanet-voc, last mean, less retinanet-voc-random, best sample: +16.33 AP in the mean; the seeds tell "
            "the two apart.",
        ]
        assert "one search a method" in doubt
        assert comparison.among_searches(contestants[:3]) == []
        line, other = contestants[0], contestants[3]
        halves = replace(line, runs=line.runs[::2]), replace(other, runs=other.runs[:2])
        missing = [replace(one, runs=(*one.runs, replace(one.runs[0], directory=tmp_path))) for one in halves]
        assert comparison.verdicts(missing) == [
            "retinanet-voc-random, best sample: not all seeds are finished, so nothing is said."
        ]
        text = comparison.markdown("Title", contestants, [search for search, _ in pairs])
        assert "| 30.00 ± 10.00 | 60.00 ± 20.00 |" in text
        assert "2 rounds of 2 samples" in text
        assert len(comparison.csv(contestants).splitlines()) == 12
        comparison.plot("Title", contestants, tmp_path / "plot.png")
        assert (tmp_path / "plot.png").stat().st_size > 5000

    def test_where_all_trainings_failed(self, found, tmp_path):
        """What failed is told after the table, which therefore has to come."""
        pairs, contestants = found
        none = [replace(one, runs=tuple(replace(run, directory=tmp_path) for run in one.runs)) for one in contestants]
        text = comparison.markdown("Title", none, [search for search, _ in pairs])
        assert text.count("not all seeds are finished") == 3

    def test_trainings_differ_in_the_functions_alone(self, found):
        _, contestants = found
        keys = {item.partition("=")[0] for one in contestants for item in one.runs[0].overrides}
        fixed = [{item for item in one.runs[0].overrides if not item.startswith("loss.")} for one in contestants]
        assert all(each == fixed[0] for each in fixed)
        assert {"loss.control_points", "loss.gradient_scale", "splits.test"} <= keys
        assert len({one.runs[0].directory for one in contestants}) == 4

    def test_unfinished_or_unlike(self, found, tmp_path):
        (pair, other), _ = found
        broken = shutil.copytree(pair[1], tmp_path / "broken")
        (broken / "rounds" / "001.json").unlink()
        with pytest.raises(UserError, match=r"1 of 2 rounds are done; the make search-pap that began it goes on"):
            comparison.contestants([(pair[0], broken)], (0,), tmp_path)
        with pytest.raises(UserError, match="differ in rounds, so their budgets do not compare"):
            comparison.contestants([other, (replace(other[0], rounds=3), other[1])], (0,), tmp_path)
        with pytest.raises(UserError, match=r"start\.json: no such file; make search-pap makes"):
            comparison.contestants([(other[0], tmp_path / "nowhere")], (0,), tmp_path)


@pytest.mark.full
def test_the_script_that_compares(repo, tmp_path, front_end, capsys, monkeypatch):
    """On a folder of one's own, whose name the files bear; other data and a search by other settings are refused."""
    few_held_out = ("- hold_out=part", "- hold_out=part\n  - hold_out.num=2")
    root = root_of(repo, tmp_path / "root", *FEW, few_held_out)
    stems = [f"{number:03d}" for number in range(8)]
    splits = {"trainval": stems[:5], "train": stems[:3], "val": stems[3:5], "test": stems[5:]}
    folder = voc_folder(tmp_path / "cats", splits, dict.fromkeys(stems, annotation(("cat", 1, 1, 20, 20))), stems)
    search = load_search(root / SEARCHES, "retinanet-voc-random", "mini", choose_data(str(folder)), 0)
    directory = search_directory(search, root)
    begin(directory, described(search))
    run_search(search, nearness, directory, lambda start, rounds: None)
    for one in comparison.contestants([(search, directory)], (0,), root):
        for run in [*one.runs[0].before(), *one.runs]:
            write_record(run, 0.25, metrics={"AP": 0.25, "AP50": 0.5, "AP75": 0.1})
    main = front_end("compare_search")
    arguments = ["retinanet-voc-random", "--data", str(folder), "--seeds", "0"]
    assert main(arguments, root) == 2
    assert "seed1000: was trained or tested on other data" in capsys.readouterr().err
    monkeypatch.setattr("rankdet.results.today.data_hash", lambda run: "aaaa-bbbb")
    assert main([*arguments, "--protocol", "paper"], root) == 2
    assert "PROTOCOL=paper: searches are compared under mini" in capsys.readouterr().err
    assert main(arguments, root) == 0
    files = {path.name for path in (root / "runs" / "tables" / "pap").iterdir()}
    assert files == {f"search.cats.retinanet-voc-random{suffix}" for suffix in (".md", ".csv", ".png")}
    assert "does not beat the identity line it starts from in AP: +0.00" in capsys.readouterr().out
    (root / SEARCHES).write_text((root / SEARCHES).read_text().replace("sigma: 0.2", "sigma: 0.3"))
    assert main(arguments, root) == 2
    assert "was begun with sigma=0.2, not 0.3" in capsys.readouterr().err


@pytest.mark.full
def test_a_real_search(repo, tmp_path, capsys):
    """2 rounds of 2 samples, killed within the first round and continued; what it wrote down is what its rewards give.

    The finished search is only printed, also where its samples would run otherwise; another setting is refused."""
    root = root_of(repo, tmp_path, *FEW, SHORT)
    settings = [
        *shapes(root),
        "data.image_size=[96,128]",
        "batch_size=4",
        "schedule.length=32",
        "schedule.milestones=[]",
    ]
    arguments = ["retinanet-voc", *settings, "runtime.device=cpu"]
    search = load_search(root / SEARCHES, "retinanet-voc", "mini", None, 0)
    folder = search_directory(search, root)
    line = "import sys; from pathlib import Path; from rankdet.search.__main__ import main; "
    line += f"sys.exit(main({arguments!r}, Path({str(root)!r})))"
    process = subprocess.Popen(
        [sys.executable, "-c", line], env=os.environ | tiny.ENVIRONMENT, stderr=subprocess.DEVNULL
    )
    try:
        while process.poll() is None and not (folder / "start.json").is_file():
            time.sleep(0.05)
        time.sleep(1)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert len(load_rounds(folder)) < 2
    assert command.main(arguments, root) == 0
    rounds = load_rounds(folder)
    assert [len(one.rewards) for one in rounds] == [2, 2]
    rewards = iter([[load_start(folder)], *(one.rewards for one in rounds)])
    run_search(search, lambda index, theta: next(rewards), tmp_path / "again", lambda start, rounds: None)
    for path in sorted((tmp_path / "again" / "rounds").iterdir()):
        assert path.read_bytes() == (folder / "rounds" / path.name).read_bytes()
    records = {path: path.stat().st_mtime_ns for path in root.rglob("record.json")}
    assert len(records) == 6  # with that of the network that all start from
    assert all(json.loads(path.read_text())["split"] == "held_out" for path in records)
    for more in ([], ["runtime.num_workers=1"]):
        assert command.main([*arguments, *more], root) == 0
    assert {path: path.stat().st_mtime_ns for path in root.rglob("record.json")} == records
    capsys.readouterr()
    assert command.main([*arguments, "schedule.warmup_steps=2"], root) == 2
    assert "was begun with" in capsys.readouterr().err
    assert Path(folder / "best" / "loss.yaml").is_file()
