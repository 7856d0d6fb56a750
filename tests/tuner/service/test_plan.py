from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.tuner.service.desk import small_job
from tuner.service.opening import OpenedJob
from tuner.service.plan import crowding_words, plan_lines


def lines_of(*, spent_seconds: float = 0.0, **sections: Any) -> list[str]:
    opened = OpenedJob(job=small_job(**sections), path=Path("job.toml"), fingerprint="f")
    return plan_lines(opened, storage="sqlite:///a.db", output="/out", spent_seconds=spent_seconds)


def test_the_plan_states_goal_space_budget_and_places() -> None:
    text = "\n".join(lines_of(budget={"time": "20m", "probes": 7}))
    count = len(small_job().search_space().candidates())
    assert "accuracy >= 0.85" in text
    assert f"space: {count} configurations on 1, 2 nodes" in text
    assert "budget: 20m 00s, 7 probes" in text
    assert "study: sqlite:///a.db; report: /out" in text
    assert "at most" not in text


@pytest.mark.parametrize(
    ("budget", "worst"),
    [
        ({"time": "30m"}, "$6.00"),
        ({"time": "30m", "dollars": 4.0}, "$4.00"),
        ({"time": None, "dollars": 9.0}, "$9.00"),
    ],
)
def test_the_worst_cost_is_all_nodes_for_all_the_time_or_the_limit(
    budget: dict[str, Any], worst: str
) -> None:
    priced = {"nodes": [1, 2], "dollars_per_node_hour": 6.0}
    assert any(line.startswith(f"at most: {worst}") for line in lines_of(cluster=priced, budget=budget))


def test_without_any_limit_the_plan_warns() -> None:
    text = "\n".join(lines_of(budget={"time": None}))
    assert "budget: none" in text
    assert "note: [budget] is empty" in text


def test_a_study_that_is_gone_on_with_says_what_it_spent() -> None:
    assert "resuming a study that has spent 1m 30s" in lines_of(spent_seconds=90.0)


def test_the_plan_states_the_prices_per_hour_and_what_is_already_paid() -> None:
    priced = {"nodes": [1, 2], "dollars_per_node_hour": 6.0}
    assert "price: $6.00 to $12.00 an hour, depending on the configuration" in lines_of(cluster=priced)
    opened = OpenedJob(job=small_job(cluster=priced), path=Path("job.toml"), fingerprint="f")
    lines = plan_lines(opened, storage="s", output="o", spent_seconds=90.0, spent_dollars=0.3)
    assert "resuming a study that has spent 1m 30s and $0.30" in lines


MACHINE = {"fixed_seconds": "1ms", "seconds_per_sample": "1ms", "latency": "100us", "bandwidth": "1GB/s"}


def test_a_search_that_is_emulated_costs_nothing() -> None:
    priced = {"nodes": [1, 2], "dollars_per_node_hour": 6.0, "machine": MACHINE}
    lines = lines_of(cluster=priced, probe={"kind": "emulated"}, budget={"time": "30m"})
    (price,) = [line for line in lines if line.startswith("price: ")]
    assert price.endswith(
        "; the search itself costs nothing, because every probe is emulated on this machine"
    )
    assert not any(line.startswith("at most") for line in lines)


def test_the_worst_cost_leaves_out_probes_that_are_emulated() -> None:
    priced = {"nodes": [1, 2], "dollars_per_node_hour": 6.0, "machine": MACHINE, "nodes_at_hand": 1}
    lines = lines_of(cluster=priced, probe={"kind": "auto"}, budget={"time": "30m"})
    assert any(line.startswith("at most: $3.00") for line in lines)
    assert any(line.endswith("; emulated probes cost nothing") for line in lines)


def test_one_node_is_not_nodes() -> None:
    job = small_job(cluster={"nodes": [1]}, baseline=None)
    opened = OpenedJob(job=job, path=Path("job.toml"), fingerprint="f")
    text = "\n".join(plan_lines(opened, storage="s", output="o", spent_seconds=0.0))
    assert " on 1 node\n" in text


def opened_of(**sections: Any) -> OpenedJob:
    return OpenedJob(job=small_job(**sections), path=Path("job.toml"), fingerprint="f")


def test_several_at_once_are_planned_with_their_nodes_and_their_worst_cost() -> None:
    priced = {"nodes": [1, 2], "dollars_per_node_hour": 6.0, "capacity": 3}
    opened = opened_of(cluster=priced, budget={"time": "30m"})
    lines = plan_lines(opened, storage="s", output="o", spent_seconds=0.0, parallel=4)
    assert "concurrent: up to 4 probes on 3 nodes in total" in lines
    assert (
        "at most: $9.00, for all nodes at their highest price all the time, and up to 1m 30s to save "
        "checkpoints at the end"
    ) in lines


def test_several_at_once_that_share_cores_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _process: {0, 1})
    words = crowding_words(opened_of(cluster={"nodes": [1, 2], "capacity": 4}), 4)
    assert words is not None
    assert "--parallel 4 may run 4 threads on the 2 cores" in words
    assert "marked as oversubscribed" in words
    assert crowding_words(opened_of(cluster={"nodes": [1, 2]}), 2) is None
    assert crowding_words(opened_of(cluster={"nodes": [1, 2], "capacity": 4}), 1) is None
