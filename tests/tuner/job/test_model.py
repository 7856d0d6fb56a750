from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from search_spaces import Configuration
from tuner.domain.section import parse_duration
from tuner.job import Job
from tuner.job.values import parse_bandwidth

BASE = {
    "workload": {"path": "tuner.workloads.digits:Digits"},
    "goal": {"target": 0.9},
    "space": {"batch_size": {"low": 8, "high": 70}, "learning_rate": {"low": 1e-3, "high": 0.1}},
}


@pytest.mark.parametrize(
    ("words", "seconds"),
    [
        ("90s", 90),
        ("10m", 600),
        ("2h", 7200),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("1d", 86400),
        ("45", 45),
        ("50us", 5e-5),
        ("2ms", 2e-3),
    ],
)
def test_durations_are_read_as_people_write_them(words, seconds):
    assert parse_duration(words) == pytest.approx(seconds)


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


MACHINE = {"fixed_seconds": "2ms", "seconds_per_sample": "50us", "latency": "20us", "bandwidth": "10Gbit/s"}
EMULATED = {**BASE, "probe": {"kind": "emulated"}, "cluster": {"nodes": [1, 64], "machine": MACHINE}}


@pytest.mark.parametrize(
    ("words", "bytes_per_second"),
    [("10Gbit/s", 1.25e9), ("1.2 GB/s", 1.2e9), ("100Mbit/s", 1.25e7), ("8bit/s", 1.0), (7, 7)],
)
def test_bandwidths_are_read_as_people_write_them(words, bytes_per_second):
    assert parse_bandwidth(words) == pytest.approx(bytes_per_second)


@pytest.mark.parametrize("words", ["fast", "10Gbps", "10", "-1GB/s"])
def test_other_words_are_not_bandwidths(words):
    with pytest.raises(ValueError, match="is not a bandwidth; write 10Gbit/s"):
        parse_bandwidth(words)


def test_described_machines_are_the_cluster_of_an_emulated_job():
    cluster = Job.model_validate(EMULATED).resolved_cluster()
    assert cluster.virtual is not None
    assert cluster.virtual.mean_compute_seconds(100) == pytest.approx(0.007)
    assert cluster.virtual.one_way_seconds + cluster.virtual.link_seconds(1.25e9) == pytest.approx(1.00002)
    assert cluster.oversubscription(64) == 1.0


def test_links_between_two_ranks_are_those_of_collectives_unless_stated():
    slower = {**MACHINE, "message_latency": "1ms", "message_bandwidth": "1Gbit/s"}
    same, own = (
        Job.model_validate({**EMULATED, "cluster": {"nodes": [1, 64], "machine": machine}}).resolved_cluster()
        for machine in (MACHINE, slower)
    )
    assert same.virtual is not None
    assert own.virtual is not None
    assert (own.virtual.latency, own.virtual.bytes_per_second) == (
        same.virtual.latency,
        same.virtual.bytes_per_second,
    )
    assert own.virtual.one_way_seconds + own.virtual.link_seconds(1.25e8) == pytest.approx(1.001)
    assert same.virtual.one_way_seconds + same.virtual.link_seconds(1.25e8) == pytest.approx(0.10002)


def test_an_emulated_job_needs_described_machines_and_no_other_job_has_them():
    with pytest.raises(ValidationError, match=r"probe.kind = 'emulated' needs \[cluster.machine\]"):
        Job.model_validate({**EMULATED, "cluster": {"nodes": [1, 64]}})
    with pytest.raises(ValidationError, match=r"\[cluster.machine\] describes emulated nodes"):
        Job.model_validate({**EMULATED, "probe": {}})


@pytest.mark.parametrize("half", [{"restart": "2m"}, {"time_between_failures": "5h"}])
def test_failures_are_reported_whole(half):
    machine = {**MACHINE, **half}
    with pytest.raises(ValidationError, match="time_between_failures and restart need each other"):
        Job.model_validate({**EMULATED, "cluster": {"machine": machine}})


def test_what_is_emulated_depends_on_the_description_and_not_on_what_emulates_it():
    job = Job.model_validate(EMULATED)
    other = {**EMULATED, "cluster": {"nodes": [1, 64], "machine": {**MACHINE, "jitter": 0.3}}}
    assert job.fingerprint("code", "cpu") == job.fingerprint("code", "gpu")
    assert job.fingerprint("code", "cpu") != Job.model_validate(other).fingerprint("code", "cpu")


AUTO = {
    **BASE,
    "probe": {"kind": "auto"},
    "cluster": {"nodes": [1, 2, 64], "nodes_at_hand": 4, "machine": MACHINE},
}


def test_up_to_the_nodes_at_hand_ranks_are_real_and_emulated_beyond():
    cluster = Job.model_validate(AUTO).resolved_cluster()
    settings = {"batch_size": 64, "learning_rate": 0.1, "strategy": "all_reduce"}
    real, emulated = (Configuration({"nodes": nodes, **settings}) for nodes in (2, 64))
    assert not cluster.emulates(real)
    assert cluster.emulates(emulated)
    assert cluster.at_hand is not None
    assert cluster.at_hand.node_counts == (1, 2)
    assert cluster.carrier_of(real) is cluster.at_hand
    assert cluster.carrier_of(emulated) is cluster
    assert Job.model_validate(EMULATED).resolved_cluster().emulates(real)
    assert not Job.model_validate(BASE).resolved_cluster().emulates(emulated)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"cluster": {"nodes": [1, 64], "machine": MACHINE}}, "needs cluster.nodes_at_hand"),
        ({"cluster": {"nodes": [1, 64], "nodes_at_hand": 1}}, r"'auto' needs \[cluster.machine\]"),
        ({"probe": {"kind": "emulated"}}, "nodes_at_hand needs probe.kind = 'auto', which is 'emulated'"),
        (
            {"cluster": {"nodes": [8, 64], "nodes_at_hand": 4, "machine": MACHINE}},
            "below the smallest number of nodes, 8",
        ),
    ],
)
def test_nodes_at_hand_and_a_description_go_together(changed, words):
    with pytest.raises(ValidationError, match=words):
        Job.model_validate({**AUTO, **changed})


def test_what_is_partly_real_depends_on_the_hardware():
    job = Job.model_validate(AUTO)
    assert job.fingerprint("code", "cpu") != job.fingerprint("code", "gpu")


def test_as_many_nodes_are_there_at_once_as_the_largest_configuration_takes_unless_stated():
    cluster = {"nodes": [1, 2, 4]}
    assert Job.model_validate({**BASE, "cluster": cluster}).resolved_cluster().nodes_at_once == 4
    stated = Job.model_validate({**BASE, "cluster": {**cluster, "capacity": 6}})
    assert stated.resolved_cluster().nodes_at_once == 6
    assert Job.model_validate(AUTO).resolved_cluster().nodes_at_once == 4


@pytest.mark.parametrize(
    ("job", "words"),
    [
        (
            {**BASE, "cluster": {"nodes": [1, 4], "capacity": 3}},
            "cluster.capacity = 3 is below the largest number of nodes of a configuration, 4: set 4 or",
        ),
        ({**BASE, "cluster": {"nodes": [1, 4], "capacity": 0}}, "greater than 0"),
        (
            {**EMULATED, "cluster": {**EMULATED["cluster"], "capacity": 64}},
            "probe.kind = 'emulated' uses none: remove it",
        ),
    ],
)
def test_nodes_at_once_hold_every_configuration(job, words):
    with pytest.raises(ValidationError, match=words):
        Job.model_validate(job)


def test_what_is_emulated_holds_no_nodes():
    cluster = Job.model_validate(AUTO).resolved_cluster()
    settings = {"batch_size": 64, "learning_rate": 0.1, "strategy": "all_reduce"}
    real, emulated = (Configuration({"nodes": nodes, **settings}) for nodes in (2, 64))
    assert (cluster.nodes_held(real), cluster.nodes_held(emulated)) == (2, 0)


def test_nodes_at_once_are_no_part_of_what_curves_depend_on():
    jobs = [Job.model_validate({**BASE, "cluster": {"nodes": [1], **more}}) for more in ({}, {"capacity": 8})]
    assert len({job.fingerprint("code", "cpu") for job in jobs}) == 1
