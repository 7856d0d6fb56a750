"""What a job says of strategies, their knobs, and delays on purpose."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from search_spaces import STRATEGIES, Configuration
from tuner.job import Job, configuration_with_knobs, load_job

BASE: dict[str, Any] = {
    "workload": {"path": "tuner.workloads.digits:Digits"},
    "cluster": {"nodes": [1, 2, 4]},
    "goal": {"target": 0.9},
    "space": {"batch_size": [64], "learning_rate": [0.1]},
}


def job(**sections: dict[str, Any]) -> Job:
    data = copy.deepcopy(BASE)
    for name, section in sections.items():
        data[name] = {**data.get(name, {}), **section}
    return Job.model_validate(data)


def test_every_strategy_may_be_chosen_with_every_level_of_its_knobs() -> None:
    space = job(space={"strategy": list(STRATEGIES)}).search_space()
    for name, traits in STRATEGIES.items():
        found = [c for c in space.candidates() if c.strategy == name]
        expected = 3
        for knob in traits.knobs.values():
            expected *= len(knob.levels.levels())
        assert len(found) == expected
        assert all(set(traits.knobs) < set(c) for c in found)


def test_space_narrows_the_knobs_of_the_strategies_that_have_them() -> None:
    space = job(space={"strategy": ["all_reduce", "gossip_pull"], "tau": [2, 3]}).search_space()
    assert {c["tau"] for c in space.candidates() if c.strategy == "gossip_pull"} == {2, 3}
    assert all("tau" not in c for c in space.candidates() if c.strategy == "all_reduce")


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({"tau": [2]}, r"tau is not a knob of all_reduce.*no effect.*elastic_averaging, gossip_pull"),
        ({"strategy": ["gossip_pull"], "tau": [0]}, "greater than 0"),
        ({"strategy": ["gossip_pull"], "tau": [20_000]}, "tau = 20000: allowed is a whole number from 1 to"),
        ({"strategy": ["gossip_pull"], "beta": [0.8]}, "beta is not a knob of gossip_pull"),
        (
            {"strategy": ["elastic_averaging"], "beta": [1.5]},
            "beta = 1.5: allowed is a number from 0.001 to 1",
        ),
        ({"strategy": ["gossip_pul"]}, "did you mean 'gossip_pull'"),
    ],
)
def test_knob_that_would_do_nothing_or_is_out_of_range_is_refused(space: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        job(space=space)


def test_baseline_has_its_strategys_knobs_as_stated_or_by_default() -> None:
    settings = {"batch_size": 64, "learning_rate": 0.1}
    plain = job(baseline={**settings, "strategy": "elastic_averaging"}).baseline_configuration()
    assert plain is not None
    assert (plain["tau"], plain["beta"]) == (10, 0.8)
    stated = job(baseline={**settings, "strategy": "gossip_push", "tau": 3}).baseline_configuration()
    assert stated is not None
    assert stated["tau"] == 3
    assert "beta" not in stated
    with pytest.raises(ValidationError, match="tau is not a knob of all_reduce"):
        job(baseline={**settings, "tau": 3})


def test_configuration_takes_stated_knobs_and_defaults() -> None:
    bare = Configuration(nodes=2, batch_size=64, learning_rate=0.1, strategy="diloco")
    made = configuration_with_knobs(bare, tau=4, beta=None)
    assert made.as_dict()["tau"] == 4
    assert made["outer_learning_rate"] == 0.7
    with pytest.raises(ValueError, match="beta is not a knob of diloco"):
        configuration_with_knobs(bare, beta=0.5)


def test_delays_are_part_of_the_cluster_and_of_what_curves_depend_on() -> None:
    plain = job()
    slowed = job(cluster={"emulate": {"delay": {"ranks": [1], "low": 0.0, "high": 0.3}}})
    (delay,) = slowed.resolved_cluster().delays
    assert delay.slows(1)
    assert not delay.slows(0)
    assert plain.resolved_cluster().delays == ()
    assert plain.fingerprint("code", "hardware") != slowed.fingerprint("code", "hardware")
    both = job(cluster={"emulate": {"delay": [{"high": 0.01}, {"ranks": [3], "high": 0.3}]}})
    assert [d.slows(2) for d in both.resolved_cluster().delays] == [True, False]


@pytest.mark.parametrize(
    "text",
    [
        "emulate = { delay = { ranks = [1], low = 0.0, high = 0.3 } }",
        "[cluster.emulate]\ndelay = { ranks = [1], high = 0.3 }",
        "[[cluster.emulate.delay]]\nranks = [1]\nhigh = 0.3",
    ],
)
def test_delays_are_read_from_a_file_as_people_write_them(tmp_path: Path, text: str) -> None:
    path = tmp_path / "slow.toml"
    path.write_text(
        "[workload]\npath = 'tuner.workloads.digits:Digits'\n[goal]\ntarget = 0.9\n"
        "[space]\nbatch_size = [64]\nlearning_rate = [0.1]\n[cluster]\nnodes = [1, 2]\n" + text + "\n"
    )
    (delay,) = load_job(path).resolved_cluster().delays
    assert (delay.ranks, delay.low, delay.high) == ((1,), 0.0, 0.3)


@pytest.mark.parametrize(
    ("delay", "words"),
    [
        ({"ranks": [4], "high": 0.3}, "slows rank 4, but the largest number of nodes has ranks 0 to 3"),
        ({"low": 0.4, "high": 0.3}, "low 0.4 is above high 0.3"),
        ({"ranks": [1, 1], "high": 0.3}, "must not repeat a rank"),
        ({"ranks": [], "high": 0.3}, "at least 1 item"),
        ({"low": 0.1}, "high"),
        ({"high": 0.3, "rank": [1]}, "Extra inputs"),
    ],
)
def test_delay_that_cannot_be_meant_is_refused(delay: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        job(cluster={"emulate": {"delay": delay}})
