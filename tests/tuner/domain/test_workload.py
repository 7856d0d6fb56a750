from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import nn

from tuner.domain.workload import (
    METRICS,
    AdamWSettings,
    ConstantSchedule,
    CosineSchedule,
    SGDSettings,
    StepSchedule,
    Workload,
)

schedules = st.one_of(
    st.builds(ConstantSchedule, warmup_samples=st.integers(0, 10_000)),
    st.builds(
        StepSchedule,
        warmup_samples=st.integers(0, 10_000),
        at_samples=st.lists(st.integers(1, 100_000), min_size=1, max_size=3).map(tuple),
        divide_by=st.floats(1.5, 100),
    ),
    st.builds(
        CosineSchedule,
        warmup_samples=st.integers(0, 10_000),
        horizon_samples=st.integers(1, 100_000),
    ),
)


class Line(Workload):
    """Fits a line through the origin."""

    def model(self):
        return nn.Linear(1, 1, bias=False)

    def training_data(self):
        raise NotImplementedError

    def validation_data(self):
        raise NotImplementedError

    def loss(self, model, batch):
        raise NotImplementedError

    def score(self, model, data):
        raise NotImplementedError


@given(schedules, st.integers(0, 1_000_000))
def test_a_schedule_keeps_the_rate_between_zero_and_its_peak(schedule, samples):
    assert 0 <= schedule.factor(samples) <= 1


@given(schedules)
def test_the_first_step_of_every_schedule_moves(schedule):
    assert schedule.factor(0) > 0


def test_warmup_rises_linearly_to_the_peak():
    schedule = ConstantSchedule(warmup_samples=1000)
    assert [schedule.factor(samples) for samples in (0, 250, 500, 1000, 5000)] == [0.01, 0.25, 0.5, 1, 1]


def test_steps_divide_at_their_samples():
    schedule = StepSchedule(at_samples=(100, 200), divide_by=10)
    factors = [schedule.factor(samples) for samples in (0, 99, 100, 199, 200, 1000)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01], rel=1e-12)


def test_a_cosine_halves_at_half_its_horizon_and_ends_at_zero():
    schedule = CosineSchedule(horizon_samples=1000)
    factors = [schedule.factor(samples) for samples in (0, 500, 1000, 2000)]
    assert factors == pytest.approx([1, 0.5, 0, 0], abs=1e-12)


def test_the_default_optimizer_is_sgd_with_momentum():
    workload = Line()
    optimizer = workload.optimizer(workload.model().parameters(), 0.05)
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.defaults["lr"] == 0.05
    assert optimizer.defaults["momentum"] == 0.9


def test_the_optimizer_follows_its_settings():
    workload = Line()
    workload.optimizer_settings = AdamWSettings(betas=(0.8, 0.95), weight_decay=0.1)
    optimizer = workload.optimizer(workload.model().parameters(), 0.05)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.defaults["betas"] == (0.8, 0.95)
    assert optimizer.defaults["weight_decay"] == 0.1
    workload.optimizer_settings = SGDSettings(momentum=0.5, nesterov=True)
    assert workload.optimizer(workload.model().parameters(), 0.05).defaults["nesterov"] is True


def test_the_schedule_follows_its_settings():
    workload = Line()
    assert workload.schedule(12345) == 1
    workload.schedule_settings = StepSchedule(at_samples=(10,), divide_by=2)
    assert workload.schedule(10) == 0.5


def test_settings_of_one_workload_leave_others_alone():
    first, second = Line(), Line()
    first.optimizer_settings = SGDSettings(momentum=0)
    assert second.optimizer_settings.momentum == 0.9


def test_nesterov_without_momentum_is_refused():
    with pytest.raises(ValidationError, match="nesterov needs momentum above 0"):
        SGDSettings(momentum=0, nesterov=True)


@pytest.mark.parametrize("name", METRICS)
def test_known_metrics_are_bounded_on_their_good_side_or_open(name):
    metric = METRICS[name]
    assert metric.name == name
    assert metric.lower < metric.upper
