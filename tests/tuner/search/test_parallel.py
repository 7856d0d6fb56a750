"""Several slices under way: nodes, time, leases, ends; and that one at a time is as it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

from tests.tuner.search.concurrent import ConcurrentDying, ConcurrentProber, concurrent_prober
from tests.tuner.search.scripted import (
    SMALL_SPACE,
    Killed,
    Scripted,
    go_on,
    small_world,
    start,
    trial_states,
)
from tests.tuner.search.synthetic import Law, random_law
from tests.tuner.search.world import World, configuration, make_job
from tuner.domain.measurement import Measurement, Outcome, Purpose
from tuner.probes import ProbeHandle, Until
from tuner.search.believer import Believer
from tuner.search.model_policy import ModelPolicy
from tuner.search.optuna_policy import OptunaPolicy
from tuner.search.policy import Ask, Decision, Policy, Stop, StopKind, Wait
from tuner.search.runs import run_key
from tuner.search.spans import covered
from tuner.search.state import SearchState

GOOD = configuration(1, 32, 0.08)
OTHER = configuration(1, 128, 0.08)
THIRD = configuration(1, 512, 0.08)
LAW = Law(samples=8e4, seconds_per_sample=1e-3)


def wide_world(
    folder: Path, *, capacity: int | None = 4, sampler: str = "random", **sections: object
) -> World:
    stated: dict[str, object] = {
        "cluster": {"nodes": [1, 2, 4], "capacity": capacity},
        "space": SMALL_SPACE,
        "budget": {"time": "20m"},
        "baseline": None,
        **sections,
    }
    return World(folder, job=make_job(**stated), law=replace(LAW), sampler=sampler)  # type: ignore[arg-type]


class Watching:
    """Passes a policy's decisions on, and sees that none is of what is under way or has no room."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.concurrently: list[int] = []

    def decide(self, state: SearchState) -> Decision:
        decision = self.policy.decide(state)
        action = decision.action
        configuration = getattr(action, "configuration", None)
        if hasattr(action, "probe_id"):
            assert action.probe_id not in state.capacity.probe_ids
            probe = next(p for p in state.probes if p.probe_id == action.probe_id)
            configuration = probe.configuration
        if configuration is not None:
            assert state.fits(configuration)
            if getattr(action, "purpose", None) is not Purpose.TIMING:
                assert run_key(state.job, configuration) not in state.keys_under_way
        if not isinstance(action, Wait | Stop):
            self.concurrently.append(len(state.capacity.under_way))
        return decision


def make_model() -> Policy:
    return ModelPolicy(Believer(seed=1))


#: Nodes, batch, purpose and slices of each probe of one search that has one slice in flight at a time.
BEFORE = [
    (1, 64, "statistics", 2),
    (2, 32, "statistics", 2),
    (2, 512, "statistics", 1),
    (2, 128, "training", 2),
    (2, 32, "statistics", 9),
]
POLICIES: list[Callable[[], Policy]] = [make_model, OptunaPolicy]


@pytest.mark.parametrize("make", POLICIES)
@pytest.mark.parametrize(("parallel", "capacity"), [(2, 4), (4, 4), (3, 6)])
def test_never_are_more_nodes_held_than_there_are_nor_a_run_started_twice(
    tmp_path: Path, make: Callable[[], Policy], parallel: int, capacity: int
) -> None:
    world = wide_world(tmp_path, capacity=capacity)
    prober, policy = concurrent_prober(world), Watching(make())
    stop = world.search(policy, prober=prober, parallel=parallel).run().stop
    assert stop.kind is StopKind.ARRIVED
    assert max(prober.held) <= capacity
    assert 1 <= max(policy.concurrently) < parallel
    assert world.texts("warning") == []


@pytest.mark.parametrize("goal", [{"trainings": 5}, {"minimize": "dollars"}])
def test_other_goals_are_reached_with_several_at_once_too(tmp_path: Path, goal: dict[str, object]) -> None:
    cluster = {"nodes": [1, 2], "capacity": 4, "dollars_per_node_hour": 3.0}
    world = wide_world(tmp_path, cluster=cluster, goal=goal)
    prober, policy = concurrent_prober(world), Watching(ModelPolicy())
    result = world.search(policy, prober=prober, parallel=3).run()
    stop = result.stop
    assert stop.kind in (StopKind.ARRIVED, StopKind.NO_GAIN)
    assert result.beliefs is not None
    assert max(prober.held) <= 4
    assert prober.under == {}


def test_one_at_a_time_a_seeded_search_does_what_it_did_before_there_were_several(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    world.search(ModelPolicy()).run()
    done = [
        (p.configuration.nodes, p.configuration.batch_size, p.purpose.value, len(p.slices))
        for p in world.probes()
    ]
    assert done == BEFORE


@pytest.mark.parametrize("make", POLICIES)
def test_one_slot_on_a_clock_of_events_is_one_at_a_time(tmp_path: Path, make: Callable[[], Policy]) -> None:
    alone, single = wide_world(tmp_path / "a"), wide_world(tmp_path / "b")
    alone.search(make()).run()
    single.search(make(), prober=concurrent_prober(single)).run()

    def facts(world: World) -> list[object]:
        return [
            (p.configuration, p.outcome, [replace(m, checkpoint=None) for m in p.slices])
            for p in world.probes()
        ]

    assert facts(alone) == facts(single)
    state = single.state()
    assert state.elapsed_seconds == state.spent.seconds


def test_time_counts_once_and_every_slice_is_charged_its_own(tmp_path: Path) -> None:
    world = wide_world(tmp_path)
    prober, began = concurrent_prober(world), world.clock.now
    world.search(ModelPolicy(), prober=prober, parallel=4).run()
    state = world.state()
    assert state.spent.seconds == pytest.approx(prober.charged_seconds)
    assert state.elapsed_seconds == pytest.approx(world.clock.now - began)
    assert state.elapsed_seconds < 0.9 * state.spent.seconds


@pytest.mark.slow
def test_several_at_once_arrive_sooner(tmp_path: Path) -> None:
    """The leader's own training takes most of the time: over 16 laws 0.31 to 1.14, geometric mean 0.87."""
    ratios = []
    for seed in range(8):
        passed = []
        for parallel in (1, 4):
            world = wide_world(tmp_path / f"{parallel}-{seed}", capacity=8)
            world.law = world.prober.law = random_law(seed)
            policy = ModelPolicy(Believer(seed=seed))
            world.search(policy, prober=concurrent_prober(world), parallel=parallel).run()
            passed.append(world.state().elapsed_seconds)
        ratios.append(passed[1] / passed[0])
    assert np.exp(np.log(ratios).mean()) < 1.0, ratios


def test_a_time_budget_is_of_time_that_passes_and_ends_what_is_under_way(tmp_path: Path) -> None:
    world = wide_world(tmp_path, capacity=8, budget={"time": "40s"}, goal={"target": 0.999})
    world.law.samples = 1e7
    prober, began = concurrent_prober(world), world.clock.now
    stop = world.search(OptunaPolicy(), prober=prober, parallel=4).run().stop
    assert stop.reason == "the time budget of 40 s is used up"
    state = world.state()
    assert state.elapsed_seconds == pytest.approx(world.clock.now - began)
    assert 40.0 <= state.elapsed_seconds < 52.0  # no further than the end of the slice that ends next
    assert state.spent.seconds > 1.5 * state.elapsed_seconds
    assert state.spent.seconds == pytest.approx(prober.charged_seconds)
    assert prober.under == {}
    assert all(probe.lease is None for probe in world.probes())
    assert all(p.outcome.can_continue or not p.outcome.is_fault for p in world.probes())


def test_a_run_that_was_cut_off_is_paid_and_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    world = wide_world(tmp_path)
    prober = concurrent_prober(world)
    end = Stop(kind=StopKind.BUDGET, reason="told to")
    reported = Scripted(start(GOOD, 4.0), start(OTHER, 40.0), end)
    # The first ends, then all is over; the other has been under way for as long.
    world.search(reported, prober=prober, parallel=2).run()
    done, part = world.probes()
    assert (done.outcome, part.outcome) == (Outcome.PAUSED, Outcome.PAUSED)
    assert part.slices[0].charged_seconds == pytest.approx(done.slices[0].charged_seconds)
    assert (part.slices[0].samples, part.slices[0].training_seconds) == (0, 0.0)
    assert part.slices[0].shared_seconds == pytest.approx(part.slices[0].charged_seconds)
    assert run_key(world.job, OTHER) not in world.state().runs
    assert world.state().slice_seconds < 2.0
    world.search(Scripted(start(OTHER, 50.0)), prober=prober, owner="later").run()
    (_, again) = world.probes()
    assert again.probe_id == part.probe_id
    assert again.slices[1].samples > 0


def test_whatever_ends_the_search_ends_all_slices_and_gives_their_leases_back(tmp_path: Path) -> None:
    world = wide_world(tmp_path)

    class Interrupted(ConcurrentProber):
        def poll(self, handle: ProbeHandle) -> Measurement:
            raise KeyboardInterrupt

    prober = Interrupted(law=world.law, clock=world.clock)
    with pytest.raises(KeyboardInterrupt):
        world.search(Scripted(start(GOOD), start(OTHER)), prober=prober, parallel=2).run()
    assert prober.cancelled == 2
    assert [(p.lease, p.slices) for p in world.probes()] == [(None, ()), (None, ())]


@pytest.mark.slow
@pytest.mark.parametrize("left", [3, 5, 8])
def test_a_search_killed_with_several_under_way_goes_on_from_each_one_s_checkpoint(
    tmp_path: Path, left: int
) -> None:
    world = wide_world(tmp_path)
    dying = ConcurrentDying(law=world.law, clock=world.clock, cluster=world.cluster)
    dying.left = left
    with pytest.raises(Killed):
        world.search(ModelPolicy(), prober=dying, parallel=3).run()
    before = world.probes()
    world.clock.sleep(61.0)
    prober = concurrent_prober(world)
    stop = world.search(ModelPolicy(), prober=prober, owner="second", parallel=3).run().stop
    assert stop.kind is StopKind.ARRIVED
    after = {p.probe_id: p for p in world.probes()}
    for probe in before:
        assert after[probe.probe_id].slices[: len(probe.slices)] == probe.slices
    # What had begun and was lost is taken up in its folder, never begun a second time.
    pairs = [(p.configuration, p.purpose is Purpose.TIMING) for p in after.values()]
    assert len(pairs) == len(set(pairs))
    assert any(steps > 0 for steps in prober.resumed_at_steps)


def test_a_lease_that_one_slice_loses_costs_the_others_nothing(tmp_path: Path) -> None:
    world = wide_world(tmp_path)

    class Taken(ConcurrentProber):
        def poll(self, handle: ProbeHandle) -> Measurement:
            if len(self.started) == 2 and not world.probes()[0].slices and self.clock.now < 2000:
                self.clock.now += 1000.0
                world.ledger.take_probe(1, owner="another", lease_seconds=5.0)
            return super().poll(handle)

    prober = Taken(law=world.law, clock=world.clock, cluster=world.cluster)
    stop = world.search(Scripted(start(GOOD, 9.0), start(OTHER)), prober=prober, parallel=2).run().stop
    assert stop.reason == "the script is over"
    assert any("was taken by another" in text for text in world.texts("warning"))
    assert len(world.probes()[1].slices) == 1


def test_leases_of_all_slices_are_renewed(tmp_path: Path) -> None:
    world = wide_world(tmp_path)

    class Dawdling(ConcurrentProber):
        polls = 0

        def poll(self, handle: ProbeHandle) -> Measurement:
            self.polls += 1
            measurement = super().poll(handle) if self.polls > 8000 else None
            return measurement or Measurement(
                configuration=handle.configuration, purpose=handle.purpose, outcome=Outcome.RUNNING
            )

    prober = Dawdling(law=world.law, clock=world.clock, cluster=world.cluster)
    world.search(Scripted(start(GOOD), start(OTHER)), prober=prober, parallel=2).run()
    assert world.clock.now > 1000.0 + 2 * 60.0
    assert [len(p.slices) for p in world.probes()] == [1, 1]
    assert world.texts("warning") == []


def test_what_optuna_suggests_waits_until_it_has_capacity(tmp_path: Path) -> None:
    world = wide_world(tmp_path)
    ask = Ask(until=Until(training_seconds=3.0), reason="told to")
    prober = concurrent_prober(world)

    class Asking:
        def decide(self, state: SearchState) -> Decision:
            enough = Stop(kind=StopKind.NO_GAIN, reason="a dozen is enough")
            return Decision(action=enough if len(state.probes) >= 12 else ask)

    world.search(Asking(), prober=prober, parallel=4).run()
    assert len(world.probes()) >= 12
    assert max(prober.held) <= 4
    asked = [trial.number for trial in world.optuna_study.get_trials()]
    assert sorted(p.trial_number or 0 for p in world.probes()) == asked


def test_what_was_asked_for_and_never_had_capacity_ends_with_the_search(tmp_path: Path) -> None:
    world = wide_world(tmp_path, cluster={"nodes": [4], "capacity": 4})
    ask = Ask(until=Until(training_seconds=3.0), reason="told to")
    end = Stop(kind=StopKind.BUDGET, reason="told to")
    world.search(Scripted(ask, ask, end), prober=concurrent_prober(world), parallel=2).run()
    (probe,) = world.probes()
    assert probe.slices[0].samples == 0  # it was cut off when the search was over
    assert trial_states(world) == [TrialState.RUNNING, TrialState.PRUNED]


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_optuna_s_samplers_never_suggest_what_is_under_way(tmp_path: Path, sampler: str) -> None:
    world = wide_world(tmp_path, sampler=sampler, goal={"trainings": 5}, budget={"time": "25m", "probes": 16})
    prober = concurrent_prober(world)
    world.search(Watching(OptunaPolicy()), prober=prober, parallel=4).run()
    assert max(prober.held) <= 4
    assert TrialState.COMPLETE in trial_states(world)
    chosen = [configuration for configuration, _ in prober.started]
    assert len(set(chosen)) > 8


def test_ranks_of_several_slices_that_share_cores_are_marked(tmp_path: Path) -> None:
    world = wide_world(tmp_path, capacity=4)  # on two cores
    world.search(
        Scripted(start(GOOD), start(OTHER), start(THIRD), go_on(1, 9.0)),
        prober=concurrent_prober(world),
        parallel=3,
    ).run()
    crowded = {m.configuration: m.oversubscribed for p in world.probes() for m in p.slices[:1]}
    assert crowded == {GOOD: True, OTHER: True, THIRD: True}
    world = wide_world(tmp_path / "two", capacity=4)
    world.search(Scripted(start(GOOD), start(OTHER)), prober=concurrent_prober(world), parallel=2).run()
    assert not any(m.oversubscribed for p in world.probes() for m in p.slices)


def test_progress_and_ends_say_of_which_probe_they_are(tmp_path: Path) -> None:
    world = wide_world(tmp_path)
    world.search(
        Scripted(start(GOOD, 9.0), start(OTHER, 4.0)), prober=concurrent_prober(world), parallel=2
    ).run()
    reported = [(e.kind, e.probe_id) for e in world.events if e.kind in ("decision", "slice")]
    assert reported == [("decision", 1), ("decision", 2), ("slice", 2), ("slice", 1)]
    assert all(event.num_slots == 2 for event in world.events)


SPANS = st.lists(
    st.tuples(st.floats(0, 100), st.floats(0, 50)).map(lambda pair: (pair[0], pair[0] + pair[1])), max_size=8
)


@given(SPANS, SPANS)
def test_what_spans_cover_counts_once(one: list[tuple[float, float]], two: list[tuple[float, float]]) -> None:
    lengths = [until - begin for begin, until in one]
    assert max(lengths, default=0.0) - 1e-9 <= covered(one) <= sum(lengths) + 1e-9
    assert covered([*one, *one]) == pytest.approx(covered(one))
    assert covered(one) - 1e-9 <= covered([*one, *two]) <= covered(one) + covered(two) + 1e-9
