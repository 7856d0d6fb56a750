"""Curves that turn back differ from noise, plateaus and curves that still gain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.tuner.search.world import World, configuration, make_job
from tuner.domain.measurement import CurvePoint, Measurement, Outcome, Purpose
from tuner.search.beliefs import believe
from tuner.search.turned_back import levelled_off, turned_back

SAMPLES = np.arange(1, 31) * 1000


def points(values: np.ndarray) -> tuple[CurvePoint, ...]:
    return tuple(
        CurvePoint(training_seconds=float(s) / 1000, step=int(s) // 64, samples=int(s), value=float(v))
        for s, v in zip(SAMPLES, values, strict=False)
    )


def overfits(scale: float = 1.0) -> np.ndarray:
    """A loss that falls to about 0.46 at a third of the run and rises again."""
    share = SAMPLES / 10_000 * scale
    return 0.35 + 1.95 * np.exp(-3.0 * share) + 0.05 * share**1.5


def test_a_loss_that_rises_again_turned_back() -> None:
    found = turned_back(points(overfits()), 0.38, maximize=False)
    assert found is not None
    assert found.best == pytest.approx(overfits().min())
    assert turned_back(points(-overfits()), -0.38, maximize=True) is not None


@pytest.mark.parametrize("seed", range(30))
def test_noise_a_plateau_and_a_run_that_gains_did_not_turn_back(seed: int) -> None:
    noise = 0.02 * np.random.default_rng(seed).standard_normal(len(SAMPLES))
    falls = 0.3 + 2.0 * np.exp(-SAMPLES / 5000)
    for values in (falls, falls + noise, np.full(len(SAMPLES), 0.5) + noise, np.maximum(falls, 0.5)):
        assert turned_back(points(values), 0.38, maximize=False) is None


def test_too_few_scores_behind_the_best_say_nothing() -> None:
    best = int(np.argmin(overfits()))
    assert turned_back(points(overfits()[: best + 3]), 0.38, maximize=False) is None
    assert turned_back((), 0.38, maximize=False) is None


def overfit_world(tmp_path: Path, *runs: tuple[int, np.ndarray]) -> World:
    world = World(tmp_path, job=make_job(goal={"metric": "loss", "target": 0.38}))
    for batch, values in runs:
        curve = points(values)
        world.keep(
            Measurement(
                configuration=configuration(1, batch, 0.03),
                purpose=Purpose.STATISTICS,
                outcome=Outcome.PAUSED,
                curve=(CurvePoint(training_seconds=0.0, step=0, samples=0, value=2.3), *curve),
                step=curve[-1].step,
                samples=curve[-1].samples,
                training_seconds=curve[-1].training_seconds,
                charged_seconds=curve[-1].training_seconds,
            )
        )
    return world


def test_a_run_that_turned_back_is_not_forecast_to_arrive_and_others_less_each_time(tmp_path: Path) -> None:
    turned = [(16, overfits()), (32, overfits(0.9)), (64, overfits(1.1))]
    chances = []
    for number in (1, 3):
        (tmp_path / str(number)).mkdir()
        state = overfit_world(tmp_path / str(number), *turned[:number]).state()
        what = [configuration(1, 16, 0.03), configuration(1, 128, 0.03)]
        chances.append(believe(state, what, np.random.default_rng(0)).forecast.probability_of_reaching())
    assert [own for own, _ in chances] == [0.0, 0.0]
    assert 0.3 < chances[0][1] < 0.7
    assert chances[1][1] < 0.2


def test_a_run_in_progress_is_believed_less_where_others_turned_back(tmp_path: Path) -> None:
    early = (128, overfits()[:6])
    turned = [(16, overfits()), (32, overfits(0.9)), (64, overfits(1.1))]
    (tmp_path / "alone").mkdir()
    what = [configuration(1, 128, 0.03)]
    alone, among = (
        believe(world.state(), what, np.random.default_rng(0)).forecast.probability_of_reaching()[0]
        for world in (
            overfit_world(tmp_path / "alone", early),
            overfit_world(tmp_path, *turned, early),
        )
    )
    assert alone > 0.8
    assert among < 0.2


def test_a_plateau_below_the_target_has_levelled_off() -> None:
    rng = np.random.default_rng(0)
    samples = SAMPLES
    saturating = 0.7 * (1.0 - np.exp(-samples / 4000.0)) + rng.normal(0.0, 0.004, len(samples))
    end = levelled_off(points(saturating), 0.8, maximize=True)
    assert end is not None
    assert end.levelled_off
    assert end.best == pytest.approx(0.7, abs=0.02)
    assert levelled_off(points(-saturating), -0.8, maximize=False) is not None


@pytest.mark.parametrize(
    "values",
    [
        0.1 + 0.002 * np.arange(40),  # has not left its start
        0.1 + 0.18 * np.log(np.arange(1, 41)),  # gains by the log of samples, and needs a little more
        np.where(np.arange(40) < 28, 0.1, 0.1 + 0.05 * (np.arange(40) - 28)),  # rises late
    ],
)
def test_a_run_that_gains_or_has_not_started_to_has_not_levelled_off(values: np.ndarray) -> None:
    assert levelled_off(points(values), 0.9, maximize=True) is None


@pytest.mark.parametrize("seed", range(30))
def test_noise_of_a_run_that_has_not_left_its_start_did_not_turn_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = 0.125 + rng.normal(0.0, 0.003, len(SAMPLES)) - 0.0002 * np.arange(len(SAMPLES))
    assert turned_back(points(values), 0.93, maximize=True) is None
