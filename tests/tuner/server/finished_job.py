"""A job with a study, as a worker would have left it, for tests of the server."""

from __future__ import annotations

import math

from search_spaces import Configuration
from storage.database import Storage
from tests.tuner.service.test_exporting import recommendation
from tuner.domain.job_queue import FileKind, JobState, NewJob, Usage, WorkerRecord
from tuner.domain.ledger import PredictionRecord, RecommendationRecord
from tuner.domain.measurement import CurvePoint, Measurement, Outcome, Purpose

JOB = """
[workload]
path = "tuner.workloads.digits:Digits"
[cluster]
nodes = [1, 2]
[goal]
metric = "accuracy"
target = 0.9
[space]
batch_size = [64, 128]
learning_rate = [0.05, 0.1]
[budget]
time = "2m"
"""
CONFIGURATION = Configuration(nodes=2, batch_size=64, learning_rate=0.05)
NUM_POINTS = 30


def add_finished_job(store: Storage, job_file: str = JOB) -> int:
    """Adds a job that has ended with a recommendation, and returns its number."""
    submitted, _ = store.queue.submit(NewJob(name="digits", job_file=job_file, plan={"lines": ["a plan"]}))
    job_id = submitted.job_id
    worker = WorkerRecord(
        name="host:1:ab",
        version="1",
        labels=("gpu",),
        slots=2,
        draining=False,
        started_at=1.0,
        seen_at=2e9,
        stopped_at=None,
    )
    store.queue.report_worker(worker)
    lease = store.queue.claim(worker.name, labels=("gpu",), lease_seconds=60, most_failures=3)
    assert lease is not None
    goal = {"metric": "accuracy", "target": 0.9}
    study_id = store.ledger.open_study("digits", "f", {"goal": goal}, fresh=True).study_id
    store.queue.set_study(lease, study_id)
    points = tuple(
        CurvePoint(
            training_seconds=10.0 * i, step=i, samples=64 * i, value=0.03 * i + 1e-9 if i != 5 else math.nan
        )
        for i in range(1, NUM_POINTS + 1)
    )
    probe = store.ledger.start_probe(
        study_id, CONFIGURATION, Purpose.TRAINING, trial_number=0, owner="w", lease_seconds=60
    )
    prediction = PredictionRecord(
        study_id=study_id,
        configuration=CONFIGURATION,
        created_at=1.0,
        quantiles={0.05: 100.0, 0.5: 200.0, 0.95: math.inf},
        dollars={0.5: 1.0, 0.95: math.inf},
        probability_of_reaching=0.9,
        num_slices=1,
        seconds_observed=30.0,
    )
    store.ledger.add_predictions([prediction])
    measurement = Measurement(
        configuration=CONFIGURATION,
        purpose=Purpose.TRAINING,
        outcome=Outcome.REACHED,
        curve=points,
        step=NUM_POINTS,
        samples=64 * NUM_POINTS,
        training_seconds=10.0 * NUM_POINTS,
        charged_seconds=310.0,
    )
    store.ledger.append_slice(probe, measurement)
    answer = recommendation().to_dict()
    store.ledger.add_recommendation(
        RecommendationRecord(study_id=study_id, created_at=2.0, recommendation=answer)
    )
    for name, text in (("report.html", "<h1>report</h1>"), ("report.md", "# report"), ("trials.csv", "a,b")):
        store.queue.add_job_file(job_id, FileKind.REPORT, name, text.encode())
    store.queue.add_job_file(job_id, FileKind.REPORT, "recommendation.json", b"{}")
    store.queue.add_job_file(job_id, FileKind.LOG, "job.log", b"one line\n")
    store.queue.add_event(job_id, "decision", "trains 2 nodes\nnext line", {"seconds": math.inf})
    store.queue.renew(lease, lease_seconds=60, progress={"text": "half", "seconds": math.nan})
    store.queue.finish(lease, JobState.SUCCEEDED, exit_code=0, reason="", usage=Usage(seconds=310.0))
    return job_id
