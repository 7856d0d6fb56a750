"""The first Ctrl-C: the running slice ends, and the search answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tuner.search.scripted import GOOD, Scripted, small_world, start
from tests.tuner.search.synthetic import SyntheticProber
from tests.tuner.search.world import World, configuration
from tuner.domain.measurement import Measurement, Outcome
from tuner.probes import ProbeHandle
from tuner.search.interrupts import FINISH_SECONDS, Interruption, finish_event
from tuner.search.loop import Search
from tuner.search.policy import Start, StopKind

OTHER = configuration(1, 128, 0.08)


class InterruptedProber(SyntheticProber):
    """A slice that runs for so many polls; Ctrl-C comes at the third."""

    polls = 20
    interrupt: Callable[[], None]

    def now(self) -> float:
        return self.clock.now

    def poll(self, handle: ProbeHandle) -> Measurement:
        measurement = super().poll(handle)
        if measurement.outcome is Outcome.STOPPED:
            return measurement
        self.polls -= 1
        if self.polls % 20 == 17:
            self.interrupt()
        return replace(measurement, outcome=Outcome.RUNNING) if self.polls > 0 else measurement


def interrupted_search(world: World, *actions: Start, until: float, polls: int = 20) -> Search:
    """A search that is interrupted in the middle of its first slice, which is expected to last so long."""
    prober = InterruptedProber(law=world.law, clock=world.clock, cluster=world.cluster)
    prober.polls = polls
    search = world.search(Scripted(*actions), prober=prober)
    interruption = search._context.interruption

    def interrupt() -> None:
        (active,) = search._slices._slices
        left = until + world.clock.now - active.started_at
        active.under_way = replace(active.under_way, expected_seconds=left)
        interruption.request()

    prober.interrupt = interrupt  # type: ignore[method-assign]
    return search


def test_a_short_slice_ends_and_is_stored_and_no_other_starts(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    result = interrupted_search(world, start(GOOD), start(OTHER), until=5.0).run()
    assert result.stop.kind is StopKind.INTERRUPTED
    (probe,) = world.probes()
    assert probe.slices[0].curve
    assert probe.slices[0].samples > 0
    assert probe.lease is None
    (words,) = world.texts("warning")
    assert "finishing the running slice" in words


def test_a_long_slice_is_ended_now_and_charged_and_its_run_can_resume(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    result = interrupted_search(world, start(GOOD), start(OTHER), until=1e4, polls=10**6).run()
    assert result.stop.kind is StopKind.INTERRUPTED
    (probe,) = world.probes()
    assert (probe.slices[-1].outcome, probe.slices[-1].samples) == (Outcome.PAUSED, 0)
    assert probe.slices[-1].charged_seconds > 0
    assert probe.outcome.can_continue
    assert "ending the running slice now" in world.texts("warning")[0]


def test_a_slice_that_overruns_is_stopped_at_the_stated_bound(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    before = world.clock.now
    interrupted_search(world, start(GOOD), until=5.0, polls=10**6).run()
    charged = world.probes()[0].slices[-1].charged_seconds
    assert world.clock.now - before - charged == pytest.approx(FINISH_SECONDS, abs=3.0)
    assert "at most 1m 00s" in world.texts("warning")[0]


def test_an_interrupt_between_two_slices_starts_no_other(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    search = world.search(Scripted(start(GOOD), start(OTHER)))
    appended = world.ledger.append_slice

    def interrupt(*args: object) -> object:
        search._context.interruption.request()
        return appended(*args)

    world.ledger.append_slice = interrupt  # type: ignore[assignment, method-assign]
    assert search.run().stop.kind is StopKind.INTERRUPTED
    assert len(world.probes()) == 1


def test_a_request_counts_once_and_only_during_a_search() -> None:
    interruption = Interruption()
    assert not interruption.request()
    with interruption.deferred():
        assert interruption.request()
        assert not interruption.request()
    assert interruption.is_requested


def test_the_message_says_how_long_it_takes() -> None:
    words = finish_event([12.0], 75.0).text
    assert words.startswith("finishing the running slice: about 12 s, at most 1m 15s")
    assert "the running 2 slices: at most" in finish_event([0.0, 0.0], 60.0).text
