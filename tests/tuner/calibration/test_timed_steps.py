"""Timed steps are a training's: they stand still where the job asks for it, which is no part of compute."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.tuner.calibration.made_timings import made_job, made_plan
from tests.tuner.emulation.toy import Regression
from tuner.calibration import CalibrationPlan
from tuner.calibration.timed_steps import StepLoop, pause_of, window_steps
from tuner.strategies.flat import trainable_bytes

CPU = torch.device("cpu")


def delayed(*delays: dict[str, Any]) -> CalibrationPlan:
    return replace(made_plan(), job=made_job(emulate={"delay": list(delays)}))


def test_steps_train_the_model() -> None:
    workload = Regression()
    model = workload.model()
    before = [p.detach().clone() for p in model.parameters()]
    seconds = StepLoop(workload, model, learning_rate=0.05, device=CPU).run(8, 5)
    assert len(seconds) == 5
    assert min(seconds) > 0
    assert any(not torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


def test_a_pause_is_slept_and_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    workload = Regression()
    loop = StepLoop(workload, workload.model(), learning_rate=0.05, device=CPU, pause=lambda: 1000.0)
    seconds = loop.run(8, 3)
    assert slept == [1000.0] * 3
    # Nobody slept, so that what was left out is missing.
    assert max(seconds) < 0


def test_delays_of_all_ranks_are_stood_still_and_those_of_some_are_not() -> None:
    assert pause_of(made_plan(), 0) is None
    assert pause_of(delayed({"ranks": [1], "low": 0.1, "high": 0.2}), 1) is None
    pause = pause_of(delayed({"low": 0.1, "high": 0.2}, {"low": 1.0, "high": 1.0}), 0)
    assert pause is not None
    assert all(1.1 <= pause() <= 1.2 for _ in range(20))


def test_a_window_lasts_as_long_as_it_should_pauses_included() -> None:
    effort = made_plan().effort
    assert window_steps(made_plan(), effort.window_seconds / 50) == 50
    still = delayed({"low": 0.0, "high": 2 * effort.window_seconds / 20})
    assert window_steps(still, effort.window_seconds / 20) == 10
    assert window_steps(made_plan(), 100.0) == effort.least_steps


def test_bytes_of_the_model_are_those_that_train() -> None:
    model = Regression().model()
    whole = trainable_bytes(model)
    next(iter(model.parameters())).requires_grad_(False)
    assert 0 < trainable_bytes(model) < whole
