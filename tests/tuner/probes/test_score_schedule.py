from __future__ import annotations

from collections.abc import Sequence

import pytest

from search_spaces import Configuration
from tests.tuner.probes.commands.bench import job_of
from tests.tuner.search.world import make_job
from tuner.domain.measurement import CurvePoint, Measurement, Outcome, Purpose
from tuner.probes.score_schedule import ScoreSchedule, score_schedule

SMALL = Configuration(nodes=1, batch_size=10, learning_rate=0.5, strategy="all_reduce")
LARGE = SMALL.replaced(batch_size=20)


def measured(
    configuration: Configuration, steps: Sequence[int], *, reports_steps: bool = False
) -> Measurement:
    batch = configuration.batch_size
    return Measurement(
        configuration=configuration,
        purpose=Purpose.STATISTICS,
        outcome=Outcome.PAUSED,
        curve=tuple(
            CurvePoint(training_seconds=0.1 * step, step=step, samples=step * batch, value=0.1)
            for step in steps
        ),
        reports_steps=reports_steps,
    )


def test_nothing_is_known_of_a_job_whose_scores_come_where_paceline_asks_for_them() -> None:
    assert score_schedule(make_job(), [measured(SMALL, [100, 200])]) == ScoreSchedule()


def test_nothing_is_known_before_the_first_score() -> None:
    schedule = score_schedule(job_of("train {batch_size}"), [])
    assert schedule == ScoreSchedule()
    assert schedule.next_after(SMALL, 50) is None
    assert schedule.at_or_after(SMALL, 50.5) == 51


def test_scores_of_whole_epochs_come_after_equal_samples() -> None:
    job = job_of("train {batch_size}", epoch_samples=1000)
    schedule = score_schedule(job, [measured(SMALL, [100, 200])])
    assert schedule.every_samples == 1000
    assert not schedule.times_steps
    assert schedule.next_after(LARGE, 1000) == 2000
    assert schedule.at_or_after(LARGE, 1000) == 1000
    assert schedule.at_or_after(LARGE, 1001) == 2000


def test_other_distances_are_steps_until_another_batch_shows_what_they_are() -> None:
    job = job_of("train {batch_size}", epoch_samples=1000)
    first = measured(SMALL, [20, 40, 60], reports_steps=True)
    schedule = score_schedule(job, [first])
    assert (schedule.every_samples, schedule.every_steps) == (None, 20)
    assert schedule.times_steps
    assert schedule.next_after(LARGE, 410) == 800
    by_steps = score_schedule(job, [first, measured(LARGE, [20, 40])])
    assert (by_steps.every_samples, by_steps.every_steps) == (None, 20)
    by_samples = score_schedule(job, [first, measured(LARGE, [10, 20])])
    assert (by_samples.every_samples, by_samples.every_steps) == (200, None)


def test_a_score_that_comes_a_little_early_is_not_the_next_one() -> None:
    schedule = ScoreSchedule(every_samples=1000.0, has_scores=True)
    assert schedule.next_after(SMALL, 992) == 2000


@pytest.mark.parametrize("purpose", list(Purpose))
def test_timing_slices_say_nothing_of_scores(purpose: Purpose) -> None:
    seen = Measurement(configuration=SMALL, purpose=purpose, outcome=Outcome.STOPPED, reports_steps=False)
    assert score_schedule(job_of("train {batch_size}"), [seen]).times_steps
