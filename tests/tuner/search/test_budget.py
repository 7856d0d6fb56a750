"""The budget ends slices in flight, one at a time too, and what they showed is used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tuner.search.scripted import SMALL_SPACE
from tests.tuner.search.synthetic import Law, SyntheticProber
from tests.tuner.search.world import World, make_job
from tuner.domain.measurement import Measurement, Outcome, Purpose
from tuner.probes import ProbeHandle, Until
from tuner.search.model_policy import ModelPolicy
from tuner.search.policy import StopKind


class EndlessProber(SyntheticProber):
    """A slice that never ends by itself: time passes while it is polled.

    Args:
        grace: Seconds in which it ends once it was asked; None where it cannot be asked.
        obeys: Whether it then ends.
        waits: Whether it waits for nodes, and is charged nothing.
    """

    grace: float | None = None
    obeys = True
    pending_seconds = 0.0
    polls = 0

    def start(self, configuration: Any, purpose: Purpose, until: Until, folder: Path) -> ProbeHandle:
        self.asked_at: float | None = None
        self.started_at = self.clock.now
        self.folder = folder
        return ProbeHandle(identity="0", configuration=configuration, purpose=purpose, folder=folder)

    def poll(self, handle: ProbeHandle) -> Measurement:
        held = max(self.clock.now - self.started_at - self.pending_seconds, 0.0)
        outcome = Outcome.RUNNING
        if (
            self.asked_at is not None
            and self.obeys
            and self.clock.now >= self.asked_at + (self.grace or 0) / 2
        ):
            outcome = Outcome.PAUSED
        inner = SyntheticProber(law=self.law, clock=replace(self.clock), cluster=self.cluster)
        seen = inner.slice(handle.configuration, Purpose.STATISTICS, max(held, 0.1), self.fresh_folder())
        waiting = "nodes" if held == 0.0 and self.pending_seconds else ""
        return replace(
            seen,
            outcome=outcome,
            curve=() if held == 0.0 else seen.curve,
            charged_seconds=held,
            charged_dollars=held * self.cluster.dollars_per_second(handle.configuration),
            waiting=waiting,
        )

    def fresh_folder(self) -> Path:
        self.polls += 1
        folder = self.folder / f"poll-{self.polls}"
        folder.mkdir()
        return folder

    def ask_to_end(self, handle: ProbeHandle) -> float | None:
        if self.grace is not None:
            self.asked_at = self.clock.now
        return self.grace

    def cancel(self, handle: ProbeHandle) -> None:
        self.cancelled += 1

    def now(self) -> float:
        return self.clock.now


def endless(tmp_path: Path, budget: dict[str, Any], **more: Any) -> tuple[World, EndlessProber]:
    job = make_job(
        cluster={"nodes": [2], "dollars_per_node_hour": 3600.0},
        baseline={"nodes": 2},
        space=SMALL_SPACE,
        budget=budget,
    )
    world = World(tmp_path, job=job, law=Law(samples=8e6, seconds_per_sample=1e-3))
    prober = EndlessProber(law=world.law, clock=world.clock, cluster=world.cluster)
    for name, value in more.items():
        setattr(prober, name, value)
    return world, prober


@pytest.mark.parametrize(
    ("budget", "seconds"),
    [({"time": "20s"}, 20.0), ({"dollars": 50.0}, 25.0), ({"node_hours": 0.01}, 18.0)],
)
def test_a_single_slice_in_flight_ends_with_the_budget(
    tmp_path: Path, budget: dict[str, Any], seconds: float
) -> None:
    world, prober = endless(tmp_path, budget)
    result = world.search(ModelPolicy(), prober=prober).run()
    stop = result.stop
    assert stop.kind is StopKind.BUDGET
    assert prober.cancelled == 1
    (probe,) = world.probes()
    assert seconds <= probe.slices[0].charged_seconds <= 1.05 * seconds
    # What it showed is used: it is believed anew, from a run that has a curve.
    assert result.beliefs is None
    (run,) = world.state().runs.values()
    assert run.measurement.trained_curve


def test_a_script_that_can_be_asked_saves_within_its_grace_and_keeps_where_it_was(tmp_path: Path) -> None:
    world, prober = endless(tmp_path, {"time": "20s"}, grace=4.0)
    world.search(ModelPolicy(), prober=prober).run()
    (probe,) = world.probes()
    assert probe.outcome is Outcome.PAUSED
    assert prober.cancelled == 0
    assert probe.slices[0].samples > 0
    assert 22.0 <= probe.slices[0].charged_seconds <= 22.2


def test_a_script_that_does_not_end_is_cancelled_after_its_grace_and_a_twentieth(tmp_path: Path) -> None:
    world, prober = endless(tmp_path, {"time": "20s"}, grace=4.0, obeys=False)
    world.search(ModelPolicy(), prober=prober).run()
    (probe,) = world.probes()
    assert prober.cancelled == 1
    assert 24.0 <= probe.slices[0].charged_seconds <= 25.2


@pytest.mark.slow
def test_waiting_for_nodes_takes_nothing_of_the_budget(tmp_path: Path) -> None:
    world, prober = endless(tmp_path, {"time": "20s"}, pending_seconds=500.0)
    world.search(ModelPolicy(), prober=prober).run()
    (probe,) = world.probes()
    assert 20.0 <= probe.slices[0].charged_seconds <= 21.0


def test_a_target_reached_as_the_budget_ends_is_the_answer(tmp_path: Path) -> None:
    world, prober = endless(tmp_path, {"time": "20s"})
    prober.law = Law(samples=2e4, seconds_per_sample=1e-4)
    stop = world.search(ModelPolicy(), prober=prober).run().stop
    assert stop.kind is StopKind.ARRIVED
