"""What every ledger keeps to, run over each of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.memory_ledger import MemoryLedger
from search_spaces import Configuration
from storage import open_storage
from tests.levels import examples
from tuner.domain.errors import LeaseLostError, StorageError
from tuner.domain.ledger import FitRecord, Lease, Ledger, PredictionRecord, RecommendationRecord, StudyRecord
from tuner.domain.measurement import (
    CurvePoint,
    Measurement,
    NoiseStatistic,
    Outcome,
    Purpose,
    RankTiming,
    Spread,
)

CONFIGURATION = Configuration(nodes=2, batch_size=64, learning_rate=0.03, strategy="all_reduce")
JOB = {"name": "digits", "goal": {"target": 0.85, "limits": [1, 2]}, "seed": 0}


class FakeClock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def ledger(request: pytest.FixtureRequest, clock: FakeClock) -> Iterator[Ledger]:
    if request.param == "memory":
        yield MemoryLedger(clock)
        return
    with open_storage(request.getfixturevalue(f"{request.param}_url"), clock) as storage:
        yield storage.ledger


@pytest.fixture
def study(ledger: Ledger) -> StudyRecord:
    return ledger.open_study("digits", "f1", JOB)


def curve_of(*values: float) -> tuple[CurvePoint, ...]:
    """A curve whose first value is that of the untrained model."""
    return tuple(
        CurvePoint(training_seconds=float(k), step=k, samples=64 * k, value=value)
        for k, value in enumerate(values)
    )


def started(ledger: Ledger, study: StudyRecord, owner: str = "worker-1", seconds: float = 60) -> Lease:
    return ledger.start_probe(
        study.study_id,
        CONFIGURATION,
        Purpose.STATISTICS,
        trial_number=3,
        owner=owner,
        lease_seconds=seconds,
    )


def seen(outcome: Outcome = Outcome.PAUSED, step: int = 10) -> Measurement:
    point = CurvePoint(training_seconds=step * 0.1, step=step, samples=step * 64, value=0.1 + 0.01 * step)
    return Measurement(
        configuration=CONFIGURATION,
        purpose=Purpose.STATISTICS,
        outcome=outcome,
        curve=(point,),
        step=step,
        samples=step * 64,
        training_seconds=step * 0.1,
        charged_seconds=1.5,
        charged_dollars=0.25,
    )


def predicted(study: StudyRecord, created_at: float = 1.0) -> PredictionRecord:
    return PredictionRecord(
        study_id=study.study_id,
        configuration=CONFIGURATION,
        created_at=created_at,
        quantiles={0.05: 10.1, 0.5: 20.0, 0.95: math.inf},
        dollars={0.05: 0.1, 0.5: 0.2, 0.95: math.inf},
        probability_of_reaching=0.9,
        num_slices=4,
        seconds_observed=2.5,
    )


def fitted(study: StudyRecord, model: str = "seconds", created_at: float = 1.0) -> FitRecord:
    return FitRecord(
        study_id=study.study_id,
        fingerprint=study.fingerprint,
        model=model,
        created_at=created_at,
        num_slices=4,
        parameters={"a0": (0.1, 0.01), "a1": (1e-300, math.inf)},
        summary={"converged": True, "residual": 0.03, "prior": ["g", "k"], "worst": -math.inf},
    )


class TestStudies:
    def test_the_same_job_opens_the_same_study(self, ledger: Ledger, study: StudyRecord) -> None:
        assert ledger.open_study("digits", "f1", JOB) == study
        assert ledger.studies() == [study]

    def test_a_study_holds_what_it_was_opened_with(self, study: StudyRecord, clock: FakeClock) -> None:
        assert (study.name, study.job_name, study.fingerprint) == ("digits", "digits", "f1")
        assert study.job == JOB
        assert study.created_at == clock.now

    def test_a_changed_job_of_one_fingerprint_goes_on_and_is_stored(
        self, ledger: Ledger, study: StudyRecord
    ) -> None:
        changed = ledger.open_study("digits", "f1", {**JOB, "budget": {"time": 60.0}})
        assert changed.study_id == study.study_id
        assert ledger.studies()[0].job == {**JOB, "budget": {"time": 60.0}}

    def test_later_studies_are_numbered_from_two(self, ledger: Ledger, study: StudyRecord) -> None:
        ledger.open_study("digits", "f2", JOB)
        ledger.open_study("digits", "f1", JOB, fresh=True)
        assert [found.name for found in ledger.studies()] == ["digits", "digits-2", "digits-3"]

    def test_a_number_taken_by_another_job_is_passed_over(self, ledger: Ledger, study: StudyRecord) -> None:
        ledger.open_study("digits-2", "f1", JOB)
        assert ledger.open_study("digits", "f1", JOB, fresh=True).name == "digits-3"

    def test_after_a_fresh_start_the_newest_study_goes_on(self, ledger: Ledger, study: StudyRecord) -> None:
        fresh = ledger.open_study("digits", "f1", JOB, fresh=True)
        assert fresh.study_id != study.study_id
        assert ledger.open_study("digits", "f1", JOB).study_id == fresh.study_id

    def test_a_study_is_found_by_its_new_fingerprint(self, ledger: Ledger, study: StudyRecord) -> None:
        ledger.change_fingerprint(study.study_id, "f2")
        assert ledger.open_study("digits", "f2", JOB).study_id == study.study_id
        assert ledger.open_study("digits", "f1", JOB).name == "digits-2"

    def test_changing_the_job_afterwards_changes_nothing_stored(self, ledger: Ledger) -> None:
        job = {"goal": {"target": 0.5}}
        ledger.open_study("other", "f1", job)
        job["goal"]["target"] = 0.9
        assert ledger.studies()[-1].job == {"goal": {"target": 0.5}}


class TestLeases:
    def test_a_new_probe_is_held_by_who_started_it(
        self, ledger: Ledger, study: StudyRecord, clock: FakeClock
    ) -> None:
        lease = started(ledger, study)
        (probe,) = ledger.probes(study.study_id)
        assert probe.lease == lease
        assert (lease.attempt, lease.owner, lease.expires_at) == (1, "worker-1", clock.now + 60)
        assert (probe.configuration, probe.purpose, probe.trial_number) == (
            CONFIGURATION,
            Purpose.STATISTICS,
            3,
        )
        assert (probe.outcome, probe.slices, probe.measurement) == (Outcome.PAUSED, (), None)

    def test_a_held_probe_is_not_taken(self, ledger: Ledger, study: StudyRecord) -> None:
        lease = started(ledger, study)
        with pytest.raises(LeaseLostError, match=r"leased to worker-1 \(attempt 1\)"):
            ledger.take_probe(lease.probe_id, owner="worker-2", lease_seconds=60)

    def test_a_probe_is_taken_when_its_lease_has_run_out(
        self, ledger: Ledger, study: StudyRecord, clock: FakeClock
    ) -> None:
        lease = started(ledger, study)
        clock.advance(59.9)
        with pytest.raises(LeaseLostError, match="leased to worker-1"):
            ledger.take_probe(lease.probe_id, owner="worker-2", lease_seconds=60)
        assert ledger.probes(study.study_id)[0].expired_lease is None
        clock.advance(0.1)
        found = ledger.probes(study.study_id)[0]
        assert (found.lease, found.expired_lease) == (None, lease)
        taken = ledger.take_probe(lease.probe_id, owner="worker-2", lease_seconds=60)
        assert (taken.attempt, taken.owner) == (2, "worker-2")
        found = ledger.probes(study.study_id)[0]
        assert (found.lease, found.expired_lease) == (taken, None)

    def test_renewing_keeps_others_out(self, ledger: Ledger, study: StudyRecord, clock: FakeClock) -> None:
        lease = started(ledger, study)
        clock.advance(50)
        renewed = ledger.renew(lease, lease_seconds=60)
        assert renewed == replace(lease, expires_at=clock.now + 60)
        clock.advance(50)
        with pytest.raises(LeaseLostError, match="leased to worker-1"):
            ledger.take_probe(lease.probe_id, owner="worker-2", lease_seconds=60)

    def test_a_late_finisher_is_refused_and_does_no_harm(
        self, ledger: Ledger, study: StudyRecord, clock: FakeClock
    ) -> None:
        late = started(ledger, study)
        clock.advance(61)
        taken = ledger.take_probe(late.probe_id, owner="worker-2", lease_seconds=60)
        with pytest.raises(LeaseLostError, match="attempt 1 of worker-1 is no longer valid"):
            ledger.append_slice(late, seen(Outcome.REACHED))
        with pytest.raises(LeaseLostError, match=r"taken by worker-2 \(attempt 2\)"):
            ledger.renew(late, lease_seconds=60)
        ledger.release(late)
        (probe,) = ledger.probes(study.study_id)
        assert (probe.slices, probe.outcome, probe.lease) == ((), Outcome.PAUSED, taken)
        ledger.append_slice(taken, seen())
        assert ledger.probes(study.study_id)[0].slices == (seen(),)

    def test_a_lease_that_ran_out_untaken_still_brings_what_was_paid(
        self, ledger: Ledger, study: StudyRecord, clock: FakeClock
    ) -> None:
        lease = started(ledger, study)
        clock.advance(600)
        ledger.append_slice(lease, seen())
        assert ledger.renew(lease, lease_seconds=60).expires_at == clock.now + 60
        assert ledger.probes(study.study_id)[0].slices == (seen(),)

    def test_ones_own_probe_is_taken_again_and_the_older_lease_is_lost(
        self, ledger: Ledger, study: StudyRecord
    ) -> None:
        first = started(ledger, study)
        second = ledger.take_probe(first.probe_id, owner="worker-1", lease_seconds=60)
        assert second.attempt == 2
        with pytest.raises(LeaseLostError, match="attempt 1 of worker-1 is no longer valid"):
            ledger.append_slice(first, seen())

    def test_a_released_probe_is_free_for_all(self, ledger: Ledger, study: StudyRecord) -> None:
        lease = started(ledger, study)
        ledger.release(lease)
        assert ledger.probes(study.study_id)[0].lease is None
        with pytest.raises(LeaseLostError, match="was released"):
            ledger.append_slice(lease, seen())
        with pytest.raises(LeaseLostError, match="was released"):
            ledger.renew(lease, lease_seconds=60)
        assert ledger.take_probe(lease.probe_id, owner="worker-2", lease_seconds=60).attempt == 2

    def test_every_take_over_is_counted(self, ledger: Ledger, study: StudyRecord, clock: FakeClock) -> None:
        lease = started(ledger, study)
        for attempt in range(2, 6):
            clock.advance(61)
            lease = ledger.take_probe(lease.probe_id, owner=f"worker-{attempt}", lease_seconds=60)
            assert lease.attempt == attempt

    def test_an_unknown_probe_is_named(self, ledger: Ledger) -> None:
        with pytest.raises(StorageError, match="no probe 77 in this ledger"):
            ledger.take_probe(77, owner="worker-1", lease_seconds=60)
        with pytest.raises(StorageError, match="no probe 77 in this ledger"):
            ledger.end_probe(77, Outcome.STOPPED, "given up")

    def test_an_unknown_study_is_named(self, ledger: Ledger, study: StudyRecord) -> None:
        with pytest.raises(StorageError, match="no study 77 in this ledger"):
            started(ledger, replace(study, study_id=77))


class TestSlices:
    def test_slices_are_stored_in_order(self, ledger: Ledger, study: StudyRecord) -> None:
        lease = started(ledger, study)
        brought = [seen(step=step) for step in (10, 20, 30)]
        for measurement in brought:
            ledger.append_slice(lease, measurement)
        (probe,) = ledger.probes(study.study_id)
        assert list(probe.slices) == brought
        assert probe.measurement is not None
        assert [point.step for point in probe.measurement.curve] == [10, 20, 30]
        assert (probe.outcome, probe.lease) == (Outcome.PAUSED, lease)

    def test_only_new_slices_are_read_again(self, ledger: Ledger, study: StudyRecord) -> None:
        lease = started(ledger, study)
        ledger.append_slice(lease, seen())
        known = ledger.probes(study.study_id)
        ledger.append_slice(lease, seen(step=20))
        ledger.append_slice(started(ledger, study), seen(step=30))
        again = ledger.probes(study.study_id, known)
        assert again == ledger.probes(study.study_id)
        assert [len(probe.slices) for probe in again] == [2, 1]
        assert again[0].slices[0] is known[0].slices[0]
        ledger.end_probe(lease.probe_id, Outcome.STOPPED, "no longer wanted")
        assert ledger.probes(study.study_id, again) == ledger.probes(study.study_id)

    def test_outlines_are_the_probes_without_points_of_curves(
        self, ledger: Ledger, study: StudyRecord
    ) -> None:
        lease = started(ledger, study)
        for step in (10, 20):
            ledger.append_slice(lease, replace(seen(step=step), curve=curve_of(0.5)))
        (probe,) = ledger.probes(study.study_id)
        bare = tuple(replace(measurement, curve=()) for measurement in probe.slices)
        assert ledger.outlines(study.study_id) == [replace(probe, slices=bare)]
        assert ledger.probes(study.study_id) == [probe]

    def test_the_best_value_is_that_of_a_trained_model(self, ledger: Ledger, study: StudyRecord) -> None:
        assert ledger.best_value(study.study_id, maximize=True) is None
        ledger.append_slice(started(ledger, study), replace(seen(), curve=curve_of(0.9, 0.2, math.nan)))
        ledger.append_slice(started(ledger, study), replace(seen(), curve=curve_of(0.1, 0.4)))
        assert ledger.best_value(study.study_id, maximize=True) == 0.4
        assert ledger.best_value(study.study_id, maximize=False) == 0.2
        other = ledger.open_study("other", "f2", JOB)
        assert ledger.best_value(other.study_id, maximize=True) is None

    def test_many_new_slices_are_read(self, ledger: Ledger, study: StudyRecord) -> None:
        leases = [started(ledger, study) for _ in range(60)]
        known = ledger.probes(study.study_id)
        for lease in leases:
            ledger.append_slice(lease, seen())
        assert ledger.probes(study.study_id, known) == ledger.probes(study.study_id)

    def test_slices_of_a_second_attempt_follow_those_of_the_first(
        self, ledger: Ledger, study: StudyRecord
    ) -> None:
        lease = started(ledger, study)
        ledger.append_slice(lease, seen(step=10))
        ledger.release(lease)
        again = ledger.take_probe(lease.probe_id, owner="worker-2", lease_seconds=60)
        ledger.append_slice(again, seen(step=20))
        (probe,) = ledger.probes(study.study_id)
        assert [measurement.step for measurement in probe.slices] == [10, 20]

    @pytest.mark.parametrize("outcome", [o for o in Outcome if not o.can_continue])
    def test_an_end_is_the_probes_and_releases_the_lease(
        self, ledger: Ledger, study: StudyRecord, outcome: Outcome
    ) -> None:
        lease = started(ledger, study)
        ledger.append_slice(lease, replace(seen(outcome), error="rank 1: lost"))
        (probe,) = ledger.probes(study.study_id)
        assert (probe.outcome, probe.reason, probe.lease) == (outcome, "rank 1: lost", None)
        with pytest.raises(LeaseLostError, match="has ended"):
            ledger.append_slice(lease, seen())
        with pytest.raises(LeaseLostError, match="has ended"):
            ledger.renew(lease, lease_seconds=60)
        with pytest.raises(LeaseLostError, match="has ended"):
            ledger.take_probe(lease.probe_id, owner="worker-1", lease_seconds=60)

    def test_a_slice_under_way_is_no_slice(self, ledger: Ledger, study: StudyRecord) -> None:
        lease = started(ledger, study)
        with pytest.raises(ValueError, match="still running"):
            ledger.append_slice(lease, seen(Outcome.RUNNING))
        assert ledger.probes(study.study_id)[0].slices == ()

    def test_a_probe_is_ended_whoever_holds_it(self, ledger: Ledger, study: StudyRecord) -> None:
        lease = started(ledger, study)
        ledger.append_slice(lease, seen())
        ledger.end_probe(lease.probe_id, Outcome.STOPPED, "no longer promising")
        (probe,) = ledger.probes(study.study_id)
        assert (probe.outcome, probe.reason, probe.lease) == (Outcome.STOPPED, "no longer promising", None)
        assert probe.slices == (seen(),)
        with pytest.raises(LeaseLostError, match="has ended"):
            ledger.append_slice(lease, seen(step=20))

    def test_an_end_is_stored(self, ledger: Ledger, study: StudyRecord) -> None:
        lease = started(ledger, study)
        ledger.append_slice(lease, seen(Outcome.REACHED))
        ledger.end_probe(lease.probe_id, Outcome.STOPPED, "too late")
        (probe,) = ledger.probes(study.study_id)
        assert (probe.outcome, probe.reason) == (Outcome.REACHED, "")

    def test_going_on_is_no_end(self, ledger: Ledger, study: StudyRecord) -> None:
        lease = started(ledger, study)
        with pytest.raises(ValueError, match="a probe cannot end with the outcome paused"):
            ledger.end_probe(lease.probe_id, Outcome.PAUSED, "")

    def test_a_fault_keeps_every_character_of_its_error(self, ledger: Ledger, study: StudyRecord) -> None:
        error = "rank 0: \0 \ud800 é ☃ 'quoted' \"double\" %s {x}\nrank 1: killed"
        ledger.append_slice(started(ledger, study), replace(seen(Outcome.FAILED), error=error))
        (probe,) = ledger.probes(study.study_id)
        assert probe.slices[0].error == error
        assert probe.reason.endswith("rank 1: killed")


finite = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(min_value=0, allow_infinity=False)
count = st.integers(min_value=0, max_value=2**62)
spreads = st.builds(
    Spread, median=positive, p10=positive, p90=positive, mean=positive, std=positive, count=count
)
ranks = st.builds(
    RankTiming,
    rank=st.integers(0, 9),
    batch_size=count,
    compute=spreads,
    sync=spreads,
    input=spreads,
    step=spreads,
)
points = st.builds(
    CurvePoint, training_seconds=positive, step=count, samples=count, value=st.floats(allow_nan=False)
)
noises = st.builds(NoiseStatistic, samples=count, noise=finite, squared_gradient=finite, num_estimates=count)
words = st.none() | st.text(max_size=20)
measurements = st.builds(
    Measurement,
    configuration=st.builds(
        lambda axes: Configuration({**CONFIGURATION, **axes}),
        st.dictionaries(
            st.text(min_size=1, max_size=5), finite | count | st.booleans() | st.text(max_size=5)
        ),
    ),
    purpose=st.sampled_from(Purpose),
    outcome=st.just(Outcome.PAUSED),
    curve=st.lists(points, max_size=4).map(tuple),
    ranks=st.lists(ranks, max_size=2).map(tuple),
    noise=st.lists(noises, max_size=3).map(tuple),
    step=count,
    samples=count,
    training_seconds=positive,
    scoring_seconds=positive,
    startup_seconds=positive,
    charged_seconds=positive,
    charged_dollars=positive,
    peak_bytes=count,
    parameter_bytes=count,
    oversubscribed=st.booleans(),
    error=words,
    checkpoint=words,
)


class TestExactness:
    @settings(examples(30), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
    @given(measurement=measurements)
    def test_what_was_measured_comes_back_to_the_last_bit(
        self, ledger: Ledger, study: StudyRecord, measurement: Measurement
    ) -> None:
        lease = started(ledger, study)
        ledger.append_slice(lease, measurement)
        assert ledger.probes(study.study_id)[-1].slices == (measurement,)

    def test_a_metric_that_is_not_finite_comes_back(self, ledger: Ledger, study: StudyRecord) -> None:
        values = (0.5, math.inf, -math.inf, math.nan)
        curve = tuple(
            CurvePoint(training_seconds=step, step=step, samples=step, value=value)
            for step, value in enumerate(values)
        )
        ledger.append_slice(started(ledger, study), replace(seen(Outcome.DIVERGED), curve=curve))
        stored = [point.value for point in ledger.probes(study.study_id)[0].slices[0].curve]
        assert stored[:3] == [0.5, math.inf, -math.inf]
        assert math.isnan(stored[3])

    def test_numbers_of_numpy_are_stored_as_numbers(self, ledger: Ledger, study: StudyRecord) -> None:
        measurement = replace(
            seen(), step=np.int64(7), training_seconds=np.float64(0.1), peak_bytes=np.int64(2**40)
        )
        ledger.append_slice(started(ledger, study), measurement)
        assert ledger.probes(study.study_id)[0].slices == (measurement,)


class TestEvidence:
    def test_predictions_come_back_with_infinite_quantiles(self, ledger: Ledger, study: StudyRecord) -> None:
        made = [
            predicted(study, created_at=3.0),
            predicted(study, created_at=1.0),
            predicted(study, created_at=2.0),
        ]
        ledger.add_predictions(made[:1])
        ledger.add_predictions(made[1:])
        ledger.add_predictions([])
        assert ledger.predictions(study.study_id) == made

    def test_predictions_are_stored_all_or_none(self, ledger: Ledger, study: StudyRecord) -> None:
        with pytest.raises(StorageError, match="no study 77"):
            ledger.add_predictions([predicted(study), predicted(replace(study, study_id=77))])
        assert ledger.predictions(study.study_id) == []

    def test_fits_come_back_as_they_were(self, ledger: Ledger, study: StudyRecord) -> None:
        made = [fitted(study), fitted(study, "samples")]
        for fit in made:
            ledger.add_fit(fit)
        assert sorted(ledger.past_fits(study.fingerprint), key=lambda fit: fit.model) == sorted(
            made, key=lambda fit: fit.model
        )

    def test_past_fits_are_the_newest_of_each_model_and_study(
        self, ledger: Ledger, study: StudyRecord
    ) -> None:
        fresh = ledger.open_study("digits", "f1", JOB, fresh=True)
        other = ledger.open_study("char_lm", "f2", JOB)
        for opened in (study, fresh, other):
            for created_at, model in ((1.0, "seconds"), (2.0, "samples"), (3.0, "seconds")):
                ledger.add_fit(fitted(opened, model, created_at))
        found = ledger.past_fits("f1")
        newest = [("seconds", 3.0), ("samples", 2.0)]
        expected = [(s.study_id, m, t) for s in (fresh, study, other) for m, t in newest]
        assert [(fit.study_id, fit.model, fit.created_at) for fit in found] == expected

    def test_recommendations_come_back_as_they_were(self, ledger: Ledger, study: StudyRecord) -> None:
        content = {"choice": {"nodes": 2, "upper": None}, "evidence": ["é", "b"], "share": 0.1}
        made = [
            RecommendationRecord(study_id=study.study_id, created_at=t, recommendation=content)
            for t in (2.0, 1.0)
        ]
        for recommendation in made:
            ledger.add_recommendation(recommendation)
        assert ledger.recommendations(study.study_id) == made

    def test_another_studys_evidence_is_not_shown(self, ledger: Ledger, study: StudyRecord) -> None:
        other = ledger.open_study("digits", "f2", JOB)
        ledger.add_predictions([predicted(study)])
        ledger.add_fit(fitted(study))
        started(ledger, study)
        assert ledger.predictions(other.study_id) == []
        assert ledger.past_fits(other.fingerprint) == ledger.past_fits(study.fingerprint)
        assert ledger.probes(other.study_id) == []
