"""The search by a stand-in for its trainings: what it finds, and that no interruption changes a bit of it."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from rankdet.errors import UserError
from rankdet.results.datasets import DataChoice
from rankdet.search.found import best_sample, findings
from rankdet.search.parameters import Space
from rankdet.search.ppo import PPO
from rankdet.search.rounds import Round, begin, load_rounds, play, run_search
from rankdet.search.settings import Search

SEARCH = Search(
    "made-up", "mini", Space(("loss",), "shared", True), "ppo", DataChoice("shapes", ("data=shapes",)),
    detector=(), proxy=(), first=(), proxy_seed=1000, seed=3, rounds=6, samples=4, sigma=0.2,
    ppo=PPO(0.1, 0.01, 20, 5),
)  # fmt: skip
TARGET = 0.7


def nearness(_, theta):
    """The nearer to TARGET the better; dead where the scale is far off."""
    return [0.0 if row[-1] < 0.3 else 1 - (row - TARGET).square().mean().item() for row in theta]


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob("*.json"))}


def searched(folder, search=SEARCH, measure=nearness):
    return run_search(search, measure, folder, lambda start, rounds: None)


def test_it_comes_nearer(tmp_path):
    """Twenty rounds: the policy's mean, and what is drawn last, is nearer to the target than where it began."""
    rounds = searched(tmp_path, replace(SEARCH, rounds=20, samples=8, ppo=PPO(0.1, 0.03, 30, 5)))
    assert len(rounds) == 20
    means = [np.mean(one.rewards) for one in rounds]
    assert np.mean(means[-5:]) > np.mean(means[:5]) + 0.02
    last = torch.tensor(rounds[-1].mu_after).sigmoid()
    assert (last - TARGET).abs().mean() < (SEARCH.space.start() - TARGET).abs().mean()
    assert [one.sigma for one in rounds[::5]] == pytest.approx([0.2, 0.15, 0.1, 0.05])
    assert [found.name for found in findings(SEARCH, 0.5, rounds)] == ["best", "mean"]


def test_random_search_stays_where_it_is(tmp_path):
    """As many samples of the start's policy; its first round is the other search's."""
    plain = searched(tmp_path / "ppo")
    rounds = searched(tmp_path / "random", replace(SEARCH, method="random"))
    assert {(one.sigma, tuple(one.mu), tuple(one.mu_after)) for one in rounds} == {
        (0.2, tuple(rounds[0].mu), tuple(rounds[0].mu))
    }
    assert rounds[0].theta == plain[0].theta
    assert len({tuple(row) for one in rounds for row in one.theta}) == 24
    assert [found.name for found in findings(SEARCH, 0.5, rounds)] == ["best", "mean"]
    assert [found.name for found in findings(replace(SEARCH, method="random"), 0.5, rounds)] == ["best"]


def test_best_sample():
    """The highest reward, of equal ones the first."""
    rounds = [Round(0.2, [], [], rewards, []) for rewards in ([0.1, 0.3], [0.4, 0.4], [0.4, 0.0])]
    assert best_sample(rounds) == (1, 0)


def test_a_round_depends_on_seed_and_number_alone():
    first = play(SEARCH, [], nearness)
    assert play(SEARCH, [], nearness) == first
    assert play(replace(SEARCH, seed=4), [], nearness).theta != first.theta
    assert play(SEARCH, [first], nearness).theta != first.theta


@pytest.mark.parametrize("rounds_done", [0, 1, 4, 6])
def test_interrupted_between_and_within_rounds(tmp_path, rounds_done):
    """Broken off in the measuring of a round: continued, it ends in the same bytes, and measures no round twice."""
    searched(tmp_path / "whole")
    measured = []

    def counting(index, theta):
        measured.append(index)
        if index == rounds_done:
            raise KeyboardInterrupt
        return nearness(index, theta)

    if rounds_done < SEARCH.rounds:
        with pytest.raises(KeyboardInterrupt):
            searched(tmp_path / "broken", measure=counting)
        assert len(load_rounds(tmp_path / "broken")) == rounds_done
    searched(tmp_path / "broken", measure=lambda index, theta: measured.append(index) or nearness(index, theta))
    assert files(tmp_path / "broken") == files(tmp_path / "whole")
    again = [rounds_done] if rounds_done < SEARCH.rounds else []
    assert sorted(measured[1:]) == sorted([*range(SEARCH.rounds), *again])


def test_a_search_whose_rounds_are_all_there_has_been_told_of_whole(tmp_path):
    """Broken off while it tells of the last round, which makes the files that trainings take: it is not finished."""

    def telling(start, rounds):
        if len(rounds) == SEARCH.rounds:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_search(SEARCH, nearness, tmp_path / "broken", telling)
    assert len(load_rounds(tmp_path / "broken")) == SEARCH.rounds - 1
    assert searched(tmp_path / "broken") == searched(tmp_path / "whole")


def slow_search(folder, stop_at):
    """In a process of its own: kills itself, as kill -9 does, when it has looked at so many files being replaced."""
    seen = 0
    replace_file = Path.replace

    def counted(self, target):
        nonlocal seen
        seen += 1
        if seen == stop_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return replace_file(self, target)

    Path.replace = counted
    searched(Path(folder))


@pytest.mark.full
def test_killed(tmp_path):
    """kill -9 in the writing of the start, of a round in the middle and of the last one: the same bytes in the end."""
    searched(tmp_path / "whole")
    for stop_at in (1, 4, 7):
        folder = tmp_path / f"killed-{stop_at}"
        assert tiny.in_child(slow_search, str(folder), stop_at) == -signal.SIGKILL
        assert len(load_rounds(folder)) == max(0, stop_at - 2)
        searched(folder)
        left = {name: text for name, text in files(folder).items() if ".partial" not in name}
        assert left == files(tmp_path / "whole")


def test_another_search_in_the_same_folder(tmp_path):
    content = {"rounds": 8, "ppo": {"clip": 0.1}, "stages": ("loss",)}
    begin(tmp_path, content)
    begin(tmp_path, content)
    for changed, message in (
        ({"rounds": 9}, r"was begun with rounds=8, not 9; set it back, or remove that folder to begin anew"),
        ({"ppo": {"clip": 0.2}}, r'was begun with ppo=\{"clip": 0\.1\}, not \{"clip": 0\.2\}'),
        ({"more": 1}, "was begun with more=null, not 1"),
    ):
        with pytest.raises(UserError, match=message):
            begin(tmp_path, content | changed)
    assert json.loads((tmp_path / "search.json").read_text())["rounds"] == 8
    (tmp_path / "search.json").unlink()
    begin(tmp_path, {"name": "another"})  # nothing was measured yet
    (tmp_path / "search.json").unlink()
    (tmp_path / "start.json").write_text('{"reward": 0.5}')
    with pytest.raises(UserError, match=r"holds rounds but no search\.json that says of what; remove that folder"):
        begin(tmp_path, {"name": "another"})


def test_a_damaged_round(tmp_path):
    searched(tmp_path)
    path = tmp_path / "rounds" / "002.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(UserError, match=r"002\.json: not valid JSON"):
        searched(tmp_path)
    path.write_text("{}")
    with pytest.raises(UserError, match=r"002\.json: is no round of a search"):
        searched(tmp_path)
    (tmp_path / "start.json").write_text("{}")
    path.unlink()
    with pytest.raises(UserError, match=r"start\.json: holds no reward; delete it"):
        searched(tmp_path)
