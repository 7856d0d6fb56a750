"""What was asked for, and what was used instead."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from search_spaces import RanksWithin
from tests.tuner.search.synthetic import Law
from tests.tuner.search.world import BASELINE, World, make_job
from tuner.search.believer import Believer
from tuner.service.opening import OpenedJob, open_job
from tuner.service.overrides import option_overrides, search_overrides

JOB = """
name = "small"
[workload]
path = "tuner.workloads.digits:Digits"
[cluster]
nodes = [2, 4]
dollars_per_node_hour = 1.0
[goal]
target = 0.9
[space]
batch_size = [32, 64]
learning_rate = [0.1]
[budget]
time = "1h"
"""


def opened(folder: Path, **options: float | str) -> OpenedJob:
    path = folder / "job.toml"
    path.write_text(JOB)
    return open_job(path, **options)  # type: ignore[arg-type]


def test_without_options_nothing_is_replaced(tmp_path: Path) -> None:
    assert list(option_overrides(opened(tmp_path))) == []


def test_options_are_shown_beside_the_values_that_they_replace(tmp_path: Path) -> None:
    job = opened(tmp_path, time_budget="10m", max_dollars=5.0)
    found = list(option_overrides(job, sampler="tpe", parallel=4, past_studies=False))
    assert [(item.name, item.stated, item.used) for item in found] == [
        ("budget.time", "1h 00m", "10m 00s"),
        ("budget.dollars", "no limit", "$5.00"),
        ("sampler", "model (default)", "tpe"),
        ("concurrent probes", "1 (default)", "up to 4"),
        ("concurrent probes", "up to 4", "at most 2"),
        ("past studies", "used (default)", "not used"),
    ]
    assert found[0].source == "--budget or PACELINE_BUDGET"
    assert found[4].source == "the cluster has 4 nodes"


def test_an_option_that_repeats_the_job_file_replaces_nothing(tmp_path: Path) -> None:
    assert list(option_overrides(opened(tmp_path, time_budget="60m"))) == []


def test_what_the_search_could_not_use_is_listed(tmp_path: Path) -> None:
    world = World(tmp_path, job=make_job(), law=Law())
    world.ran(BASELINE, 20.0)
    state = world.state()
    beliefs = Believer().believe(state)
    assert beliefs is not None
    assert list(search_overrides(state, beliefs)) == []
    limited = replace(state, space=state.space.with_condition(RanksWithin(too_large_per_rank=48)))
    others = [c for c in beliefs.configurations if c != BASELINE]
    without = replace(beliefs, forecast=replace(beliefs.forecast, configurations=tuple(others)))
    baseline, memory = search_overrides(limited, without)
    assert (baseline.name, baseline.used) == ("baseline", "left out")
    assert baseline.source == "64 samples per rank, but 48 ran out of memory"
    assert memory.used == "fewer than 48 samples per rank"
