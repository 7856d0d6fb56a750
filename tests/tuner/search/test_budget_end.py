"""The end of a budget: a run is trained to the target while that is still possible."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.tuner.search.test_rising import ran, world_of
from tests.tuner.search.world import World, configuration
from tuner.search.acquisition import Acquisition
from tuner.search.believer import Believer
from tuner.search.model_policy import ModelPolicy
from tuner.search.opportunity_cost import OpportunityCost
from tuner.search.policy import Action, Continue

#: Near the target of 0.9 after 14 s.
NEARLY = [0.2, 0.35, 0.47, 0.57, 0.64, 0.7, 0.745, 0.78, 0.805, 0.825, 0.842, 0.855, 0.866, 0.876]
WORDS = "the budget may not allow it"


def decided(folder: Path, budget: str, *, arrived: bool = False, unit: str = "time") -> tuple[World, Action]:
    """What a search does next that knows two runs, the first of which is near the target."""
    world = world_of(
        folder,
        goal={"metric": "accuracy", "target": 0.9, "trainings": 1000},
        cluster={"nodes": [1], "dollars_per_node_hour": 3600.0},
        budget={unit: budget if unit == "time" else float(budget)},
    )
    ran(world, [*NEARLY, 0.91] if arrived else NEARLY)
    ran(world, [0.2, 0.3, 0.36], configuration(1, 32, 0.03))
    return world, ModelPolicy().decide(world.state()).action


@pytest.mark.parametrize(("unit", "budget"), [("time", "28s"), ("dollars", "9")])
def test_the_last_of_a_budget_trains_the_run_that_may_still_arrive(
    tmp_path: Path, unit: str, budget: str
) -> None:
    _, action = decided(tmp_path, budget, unit=unit)
    assert isinstance(action, Continue)
    assert (action.probe_id, action.purpose.value) == (1, "training")
    assert WORDS in action.reason


@pytest.mark.parametrize(("budget", "arrived"), [("10m", False), ("20s", False), ("28s", True)])
def test_other_runs_go_on_where_it_can_wait_or_comes_too_late_or_one_has_arrived(
    tmp_path: Path, budget: str, arrived: bool
) -> None:
    _, action = decided(tmp_path, budget, arrived=arrived)
    assert WORDS not in action.reason


def test_a_run_that_may_never_arrive_is_no_reason_to_hurry(tmp_path: Path) -> None:
    world, _ = decided(tmp_path, "10m")
    state = world.state()
    beliefs = Believer().believe(state)
    assert beliefs is not None
    prospects = beliefs.prospects
    doubtful = replace(prospects.status, never=np.full(len(prospects.status.never), 0.35))
    acquisition = Acquisition(state, beliefs, replace(prospects, status=doubtful))
    option = acquisition.best_option(OpportunityCost(state=state, leader=None))
    assert option is not None
    assert acquisition.before_the_budget_ends(option) is None
