"""What every policy must do; a test class of each policy inherits these."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.tuner.search.synthetic import Law
from tests.tuner.search.world import World, make_job
from tuner.domain.measurement import Outcome, Purpose
from tuner.search.policy import Abandon, Ask, Continue, Decision, Policy, Start, Stop, StopKind

_MOST_DECISIONS = 400

#: Few candidates, so that a decision takes tens of milliseconds; half the ranks' shares are below one sample.
SPACE = {
    "batch_size": [2, 64, 256],
    "learning_rate": {"low": 1e-2, "high": 1.0, "levels_per_decade": 4},
}


class PolicyConformance:
    """Contract of `Policy`: subclasses say how one is made."""

    law = Law(samples=8e4, seconds_per_sample=1e-3)

    def make(self, world: World) -> Policy:
        """The policy under test, as a new process would make it."""
        raise NotImplementedError

    @pytest.fixture
    def world(self, tmp_path: Path) -> World:
        job = make_job(
            cluster={"nodes": [1, 2, 4]},
            space=SPACE,
            budget={"time": "15m"},
            baseline={"nodes": 1, "batch_size": 64, "learning_rate": 0.05},
        )
        return World(tmp_path, job=job, law=replace(self.law))

    def followed(self, world: World, policy: Policy) -> list[Decision]:
        """All decisions of a search, the last one a stop."""
        decisions: list[Decision] = []

        class Recording:
            def decide(self, state: object) -> Decision:
                assert len(decisions) < _MOST_DECISIONS, "the policy goes on without end"
                decisions.append(policy.decide(state))  # type: ignore[arg-type]
                return decisions[-1]

        world.search(Recording()).run()
        return decisions

    def test_it_brings_a_run_to_the_target_and_stops(self, world: World) -> None:
        decisions = self.followed(world, self.make(world))
        stop = decisions[-1].action
        assert isinstance(stop, Stop)
        assert stop.kind is StopKind.ARRIVED
        assert [p.outcome for p in world.probes()].count(Outcome.REACHED) == 1

    def test_it_never_probes_what_is_infeasible(self, world: World) -> None:
        self.followed(world, self.make(world))
        space = world.job.search_space()
        assert world.prober.started
        assert all(space.is_feasible(c) for c, _ in world.prober.started)

    def test_it_decides_from_the_state_alone(self, world: World) -> None:
        """Another one, made anew at every decision, decides alike."""
        decisions: list[Decision] = []
        make = self.make

        class Restarting:
            def decide(self, state: object) -> Decision:
                first = make(world).decide(state)  # type: ignore[arg-type]
                again = make(world).decide(state)  # type: ignore[arg-type]
                assert first.action == again.action
                decisions.append(first)
                return first

        stop = world.search(Restarting()).run().stop
        assert stop.kind is StopKind.ARRIVED
        assert len(decisions) > 2

    def test_after_its_end_it_stops_again(self, world: World) -> None:
        policy = self.make(world)
        first = self.followed(world, policy)[-1].action
        assert policy.decide(world.state()).action == first

    def test_every_slice_goes_further_than_what_was_seen(self, world: World) -> None:
        self.followed(world, self.make(world))
        for probe in world.probes():
            if probe.purpose is not Purpose.TIMING:
                samples = [m.samples for m in probe.slices]
                assert samples == sorted(set(samples))

    def test_every_action_says_why(self, world: World) -> None:
        for decision in self.followed(world, self.make(world)):
            action = decision.action
            assert isinstance(action, Start | Continue | Ask | Abandon | Stop)
            assert len(action.reason) > 5
