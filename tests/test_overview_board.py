"""make tensorboard: runs by the names of their rows, in a folder that TensorBoard's own readers understand."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress

import pytest
from paper_made_up import make_checkout
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer
from tensorboard.plugins.hparams import metadata

from rankdet.config import telling_settings
from rankdet.overview.board import make_board
from rankdet.overview.targets import load_target
from rankdet.results.datasets import choose_data
from rankdet.results.runs import config_of
from rankdet.training.log import RunLog


@pytest.fixture
def root(repo, tmp_path):
    return make_checkout(repo, tmp_path)


def target(root, name):
    return load_target(name, "ap-loss", "mini", choose_data("shapes"), root)


def begin(run, ap=None):
    """What a training leaves for TensorBoard by its first step, or by its end."""
    run.directory.mkdir(parents=True)
    with RunLog(run.directory, 0, 500, 50, "lines") as log:
        log.settings(telling_settings(config_of(run.overrides)) | {"seed": run.seed})
        log.scalars(50, {"train/loss": 0.5})
        if ap is not None:
            log.results({"test/AP": ap}, 500)


def test_runs_are_found_by_their_rows(root):
    """Of four runs one has ended and one has begun; the links of the others lead nowhere yet."""
    one = target(root, "table-1")
    begin(one.order[0], 0.3)
    begin(one.order[1])
    folder = make_board([one], root / "runs" / "tensorboard" / "table-1.mini.shapes")
    found = EventMultiplexer().AddRunsFromDirectory(str(folder))
    found.Reload()
    rows = ["interpolated-no/seed0", "interpolated-yes/seed0"]
    assert set(found.Runs()) == {".", *rows}
    assert found.Scalars(rows[0], "test/AP")[0].value == pytest.approx(0.3)
    content = found.PluginRunToTagToContent("hparams")
    for row, interpolate in zip(rows, (False, True), strict=True):
        start = metadata.parse_session_start_info_plugin_data(content[row][metadata.SESSION_START_INFO_TAG])
        assert start.hparams["loss_settings.interpolate"].number_value == interpolate  # torch writes it as a number
        assert start.hparams["batch_size"].number_value == 8
        assert (metadata.SESSION_END_INFO_TAG in content[row]) == (row == rows[0])
    begun = [run for run, tags in content.items() if metadata.EXPERIMENT_TAG in tags]
    assert begun == ["."], "a run's own description would decide the columns of all"
    columns = metadata.parse_experiment_plugin_data(content["."][metadata.EXPERIMENT_TAG])
    assert {info.name for info in columns.hparam_infos} >= {"lr", "loss", "loss_settings.interpolate", "seed"}
    assert [info.name.tag for info in columns.metric_infos] == ["test/AP", "test/AP50", "test/AP75"]
    begin(one.order[2])
    found.AddRunsFromDirectory(str(folder))
    assert set(found.Runs()) == {".", *rows, "interpolated-no/seed1"}


@pytest.mark.full
def test_again_for_other_targets(root):
    """Links of before are gone, those they led to are not; a shared run is there once, under its first table."""
    one, eight = target(root, "table-1"), target(root, "table-8")
    begin(one.order[0], 0.3)
    before = sorted(path.name for path in one.order[0].directory.iterdir())
    folder = root / "runs" / "tensorboard" / "x"
    make_board([one], folder)
    make_board([one, eight], folder)
    links = {str(path.relative_to(folder)): path.resolve() for path in folder.rglob("seed*")}
    assert sorted(links) == sorted(
        [f"table-1/interpolated-{row}/seed{seed}" for row in ("no", "yes") for seed in (0, 1)]
        + [f"table-8/ohem-ap-loss/seed{seed}" for seed in (0, 1)]
    )
    assert set(links.values()) == {run.directory for run in (*one.order, *eight.order)}
    assert len(list(folder.glob("*tfevents*"))) == 1
    assert sorted(path.name for path in one.order[0].directory.iterdir()) == before


def test_the_command_prints_the_folder(root, front_end, capsys):
    main = front_end("board")
    assert main(["table-1"], root) == 0
    assert capsys.readouterr().out == "runs/tensorboard/table-1.mini\n"
    assert len(list((root / "runs" / "tensorboard" / "table-1.mini").rglob("seed*"))) == 4
    assert main(["table-1", "--data", "shapes"], root) == 0
    assert capsys.readouterr().out == "runs/tensorboard/table-1.mini.shapes\n"


@pytest.mark.full
def test_the_server_shows_them(root):
    """TensorBoard itself, whose faster reader of event files is another program."""
    one = target(root, "table-1")
    begin(one.order[0], 0.3)
    begin(one.order[1])
    folder = make_board([one], root / "runs" / "tensorboard" / "table-1.mini.shapes")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    line = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", str(port)]
    server = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        runs, end = [], time.monotonic() + 120
        while len(runs) < 3 and time.monotonic() < end:
            time.sleep(1)
            with suppress(OSError), urllib.request.urlopen(f"http://localhost:{port}/data/runs") as answer:
                runs = json.load(answer)
    finally:
        server.terminate()
        server.wait()
    assert sorted(runs) == [".", "interpolated-no/seed0", "interpolated-yes/seed0"]
