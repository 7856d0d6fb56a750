"""Peers of the bank: what they are given, and that they are charged as every other search."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks.peers import PEERS, center, first_unit, missing, peer, rung_costs
from benchmarks.replay_optuna import OptunaReplay
from benchmarks.replay_problem import problem
from tests.recorded_grid import STARTUP_SECONDS, configuration, write_grid

NEEDED = {name: missing(name) for name in PEERS}


@pytest.fixture
def path(tmp_path) -> Path:
    write_grid(tmp_path / "grid.jsonl.gz")
    return tmp_path / "grid.jsonl.gz"


def test_the_center_is_in_the_middle_of_each_numeric_axis():
    what = [
        configuration(nodes=n, batch_size=b, learning_rate=r)
        for n in (1, 2, 16)
        for b in (8, 512, 1024)
        for r in (0.001, 0.09, 0.1)
    ]
    assert center(what) == configuration(nodes=2, batch_size=512, learning_rate=0.09)
    assert center(what[:1]) == what[0]


def test_the_first_rung_is_the_first_score_or_a_start_up(path):
    posed = problem(path, "seconds")
    first = sorted(posed.recording.run(c).curve[0, 0] for c in posed.costs)
    middle = (first[len(first) // 2 - 1] + first[len(first) // 2]) / 2
    assert first_unit(posed) == pytest.approx(max(middle, STARTUP_SECONDS))
    write_grid(path, startup_seconds=1000.0)
    assert first_unit(problem(path, "seconds", 7)) == 1000.0


def test_rungs_grow_up_to_the_costliest_run(path):
    posed = problem(path, "dollars")
    costs = rung_costs(posed, first_unit(posed), 1.5)
    longest = max(posed.recording.run(c).seconds * posed.price(c) for c in posed.costs)
    assert costs[0] == first_unit(posed)
    assert [after / before for before, after in pairwise(costs)] == pytest.approx([1.5] * (len(costs) - 1))
    assert costs[-2] < longest <= costs[-1] * (1 + 1e-9)


def test_halving_from_the_center_starts_there_and_is_tpe_after_that(path, monkeypatch):
    asked = []
    train = OptunaReplay._train

    def noted(self, trial, what, found):
        asked.append(what)
        train(self, trial, what, found)

    monkeypatch.setattr(OptunaReplay, "_train", noted)
    posed = problem(path, "seconds")
    trace = peer(posed, "tpe-sha-center", 0).run(1e6)
    assert asked[0] == center(list(posed.costs))
    assert len(asked) == len(posed.costs)
    assert math.isfinite(posed.regret(trace.end.recommended))


def test_an_absent_package_is_named(monkeypatch):
    monkeypatch.setitem(PEERS, "dyhpo", ("benchmarks.peers_syne_tune", ("no_such_package", "json")))
    assert missing("dyhpo") == (
        "dyhpo is skipped: no_such_package cannot be imported; see benchmarks/peers.py"
    )


@pytest.mark.slow
@pytest.mark.parametrize("goal", ["seconds", "dollars"])
@pytest.mark.parametrize("name", ["dyhpo", "mobster", "asha", "hyperband"])
@pytest.mark.filterwarnings("ignore")
def test_a_peer_finds_what_arrives_and_pays_for_all(path, name, goal):
    if NEEDED[name] is not None:
        pytest.skip(NEEDED[name])
    posed = problem(path, goal)
    limit = 1000.0 if name == "hyperband" else 30.0
    trace = peer(posed, name, 0).run(limit)
    spent = [moment.spent for moment in trace.moments]
    assert spent == sorted(spent)
    assert math.isfinite(posed.regret(trace.end.recommended))
    # The first rung of the first trial, with its start-up.
    first = center(list(posed.costs))
    seen = max(first_unit(posed) / posed.price(first), posed.recording.run(first).curve[0, 0])
    assert spent[1] >= (seen + STARTUP_SECONDS) * posed.price(first) * (1 - 1e-9)
    one = peer(problem(path, goal, 1), name, 0).run(limit)
    assert one.arrived_at == one.end.spent
