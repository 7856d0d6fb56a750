"""Jobs in the middle of their search and at its end, as a worker would store them."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

from search_spaces import Configuration
from storage.database import Storage
from tests.tuner.report import content_builder
from tuner.domain.analysis import Override
from tuner.domain.job_queue import FileKind, JobLease, JobState, NewJob, Usage, WorkerRecord
from tuner.domain.ledger import RecommendationRecord
from tuner.domain.measurement import CurvePoint, Measurement, Outcome, Purpose

JOB = """\
[workload]
path = "tuner.workloads.digits:Digits"

[goal]
metric = "accuracy"
target = 0.95

[space]
batch_size = [32, 64, 128, 256]
learning_rate = [0.02, 0.05, 0.1, 0.2, 0.5]

[budget]
time = "10m"
"""
#: Batch size, learning rate, final accuracy, seconds of training, state.
PROBES = (
    (32, 0.05, 0.955, 80.0, Outcome.PAUSED),
    (64, 0.1, 0.945, 66.0, Outcome.PAUSED),
    (128, 0.2, 0.94, 40.0, Outcome.STOPPED),
    (128, 0.5, 0.31, 12.0, Outcome.DIVERGED),
    (256, 0.1, 0.86, 20.0, Outcome.STOPPED),
)
WORKER = "gpu-host-3.example-12345-a1b2c3"


def configuration(batch_size: int, learning_rate: float) -> Configuration:
    values = {"nodes": 1, "batch_size": batch_size, "learning_rate": learning_rate, "strategy": "all_reduce"}
    return Configuration(values)


def job_under_way(store: Storage, token_id: int | None, name: str = "digits", **values: Any) -> int:
    """Submits a job, and stores what a worker has found of it so far."""
    limit = {"seconds": 600.0, "node_hours": 1 / 6, "dollars": 4.2}
    plan = {
        "lines": [
            f"job {name}: accuracy >= 0.95, minimize seconds, 1 training run",
            "space: 20 configurations on 1 node",
            "budget: 10m 00s",
            "at most: $4.20, for the largest number of nodes all the time",
        ]
    }
    new = NewJob(name=name, job_file=JOB, token_id=token_id, limit=limit, plan=plan, **values)
    number = store.queue.submit(new)[0].job_id
    lease = store.queue.claim(WORKER, labels=["gpu"], lease_seconds=600, most_failures=3)
    assert lease is not None
    assert lease.job_id == number
    goal = {"metric": "accuracy", "target": 0.95}
    study = store.ledger.open_study(name, f"fingerprint {number}", {"goal": goal}, fresh=True)
    store.queue.set_study(lease, study.study_id)
    for k, (batch_size, rate, value, seconds, outcome) in enumerate(PROBES):
        chosen = configuration(batch_size, rate)
        probe = store.ledger.start_probe(
            study.study_id, chosen, Purpose.STATISTICS, trial_number=k, owner="o", lease_seconds=600
        )
        store.queue.add_event(
            number, "decision", f"train {chosen}: it may be 1.4x faster than the best so far"
        )
        points = [
            CurvePoint(
                training_seconds=seconds * n / 12,
                step=20 * n,
                samples=20 * n * batch_size,
                value=0.1 + (value - 0.1) * (1 - math.exp(-4 * n / 12)) / (1 - math.exp(-4)),
            )
            for n in range(1, 13)
        ]
        measured = Measurement(
            configuration=chosen,
            purpose=Purpose.STATISTICS,
            outcome=outcome,
            curve=tuple(points),
            step=240,
            samples=240 * batch_size,
            training_seconds=seconds,
            charged_seconds=seconds + 4,
            charged_dollars=0.007 * seconds,
        )
        store.ledger.append_slice(probe, measured)
        store.ledger.release(probe)
        store.queue.add_event(number, "slice", f"probe {k + 1}: accuracy {value} after {seconds:.0f} s")
    store.queue.add_event(number, "warning", "probe 4 diverged; learning rates of 0.5 and more are avoided")
    now = time.time()
    best = configuration(64, 0.1).as_dict()
    probes = store.reads.probes(study.study_id)
    progress = {
        "updated_at": now,
        "text": "train 1 node, batch 64, learning rate 0.1 to the target",
        "num_probes": len(PROBES),
        "slices": [
            {
                "probe": probes[1].probe_id,
                "configuration": best,
                "purpose": "training",
                "started_at": now - 30,
                "step": 260,
                "samples": 16640,
                "training_seconds": 72.0,
                "score": 0.946,
                "waiting": "",
            }
        ],
        "incumbent": {
            "configuration": best,
            "seconds": {"low": 76.0, "median": 88.0, "high": 131.0},
            "dollars": {"low": 0.53, "median": 0.62, "high": 0.92},
            "probability_of_reaching": 0.93,
            "is_measured": False,
        },
        "budget": [{"name": "time", "used": 240.0, "limit": 600.0, "share": 0.4}],
        "finish": {"low": now + 9, "median": now + 22, "high": now + 75},
    }
    used = Usage(seconds=240.0, node_hours=240 / 3600, dollars=1.68)
    store.queue.renew(lease, lease_seconds=600, progress=progress, usage=used)
    seen = WorkerRecord(
        name=WORKER,
        version="0.1.0",
        labels=("gpu", "slurm"),
        slots=2,
        draining=False,
        started_at=now - 7200,
        seen_at=now - 3,
        stopped_at=None,
    )
    store.queue.report_worker(seen)
    return number


def recommendation_of(store: Storage, study_id: int, name: str) -> RecommendationRecord:
    """Returns a recommendation with every part of the analysis, and with forecasts of curves of a study."""
    analysis = content_builder.analysis()
    (forecast,) = analysis.curve_forecasts
    forecasts = tuple(
        replace(forecast, probe_id=probe.probe_id, trial_number=None)
        for probe in store.reads.probes(study_id)
    )
    answer = replace(
        content_builder.recommendation(),
        analysis=replace(analysis, curve_forecasts=forecasts),
        overrides=(Override(name=name, stated="1h 00m", used="10m 00s", source="--budget"),),
    )
    return RecommendationRecord(
        study_id=study_id, created_at=answer.created_at, recommendation=answer.to_dict()
    )


def ended_job(
    store: Storage, token_id: int | None, report: str, name: str = "digits-nightly", **values: Any
) -> int:
    """Submits a job and stores its end with a recommendation and a report."""
    number = job_under_way(store, token_id, name, **values)
    study_id = store.queue.job(number).study_id
    assert study_id is not None
    store.ledger.add_recommendation(recommendation_of(store, study_id, name))
    lease = JobLease(job_id=number, attempt=1, worker=WORKER, expires_at=0.0)
    used = Usage(seconds=312.0, node_hours=312 / 3600, dollars=2.2)
    store.queue.finish(lease, JobState.SUCCEEDED, exit_code=0, reason="", usage=used)
    store.queue.add_job_file(number, FileKind.REPORT, "report.html", report.encode())
    store.queue.add_job_file(number, FileKind.REPORT, "report.md", b"# Report")
    store.queue.add_job_file(number, FileKind.REPORT, "recommendation.json", b"{}")
    store.queue.add_job_file(
        number, FileKind.LOG, "attempt-1.log", b"started\nprobe 1: accuracy 0.95\nended\n"
    )
    return number


def other_jobs(store: Storage, token_id: int | None, **values: Any) -> None:
    """Submits jobs in further states."""
    for name, state in (
        ("resnet-50-imagenet", JobState.AWAITING_APPROVAL),
        ("char-lm", JobState.QUEUED),
        ("a-job-with-a-rather-long-name-that-somebody-made-from-a-branch", JobState.QUEUED),
    ):
        limit = {"seconds": 86400.0, "node_hours": 192.0, "dollars": 412.0}
        plan = {
            "lines": ["budget: 24h 00m", "at most: $412.00, for the largest number of nodes all the time"]
        }
        new = NewJob(
            name=name, job_file=JOB, token_id=token_id, limit=limit, plan=plan, state=state, **values
        )
        number = store.queue.submit(new)[0].job_id
        if name == "char-lm":
            store.queue.set_priority(number, 5)
