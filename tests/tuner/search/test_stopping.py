"""Stopping rules that need no model: budgets and faults."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tuner.search.world import EPOCH_SAMPLES, configuration, make_cluster, make_job
from tuner.domain.cluster import Cluster, Machine
from tuner.domain.ledger import ProbeRecord
from tuner.domain.measurement import CurvePoint, Measurement, Outcome, Purpose
from tuner.search.capacity import Capacity, UnderWay
from tuner.search.policy import Stop, StopKind
from tuner.search.state import SearchState, read_state
from tuner.search.stopping import ended_by_fault, limit_reached, may_start, seconds_left

#: A code for each way in which the probes of these tests stand.
OUTCOMES = {
    "r": Outcome.REACHED,
    "s": Outcome.STOPPED,
    "d": Outcome.DIVERGED,
    "m": Outcome.OUT_OF_MEMORY,
    "p": Outcome.PAUSED,
    "F": Outcome.FAILED,
    "T": Outcome.TIMED_OUT,
}
ONE, FOUR = configuration(nodes=1), configuration(nodes=4)


def probe(probe_id: int, outcome: Outcome, *, seconds: float = 0.0, dollars: float = 0.0) -> ProbeRecord:
    """A training probe with one slice, which saw some samples."""
    what = configuration(batch_size=16 * probe_id)
    value = 0.9 if outcome is Outcome.REACHED else 0.5
    slice_seen = Measurement(
        configuration=what,
        purpose=Purpose.TRAINING,
        outcome=outcome,
        curve=(CurvePoint(training_seconds=1.0, step=1, samples=64, value=value),),
        samples=64,
        charged_seconds=seconds,
        charged_dollars=dollars,
    )
    return ProbeRecord(
        probe_id=probe_id,
        study_id=1,
        configuration=what,
        purpose=Purpose.TRAINING,
        trial_number=None,
        slices=(slice_seen,),
        outcome=outcome,
        reason="",
        lease=None,
        created_at=0.0,
    )


def probes_of(codes: str) -> list[ProbeRecord]:
    """Probes 1, 2, ... that stand as the codes say."""
    return [probe(number, OUTCOMES[code]) for number, code in enumerate(codes, start=1)]


def state_of(
    *probes: ProbeRecord,
    budget: Mapping[str, Any] | None = None,
    capacity: Capacity | None = None,
    dollars_per_second: float = 0.01,
) -> SearchState:
    """A search with these probes, on nodes of this price."""
    job = make_job(
        budget=dict(budget or {}),
        cluster={"nodes": [1, 2, 4], "dollars_per_node_hour": 3600.0 * dollars_per_second},
    )
    return read_state(job, make_cluster(job), probes, EPOCH_SAMPLES, capacity)


def running(seconds: float = 0.0, *, expected_seconds: float = 0.0) -> Capacity:
    """A slice on two nodes, under way for so long."""
    slice_running = UnderWay(
        probe_id=99,
        configuration=configuration(nodes=2),
        purpose=Purpose.TRAINING,
        num_nodes=2,
        elapsed_seconds=seconds,
        expected_seconds=expected_seconds,
    )
    return Capacity(num_slots=2, under_way=(slice_running,), elapsed_seconds=seconds)


def test_a_search_without_budget_or_faults_has_no_limit() -> None:
    state = state_of(probe(1, Outcome.REACHED, seconds=1e6, dollars=1e6))
    assert limit_reached(state) is None
    assert may_start(state)
    assert seconds_left(state, ONE) == math.inf


def test_a_search_ends_when_its_time_is_used_up_to_the_second() -> None:
    budget = {"time": "10s"}
    assert limit_reached(state_of(probe(1, Outcome.PAUSED, seconds=9.99), budget=budget)) is None
    spent = state_of(probe(1, Outcome.PAUSED, seconds=10.0), budget=budget)
    assert limit_reached(spent) == Stop(kind=StopKind.BUDGET, reason="the time budget of 10 s is used up")


def test_time_under_way_counts_before_it_is_charged() -> None:
    past = probe(1, Outcome.PAUSED, seconds=6.0)
    assert limit_reached(state_of(past, budget={"time": "10s"}, capacity=running(3.9))) is None
    assert limit_reached(state_of(past, budget={"time": "10s"}, capacity=running(4.0))) is not None


def test_a_search_ends_when_its_dollars_are_used_up_to_the_cent() -> None:
    budget = {"dollars": 2.5}
    assert limit_reached(state_of(probe(1, Outcome.PAUSED, dollars=2.49), budget=budget)) is None
    spent = state_of(probe(1, Outcome.PAUSED, dollars=2.5), budget=budget)
    assert limit_reached(spent) == Stop(kind=StopKind.BUDGET, reason="the budget of $2.5 is used up")


def test_node_hours_are_counted_for_every_node_also_in_flight() -> None:
    budget = {"node_hours": 0.01}
    past = probe(1, Outcome.PAUSED, seconds=30.0)
    assert limit_reached(state_of(past, budget=budget, capacity=running(2.9))) is None
    stop = limit_reached(state_of(past, budget=budget, capacity=running(3.0)))
    assert stop == Stop(kind=StopKind.BUDGET, reason="the budget of 0.01 node hours is used up")
    assert seconds_left(state_of(past, budget=budget), FOUR) == pytest.approx(1.5)
    committed = state_of(past, budget=budget, capacity=running(1.0, expected_seconds=2.0))
    assert seconds_left(committed, ONE) == pytest.approx(2.0)


def test_dollars_in_flight_count_before_they_are_charged() -> None:
    past = probe(1, Outcome.PAUSED, dollars=2.4)
    assert limit_reached(state_of(past, budget={"dollars": 2.5}, capacity=running(4.9))) is None
    assert limit_reached(state_of(past, budget={"dollars": 2.5}, capacity=running(5.0))) is not None


@pytest.mark.parametrize(
    ("codes", "ends"),
    [("s", False), ("ss", True), ("sss", True), ("rd", True), ("ps", False), ("sp", False), ("m", False)],
)
def test_a_search_ends_with_its_last_probe_unless_one_can_go_on(codes: str, ends: bool) -> None:
    stop = limit_reached(state_of(*probes_of(codes), budget={"probes": 2}))
    expected = Stop(kind=StopKind.BUDGET, reason="the budget of 2 probes is used up")
    assert stop == (expected if ends else None)


def test_a_search_waits_for_what_is_under_way_of_its_last_probe() -> None:
    assert limit_reached(state_of(*probes_of("ss"), budget={"probes": 2}, capacity=running())) is None


@pytest.mark.parametrize(("codes", "may"), [("", True), ("p", True), ("ps", False), ("psF", False)])
def test_a_probe_may_start_while_fewer_than_the_budget_were_started(codes: str, may: bool) -> None:
    assert may_start(state_of(*probes_of(codes), budget={"probes": 2})) is may


@pytest.mark.parametrize(
    ("codes", "reason"),
    [
        ("", None),
        ("F", None),
        ("FF", None),
        ("FFF", "3 of 3 ended probes failed"),
        ("FTF", "3 of 3 ended probes failed"),
        ("mFFF", "3 of 4 ended probes failed"),
        ("FFFd", None),
        ("FFmF", None),
        # So do half of them, once six have ended.
        ("FmFmF", None),
        ("FmFdFm", "3 of 6 ended probes failed"),
        ("mFmTFd", "3 of 6 ended probes failed"),
        ("FmFmFmm", None),
        # Divergence and exhausted memory are what training does, not faults.
        ("dddmmm", None),
    ],
)
def test_a_search_without_scores_ends_after_three_faults_in_a_row_or_half_of_six(
    codes: str, reason: str | None
) -> None:
    expected = None if reason is None else Stop(kind=StopKind.FAULTS, reason=reason)
    assert limit_reached(state_of(*probes_of(codes))) == expected


@pytest.mark.parametrize("codes", ["sFFF", "rrrrFFF", "FpFpF", "FsFsFs", "FFFFFFp", "pTTTTTTTT"])
def test_faults_end_no_search_in_which_a_healthy_configuration_has_scores(codes: str) -> None:
    assert limit_reached(state_of(*probes_of(codes))) is None


def lost(probe_id: int) -> ProbeRecord:
    """A probe that lost its nodes again and again."""
    failed = probe(probe_id, Outcome.FAILED)
    return replace(failed, slices=(replace(failed.slices[0], infrastructure_fault=True),))


def test_nodes_that_are_lost_again_and_again_end_every_search() -> None:
    healthy = probe(1, Outcome.PAUSED)
    assert limit_reached(state_of(healthy, lost(2), lost(3))) is None
    assert limit_reached(state_of(healthy, lost(2), probe(3, Outcome.FAILED), lost(4))) is None
    stop = limit_reached(state_of(healthy, lost(2), lost(3), lost(4)))
    words = "the last 3 probes failed because of the infrastructure, such as nodes or ports"
    assert stop == Stop(kind=StopKind.FAULTS, reason=words)
    last = lost(4)
    last = replace(last, slices=(replace(last.slices[0], error="no trainer came"),))
    stop = limit_reached(state_of(healthy, lost(2), lost(3), last))
    assert stop == Stop(kind=StopKind.FAULTS, reason=f"{words}: no trainer came")


@pytest.mark.parametrize(
    ("codes", "past", "may"),
    [
        ("pFFFFF", set(), True),
        ("pFFFFFF", set(), False),
        ("pFFFFFF", {2}, True),
        ("pFFFsFFF", set(), True),
    ],
)
def test_no_new_configuration_is_tried_after_six_that_failed_in_a_row(
    codes: str, past: set[int], may: bool
) -> None:
    assert may_start(replace(state_of(*probes_of(codes)), past_faults=frozenset(past))) is may


@pytest.mark.parametrize(
    ("codes", "past", "reason"),
    [
        ("FFF", {1, 2, 3}, None),
        ("FFF", {1}, None),
        ("FFFFF", {1, 2, 3}, None),
        ("FFFFFF", {1, 2, 3}, "3 of 3 ended probes failed"),
        ("FmFmFm", {1}, None),
        ("FFF", {7}, "3 of 3 ended probes failed"),
    ],
)
def test_faults_before_a_restart_are_not_held_against_the_search(
    codes: str, past: set[int], reason: str | None
) -> None:
    stop = limit_reached(replace(state_of(*probes_of(codes)), past_faults=frozenset(past)))
    assert (stop and stop.reason) == reason


def test_only_failures_and_timeouts_are_ends_by_fault() -> None:
    assert ended_by_fault(state_of(*probes_of("rsFdTmp"))) == {3, 5}
    assert ended_by_fault(state_of()) == frozenset()


def test_what_was_forgiven_ends_no_search() -> None:
    state = state_of(*probes_of("FTFF"))
    assert limit_reached(state) is not None
    assert limit_reached(replace(state, past_faults=ended_by_fault(state))) is None


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        ({}, math.inf),
        # 6 s of 10 s have passed.
        ({"time": "10s"}, 4.0),
        ({"time": "6.5s"}, 0.5),
        ({"time": "6s"}, 0.0),
        ({"time": "5s"}, 0.0),
        # 1 of 3 dollars is spent; four nodes cost 4 cents a second.
        ({"dollars": 3.0}, 50.0),
        ({"dollars": 1.01}, 0.25),
        ({"dollars": 1.0}, 0.0),
        ({"dollars": 0.5}, 0.0),
        # Both: whichever ends first.
        ({"time": "10s", "dollars": 3.0}, 4.0),
        ({"time": "100s", "dollars": 3.0}, 50.0),
    ],
)
def test_seconds_left_are_those_until_time_or_dollars_run_out(
    budget: Mapping[str, Any], expected: float
) -> None:
    spent = probe(1, Outcome.PAUSED, seconds=6.0, dollars=1.0)
    assert seconds_left(state_of(spent, budget=budget), FOUR) == pytest.approx(expected)


def test_more_nodes_use_the_dollars_up_sooner() -> None:
    state = state_of(budget={"dollars": 2.0})
    assert seconds_left(state, ONE) == pytest.approx(200.0)
    assert seconds_left(state, FOUR) == pytest.approx(50.0)


def test_machines_that_are_free_use_no_dollars_up() -> None:
    machines = {
        "free": Machine(cores=4, dollars_per_hour=0.0),
        "paid": Machine(cores=4, dollars_per_hour=36.0),
    }
    cluster = Cluster(node_counts=(1, 2, 4), machines=machines)
    priced = replace(state_of(budget={"dollars": 2.0}), cluster=cluster)
    assert seconds_left(priced, ONE.replaced(machine="free")) == math.inf
    assert seconds_left(priced, ONE.replaced(machine="paid")) == pytest.approx(200.0)
    timed = replace(state_of(budget={"dollars": 2.0, "time": "10s"}), cluster=cluster)
    assert seconds_left(timed, ONE.replaced(machine="free")) == 10.0


def test_dollars_are_set_aside_for_what_is_under_way() -> None:
    # Two nodes for 20 s cost 0.40 dollars; that is due whether 5 or 20 s of it have passed.
    for seconds in (5.0, 20.0):
        capacity = running(seconds, expected_seconds=20.0)
        state = state_of(budget={"dollars": 2.0}, capacity=capacity)
        assert seconds_left(state, FOUR) == pytest.approx(1.6 / 0.04)
    overdue = state_of(budget={"dollars": 2.0}, capacity=running(25.0))
    assert seconds_left(overdue, FOUR) == pytest.approx(1.5 / 0.04)


@given(
    time=st.floats(1.0, 1e5),
    dollars=st.floats(0.01, 1e3),
    seconds=st.floats(0.0, 1e5),
    spent=st.floats(0.0, 1e3),
    under_way=st.floats(0.0, 1e4),
    price=st.floats(1e-5, 1.0),
)
def test_what_uses_its_seconds_left_keeps_within_every_budget(
    time: float, dollars: float, seconds: float, spent: float, under_way: float, price: float
) -> None:
    state = state_of(
        probe(1, Outcome.PAUSED, seconds=seconds, dollars=spent),
        budget={"time": f"{time:f}s", "dollars": dollars},
        dollars_per_second=price,
        capacity=running(under_way),
    )
    left = seconds_left(state, FOUR)
    assert left >= 0.0
    if left > 0.0:
        assert limit_reached(state) is None
        assert seconds + under_way + left <= time * (1 + 1e-6)
        assert spent + 2 * price * under_way + 4 * price * left <= dollars * (1 + 1e-6)


def test_what_runs_before_takes_its_own_dollars_and_nodes() -> None:
    one = FOUR.replaced(nodes=1)
    after = one, 40.0
    in_time = state_of(budget={"time": "100s"})
    assert seconds_left(in_time, FOUR, after=after) == pytest.approx(60.0)
    by_price = state_of(budget={"dollars": 4.0}, dollars_per_second=0.01)
    assert seconds_left(by_price, FOUR) == pytest.approx(100.0)
    assert seconds_left(by_price, FOUR, after=after) == pytest.approx(90.0)
    by_nodes = state_of(budget={"node_hours": 400.0 / 3600.0})
    assert seconds_left(by_nodes, FOUR, after=after) == pytest.approx(90.0)
    assert seconds_left(by_nodes, one, after=(FOUR, 1000.0)) == 0.0
