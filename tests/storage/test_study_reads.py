from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from search_spaces import Configuration
from storage import open_storage
from storage.database import Storage
from tuner.domain.errors import StorageError
from tuner.domain.job_queue import NewJob
from tuner.domain.ledger import PredictionRecord, RecommendationRecord
from tuner.domain.measurement import CurvePoint, Measurement, Outcome, Purpose, merged

CONFIGURATION = Configuration(nodes=1, batch_size=64)


@pytest.fixture
def store(database_url: str) -> Iterator[Storage]:
    with open_storage(database_url, lambda: 1000.0) as store:
        yield store


def point(samples: int, value: float) -> CurvePoint:
    return CurvePoint(training_seconds=samples / 10, step=samples // 10, samples=samples, value=value)


def part(
    points: list[CurvePoint], outcome: Outcome = Outcome.PAUSED, restart: float | None = None
) -> Measurement:
    return Measurement(
        configuration=CONFIGURATION,
        purpose=Purpose.STATISTICS,
        outcome=outcome,
        curve=tuple(points),
        step=points[-1].step,
        samples=points[-1].samples,
        training_seconds=points[-1].training_seconds,
        restart_seconds=restart,
        charged_seconds=2.0,
        charged_dollars=0.5,
    )


def probe(store: Storage, study_id: int, *slices: Measurement) -> int:
    lease = store.ledger.start_probe(
        study_id, CONFIGURATION, Purpose.STATISTICS, trial_number=None, owner="w", lease_seconds=60
    )
    for measurement in slices:
        store.ledger.append_slice(lease, measurement)
    return lease.probe_id


def new_study(store: Storage) -> int:
    return store.ledger.open_study("job", "f", {"goal": {"target": 0.9}}, fresh=True).study_id


CURVES = {
    "two slices": [part([point(10, 0.1), point(20, 0.2)]), part([point(30, 0.3)])],
    "a score twice": [part([point(10, 0.1), point(20, 0.2)]), part([point(20, 0.25), point(30, 0.3)])],
    "started anew": [
        part([point(10, 0.1), point(20, 0.2), point(30, 0.3)]),
        part([point(10, 0.15), point(20, 0.22)], restart=1.0),
        part([point(25, 0.27)]),
    ],
}


@pytest.mark.parametrize("name", CURVES)
def test_a_curve_is_that_of_the_merged_slices(store: Storage, name: str) -> None:
    study_id = new_study(store)
    probe_id = probe(store, study_id, *CURVES[name])
    found = store.reads.curves(study_id, [probe_id], most_points=100)
    assert found == {probe_id: list(merged(CURVES[name]).curve)}
    assert store.reads.curves(new_study(store), [probe_id], most_points=100) == {}


def test_a_long_curve_is_thinned_between_its_ends(store: Storage) -> None:
    study_id = new_study(store)
    points = [point(10 * i, i / 100) for i in range(1, 100)]
    probe_id = probe(store, study_id, part(points))
    for most in (2, 3, 10, 11, 50, 98, 99, 100):
        found = store.reads.curves(study_id, [probe_id], most_points=most)[probe_id]
        assert (found[0], found[-1]) == (points[0], points[-1])
        assert min(most, 99) / 2 <= len(found) <= most


def test_probes_come_in_pages_with_their_totals(store: Storage) -> None:
    study_id = new_study(store)
    first = probe(store, study_id, *CURVES["two slices"])
    empty = probe(store, study_id)
    reached = probe(store, study_id, part([point(40, 0.95)], Outcome.REACHED))
    page = store.reads.probes(study_id, limit=2)
    assert [found.probe_id for found in page] == [first, empty]
    assert (page[0].num_slices, page[0].samples, page[0].charged_seconds) == (2, 30, 4.0)
    assert (page[0].last_value, page[1].last_value, page[1].is_running) == (0.3, None, True)
    (last,) = store.reads.probes(study_id, after=empty)
    assert (last.probe_id, last.outcome, last.is_running) == (reached, Outcome.REACHED, False)
    assert [record.probe_id for record in store.reads.reached(study_id)] == [reached]


def test_the_newest_recommendation_and_pages_of_predictions_are_read(store: Storage) -> None:
    study_id = new_study(store)
    assert store.reads.recommendation(study_id) is None
    for number in range(3):
        record = RecommendationRecord(study_id=study_id, created_at=1.0, recommendation={"n": number})
        store.ledger.add_recommendation(record)
    assert store.reads.recommendation(study_id) == {"n": 2}
    prediction = PredictionRecord(
        study_id=study_id,
        configuration=CONFIGURATION,
        created_at=1.0,
        quantiles={0.5: 10.0, 0.95: math.inf},
        dollars={0.5: 1.0, 0.95: math.inf},
        probability_of_reaching=0.8,
        num_slices=1,
        seconds_observed=1.0,
    )
    store.ledger.add_predictions([prediction] * 3)
    page = store.reads.predictions(study_id, limit=2)
    assert [record for _, record in page] == [prediction] * 2
    assert len(store.reads.predictions(study_id, after=page[-1][0])) == 1


def test_reads_remember_nothing(store: Storage) -> None:
    study_id = new_study(store)
    probe_id = probe(store, study_id, *CURVES["two slices"])
    fresh = open_storage(store._engine.url.render_as_string(hide_password=False))
    fresh.reads.probes(study_id)
    fresh.reads.curves(study_id, [probe_id], most_points=5)
    fresh.reads.reached(study_id)
    assert (fresh.ledger._read_studies, fresh.ledger._read_probes) == ({}, {})
    assert fresh.ledger.unsaved(everything=False) == []
    fresh.close()


def test_sizes_of_files_and_the_age_of_the_queue_are_read(store: Storage) -> None:
    assert store.reads.queued_since() is None
    store.queue.submit(NewJob(name="job", job_file=""))
    assert store.reads.queued_since() == 1000.0
    digest = store.queue.put_file(b"12345")
    assert (store.reads.file_size(digest), store.reads.file_size("0" * 64)) == (5, None)
    assert store.reads.goal(new_study(store)) == {"target": 0.9}


def test_a_server_does_not_wait_long_for_a_locked_database(store: Storage) -> None:
    store.answer_within(0.1)
    (table, lock) = ("paceline_jobs", "IN ACCESS EXCLUSIVE MODE")
    with store._engine.connect() as other:
        is_sqlite = other.dialect.name == "sqlite"
        other.exec_driver_sql("BEGIN IMMEDIATE" if is_sqlite else f"LOCK TABLE {table} {lock}")
        with pytest.raises(StorageError, match="is locked by another process"):
            store.queue.submit(NewJob(name="job", job_file=""))
    assert store.queue.submit(NewJob(name="job", job_file=""))[1]
