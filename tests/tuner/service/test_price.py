from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.tuner.service.desk import small_job
from tuner.service.opening import OpenedJob
from tuner.service.price import most_usage, plan_data

PRICED = {"nodes": [1, 2], "dollars_per_node_hour": 6.0}


def opened_of(**sections: Any) -> OpenedJob:
    return OpenedJob(job=small_job(**sections), path=Path("job.toml"), fingerprint="f")


@pytest.mark.parametrize(
    ("budget", "parallel", "most"),
    [
        ({"time": "1h"}, 1, (3600.0, 2.0, 12.0)),
        ({"time": "1h"}, 2, (3600.0, 2.0, 12.0)),
        ({"time": "1h", "dollars": 3.0}, 1, (1800.0, 0.5, 3.0)),
        ({"time": "1h", "node_hours": 0.5}, 1, (1800.0, 0.5, 3.0)),
        ({"time": None, "node_hours": 0.5}, 1, (1800.0, 0.5, 3.0)),
        ({"time": None, "dollars": 3.0}, 4, (1800.0, 0.5, 3.0)),
        ({"time": None, "probes": 5}, 1, (None, None, None)),
        ({"time": None}, 1, (None, None, None)),
    ],
)
def test_every_limit_limits_seconds_node_hours_and_dollars(
    budget: dict[str, Any], parallel: int, most: tuple[float | None, ...]
) -> None:
    found = most_usage(opened_of(cluster=PRICED, budget=budget), parallel=parallel)
    assert tuple(found.values()) == tuple(value if value is None else pytest.approx(value) for value in most)


def test_concurrent_probes_use_more_nodes_where_there_are_more() -> None:
    opened = opened_of(cluster={**PRICED, "capacity": 6}, budget={"time": "1h"})
    assert [most_usage(opened, parallel=n)["node_hours"] for n in (1, 2, 3, 4)] == [2.0, 4.0, 6.0, 6.0]
    assert [most_usage(opened, parallel=n)["dollars"] for n in (1, 2, 3, 4)] == [12.0, 24.0, 36.0, 36.0]


def test_without_prices_a_job_costs_no_dollars() -> None:
    assert most_usage(opened_of())["dollars"] == 0.0


@pytest.mark.parametrize("beyond", [{"verify": True}, {"confirm": 2}])
def test_nothing_limits_trainings_beyond_the_budget(beyond: dict[str, Any]) -> None:
    opened = opened_of(cluster=PRICED, budget={"time": "1h", "dollars": 3.0})
    assert set(most_usage(opened, **beyond).values()) == {None}
    assert "in addition to the budget" in plan_data(opened, **beyond)["lines"][-1]


def test_the_plan_is_data_that_json_can_represent() -> None:
    plan = plan_data(opened_of(cluster=PRICED, budget={"time": "1h"}))
    assert plan["most"] == {"seconds": 3600.0, "node_hours": 2.0, "dollars": 12.0}
    assert plan["most_expensive"]["nodes"] == 2
    assert plan["num_configurations"] == len(small_job().search_space().candidates())
    assert plan["limits"] == {"time": 3600.0, "dollars": None, "node_hours": None, "probes": None}
    assert plan["target"]["metric"] == "accuracy"
    assert not any(line.startswith("study:") for line in plan["lines"])
