"""The end of a budget: a run is trained to the target while that is still possible."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tuner.search.test_rising import ran, world_of
from tests.tuner.search.world import World, configuration
from tuner.search.model_policy import ModelPolicy
from tuner.search.policy import Action, Continue

#: Near the target of 0.9 after 14 s.
NEARLY = [0.2, 0.35, 0.47, 0.57, 0.64, 0.7, 0.745, 0.78, 0.805, 0.825, 0.842, 0.855, 0.866, 0.876]
WORDS = "the budget may not allow it"


def decided(folder: Path, budget: str, *, arrived: bool = False) -> tuple[World, Action]:
    """What a search does next that knows two runs, the first of which is near the target."""
    world = world_of(
        folder,
        goal={"metric": "accuracy", "target": 0.9, "trainings": 1000},
        budget={"time": budget},
    )
    ran(world, [*NEARLY, 0.91] if arrived else NEARLY)
    ran(world, [0.2, 0.3, 0.36], configuration(1, 32, 0.03))
    return world, ModelPolicy().decide(world.state()).action


def test_the_last_of_a_budget_trains_the_run_that_may_still_arrive(tmp_path: Path) -> None:
    _, action = decided(tmp_path, "28s")
    assert isinstance(action, Continue)
    assert (action.probe_id, action.purpose.value) == (1, "training")
    assert WORDS in action.reason


@pytest.mark.parametrize(("budget", "arrived"), [("10m", False), ("20s", False), ("28s", True)])
def test_other_runs_go_on_where_it_can_wait_or_comes_too_late_or_one_has_arrived(
    tmp_path: Path, budget: str, arrived: bool
) -> None:
    _, action = decided(tmp_path, budget, arrived=arrived)
    assert WORDS not in action.reason
