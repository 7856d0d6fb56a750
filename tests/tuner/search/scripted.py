"""Searches that are told what to do, and probers that die, dawdle or fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from optuna.trial import TrialState

from search_spaces import Configuration
from tests.tuner.search.synthetic import Law, SyntheticProber
from tests.tuner.search.world import World, configuration, make_job
from tuner.domain.measurement import Measurement, Outcome, Purpose
from tuner.probes import ProbeHandle, Prober, Until
from tuner.search.policy import Action, Continue, Decision, Start, Stop, StopKind
from tuner.search.state import SearchState

GOOD = configuration(1, 64, 0.08)

#: Few candidates, so that a decision takes tens of milliseconds.
SMALL_SPACE = {
    "batch_size": [32, 128, 512],
    "learning_rate": {"low": 1e-3, "high": 1.0, "levels_per_decade": 3},
}


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it on purpose."""


class DyingProber(Prober):
    """Passes on to another prober until the process is killed.

    Args:
        inner: Does the work.
        slices: So many slices are started before the end.
        works: Whether the last one is carried out, so that its checkpoint is there and its measurement lost.
    """

    def __init__(self, inner: SyntheticProber, *, slices: int, works: bool = False) -> None:
        self.inner, self.left, self.works = inner, slices, works

    def start(
        self, configuration: Configuration, purpose: Purpose, until: Until, folder: Path
    ) -> ProbeHandle:
        if self.left == 0:
            if self.works:
                self.inner.start(configuration, purpose, until, folder)
            raise Killed
        self.left -= 1
        return self.inner.start(configuration, purpose, until, folder)

    def poll(self, handle: ProbeHandle) -> Measurement:
        return self.inner.poll(handle)

    def cancel(self, handle: ProbeHandle) -> None:
        self.inner.cancel(handle)

    def close(self) -> None:
        self.inner.close()


class Scripted:
    """A policy that does what it is told, then stops."""

    def __init__(self, *actions: Action | Callable[[SearchState], Decision]) -> None:
        self.left = list(actions)

    def decide(self, state: SearchState) -> Decision:
        if not self.left:
            return Decision(action=Stop(kind=StopKind.NO_GAIN, reason="the script is over"))
        action = self.left.pop(0)
        return action(state) if callable(action) else Decision(action=action)


def start(what: Configuration, seconds: float = 4.0, purpose: Purpose = Purpose.STATISTICS) -> Start:
    return Start(configuration=what, purpose=purpose, until=Until(training_seconds=seconds), reason="told to")


def go_on(probe_id: int, seconds: float) -> Continue:
    until = Until(training_seconds=seconds)
    return Continue(probe_id=probe_id, purpose=Purpose.TRAINING, until=until, reason="told to")


def transfer(to: Configuration, probe_id: int, seconds: float) -> Callable[[SearchState], Decision]:
    def decide(state: SearchState) -> Decision:
        return Decision(action=replace(start(to, seconds), resume_from=probe_id))

    return decide


def small_world(folder: Path, **more: object) -> World:
    job = make_job(cluster={"nodes": [1, 2]}, space=SMALL_SPACE, budget={"time": "20m"})
    return World(folder, job=job, law=Law(samples=8e4, seconds_per_sample=1e-3), **more)  # type: ignore[arg-type]


def trial_states(world: World) -> list[TrialState]:
    return [trial.state for trial in world.optuna_study.get_trials()]


class SlowProber(SyntheticProber):
    """A slice that is under way for so many polls; `meanwhile` happens in between."""

    polls = 40
    meanwhile: Callable[[], None] = staticmethod(lambda: None)

    def poll(self, handle: ProbeHandle) -> Measurement:
        measurement = super().poll(handle)
        self.polls -= 1
        if self.polls == 20:
            self.meanwhile()
        return replace(measurement, outcome=Outcome.RUNNING) if self.polls > 0 else measurement


def slow_prober(world: World) -> SlowProber:
    return SlowProber(law=world.law, clock=world.clock, cluster=world.cluster)


class FailingProber(SyntheticProber):
    """Fails in its second slice, as a rank does that was killed, with its checkpoint left as it was."""

    def poll(self, handle: ProbeHandle) -> Measurement:
        measurement = super().poll(handle)
        if handle.identity == "1":
            return replace(
                measurement,
                outcome=Outcome.FAILED,
                error="rank 1: killed by signal 9",
                infrastructure_fault=True,
            )
        return measurement
