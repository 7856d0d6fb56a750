"""The end of a budget: a run is trained to the target while that is still possible."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tuner.search.test_rising import ran, world_of
from tests.tuner.search.world import BASELINE, World, configuration
from tuner.domain.measurement import Purpose
from tuner.search.acquisition import Acquisition, Option
from tuner.search.believer import Believer
from tuner.search.capacity import Capacity, UnderWay
from tuner.search.model_policy import ModelPolicy
from tuner.search.policy import Action, Continue, Start

#: Near the target of 0.9 after 14 s.
NEARLY = [0.2, 0.35, 0.47, 0.57, 0.64, 0.7, 0.745, 0.78, 0.805, 0.825, 0.842, 0.855, 0.866, 0.876]
WORDS = "the budget may not allow it later"


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


def last_slice(world: World, **changes: Any) -> Start | Continue | None:
    """What the rule asks for instead of the second run's slice.

    Args:
        world: As `decided` makes it.
        changes: Of the state, of the prospects' status (`never`, `ended`), or `longest`, seconds.
    """
    status = {name: changes.pop(name) for name in ("never", "ended") if name in changes}
    longest, own = changes.pop("longest", None), changes.pop("own", False)
    state = replace(world.state(), **changes)
    beliefs = Believer().believe(state)
    assert beliefs is not None
    prospects = beliefs.prospects
    full = {name: np.full(len(prospects.status.never), value) for name, value in status.items()}
    prospects = replace(prospects, status=replace(prospects.status, **full))
    acquisition = Acquisition(state, beliefs, prospects)
    if longest is not None:
        acquisition.costs = replace(
            acquisition.costs, log_longest=np.full_like(acquisition.costs.log_longest, np.log(longest))
        )
    what = BASELINE if own else configuration(1, 32, 0.03)
    index = prospects.configurations.index(what)
    option = Option(index=index, is_timing=False, charged_seconds=4.0, share_of_cost=1.0)
    return acquisition.before_the_budget_ends(option)


@pytest.mark.parametrize(
    ("changes", "acts"),
    [
        ({}, True),
        ({"never": 0.1}, True),
        ({"never": 0.6}, False),
        ({"ended": True}, False),
        ({"longest": 14.5}, False),
        ({"own": True}, False),
    ],
    ids=["as it is", "doubtful", "improbable", "ended", "too late", "its own slice"],
)
def test_only_a_run_that_may_be_the_answer_is_trained_to_the_target(
    tmp_path: Path, changes: dict[str, Any], acts: bool
) -> None:
    world, _ = decided(tmp_path, "26s")
    assert (last_slice(world, **changes) is not None) is acts


def test_while_slices_are_in_flight_nothing_is_hurried(tmp_path: Path) -> None:
    world, _ = decided(tmp_path, "26s")
    active = UnderWay(
        probe_id=2, configuration=configuration(1, 32, 0.03), purpose=Purpose.STATISTICS, num_nodes=1
    )
    assert last_slice(world, capacity=Capacity(under_way=(active,))) is None


def test_what_does_not_train_is_not_hurried(tmp_path: Path) -> None:
    world, _ = decided(tmp_path, "26s")
    state = world.state()
    for terms in (replace(state.terms, is_training=False), replace(state.terms, pays_to_resume=False)):
        changed = replace(state)
        changed.__dict__["terms"] = terms
        beliefs = Believer().believe(state)
        assert beliefs is not None
        acquisition = Acquisition(state, beliefs, beliefs.prospects)
        acquisition._state = changed
        option = Option(index=0, is_timing=False, charged_seconds=4.0, share_of_cost=1.0)
        assert acquisition.before_the_budget_ends(option) is None


def test_the_slice_lasts_until_the_run_has_very_probably_arrived(tmp_path: Path) -> None:
    world, _ = decided(tmp_path, "26s")
    action = last_slice(world)
    assert isinstance(action, Continue)
    beliefs = Believer().believe(world.state())
    assert beliefs is not None
    run = beliefs.configurations.index(BASELINE)
    samples = np.quantile(np.exp(beliefs.forecast.log_samples[:, run]), 0.9)
    assert action.until.samples is not None
    assert action.until.samples >= 0.95 * samples
    # What is left of the budget after 19 s, on top of the 14 s that it has trained.
    assert action.until.training_seconds == pytest.approx(14.0 + 7.0)


@pytest.mark.parametrize("chance", [0.0, 0.35])
def test_a_run_that_may_never_arrive_is_no_reason_to_hurry(tmp_path: Path, chance: float) -> None:
    world, _ = decided(tmp_path, "10m")
    assert last_slice(world, never=chance) is None
