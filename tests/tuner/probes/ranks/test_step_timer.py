"""Step times on an accelerator's stream, with moments that say when a stream reached them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from tuner.probes.ranks import replica as step_timer
from tuner.probes.ranks.replica import StepTimer
from tuner.strategies import Exchange
from tuner.strategies.moments import Moment


@dataclass
class Event:
    """What a device's stream reaches at some second."""

    at: float

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, end: Event) -> float:
        return 1000.0 * (end.at - self.at)


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds at which the stream reaches the moments to come, in order; the host is at 0 all the while."""
    reached: list[float] = []
    monkeypatch.setattr(step_timer, "moment", lambda device: Moment(seconds=0.0, event=Event(reached.pop(0))))
    return reached


def test_a_copy_that_waits_for_the_device_is_no_input(stream: list[float]) -> None:
    timer = StepTimer(torch.device("cuda"))
    # The first step keeps the device until 0.1; the second's data are there at once and take 2 ms to copy.
    stream += [0.0, 0.0, 0.0, 0.1, 0.1, 0.102, 0.2]
    timer.begin()
    for _ in range(2):
        with timer.input():
            pass
        timer.end_step()
    first, second = timer.read([Exchange(), Exchange()])
    assert (first.step, first.input) == pytest.approx((0.1, 0.0))
    assert (second.step, second.input, second.compute) == pytest.approx((0.1, 0.002, 0.098))


def test_the_input_of_all_micro_batches_is_the_step_s(stream: list[float]) -> None:
    timer = StepTimer(torch.device("cuda"))
    stream += [0.0, 0.0, 0.01, 0.05, 0.08, 0.1]
    timer.begin()
    for _ in range(2):
        with timer.input():
            pass
    timer.end_step()
    (step,) = timer.read([Exchange()])
    assert step.input == pytest.approx(0.04)


def test_on_the_cpu_input_is_what_the_host_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.0, 1.0, 1.5, 4.0])
    monkeypatch.setattr(step_timer, "moment", lambda device: Moment(seconds=next(seconds)))
    timer = StepTimer(torch.device("cpu"))
    timer.begin()
    with timer.input():
        pass
    timer.end_step()
    (step,) = timer.read([Exchange(sync_seconds=1.0)])
    assert (step.step, step.input, step.compute) == (4.0, 0.5, 2.5)
