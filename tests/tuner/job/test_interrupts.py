from __future__ import annotations

import signal
import threading

import pytest

from tuner.job.job_modules import interrupts_deferred


def interrupt(number, frame):
    raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def _handlers():
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_comes_once_the_block_has_ended(number):
    steps = []

    def work():
        with interrupts_deferred():
            signal.raise_signal(number)
            signal.raise_signal(number)
            steps.append("inside")
        steps.append("outside")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == ["inside"]
    assert signal.getsignal(number) is interrupt


def test_another_thread_may_use_it():
    seen = []

    def work():
        with interrupts_deferred():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [interrupt]
