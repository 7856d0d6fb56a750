from __future__ import annotations

from tuner.job import Job, job_warnings


def job_of(**changes):
    data = {
        "workload": {"path": "tuner.workloads.digits:Digits"},
        "goal": {"target": 0.9},
        "space": {"batch_size": [8, 16], "learning_rate": {"low": 1e-3, "high": 0.1}},
        "baseline": {"batch_size": 8, "learning_rate": 0.01},
        "budget": {"time": 60},
    }
    return Job.model_validate({**data, **changes})


def test_a_complete_job_has_no_warnings():
    assert job_warnings(job_of()) == []


def test_a_baseline_outside_the_space_is_allowed_with_a_warning_for_each_axis():
    warnings = job_warnings(job_of(baseline={"nodes": 3, "batch_size": 12, "learning_rate": 0.5}))
    assert len(warnings) == 3
    assert warnings[0].startswith("baseline.nodes = 3 lies outside the space, where nodes is one of 1")
    assert all(warning.endswith("it is not probed") for warning in warnings)
    there = job_warnings(job_of(baseline={"nodes": 1, "batch_size": 12, "learning_rate": 0.5}))
    assert all(warning.endswith("it is probed, but no similar configurations are") for warning in there)


def test_a_missing_baseline_and_an_empty_budget_are_reported():
    words = " ".join(job_warnings(job_of(baseline=None, budget={})))
    assert "[baseline] is absent" in words
    assert "[budget] is empty" in words


def test_nodes_that_share_cores_are_reported():
    warnings = job_warnings(job_of(cluster={"nodes": [1, 4096]}))
    assert any("cluster.nodes = 4096 runs 4096 threads" in warning for warning in warnings)


def test_a_perfect_target_is_reported():
    assert (
        "goal.target = 1 is the best value accuracy can have" in job_warnings(job_of(goal={"target": 1}))[0]
    )
    goal = {"target": 0, "metric": "error_rate"}
    assert "Raise it" in job_warnings(job_of(goal=goal))[0]
