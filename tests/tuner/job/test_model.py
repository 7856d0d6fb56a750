from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tuner.job import Job
from tuner.job.values import parse_duration

BASE = {
    "workload": {"path": "tuner.workloads.digits:Digits"},
    "goal": {"target": 0.9},
    "space": {"batch_size": {"low": 8, "high": 70}, "learning_rate": {"low": 1e-3, "high": 0.1}},
}


@pytest.mark.parametrize(
    ("words", "seconds"),
    [("90s", 90), ("10m", 600), ("2h", 7200), ("1h30m", 5400), ("1.5h", 5400), ("1d", 86400), ("45", 45)],
)
def test_durations_are_read_as_people_write_them(words, seconds):
    assert parse_duration(words) == seconds


@pytest.mark.parametrize("words", ["soon", "10x", "m", "-5s"])
def test_other_words_are_not_durations(words):
    with pytest.raises(ValueError, match="is not a duration; write 90s, 10m"):
        parse_duration(words)


def test_a_batch_range_holds_powers_of_two_times_its_low_end():
    assert Job.model_validate(BASE).space.axes()["batch_size"].levels() == [8, 16, 32, 64]


@given(st.integers(1, 512), st.integers(1, 8))
def test_every_candidate_gives_every_rank_a_sample(high, devices_per_node):
    space = {"batch_size": {"low": 1, "high": high}, "learning_rate": [0.1]}
    cluster = {"nodes": [1, 2, 16], "devices_per_node": devices_per_node}
    job = Job.model_validate({**BASE, "space": space, "cluster": cluster})
    for candidate in job.search_space().candidates():
        assert candidate.batch_size >= candidate.nodes * devices_per_node


def test_the_fingerprint_leaves_out_what_curves_do_not_depend_on():
    job = Job.model_validate(BASE)
    changed = {**BASE, "goal": {"target": 0.5}, "budget": {"time": 10}, "baseline": None, "name": "other"}
    assert Job.model_validate(changed).fingerprint("code", "cpu") == job.fingerprint("code", "cpu")


def test_the_fingerprint_holds_what_curves_depend_on():
    job = Job.model_validate(BASE)
    wider = {**BASE, "workload": {**BASE["workload"], "parameters": {"width": 3}}}
    prints = {
        job.fingerprint("code", "cpu"),
        job.fingerprint("other code", "cpu"),
        job.fingerprint("code", "gpu"),
        Job.model_validate(wider).fingerprint("code", "cpu"),
        Job.model_validate({**BASE, "seed": 1}).fingerprint("code", "cpu"),
    }
    assert len(prints) == 5


def test_the_local_launcher_puts_all_nodes_on_this_host():
    cluster = Job.model_validate({**BASE, "cluster": {"nodes": [1, 1000]}}).resolved_cluster()
    assert cluster.nodes_share_host
    assert cluster.oversubscription(1000) > 1


def test_sections_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Job.model_validate(BASE).seed = 3
