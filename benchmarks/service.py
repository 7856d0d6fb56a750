"""Time of the requests of the service on a database with many jobs and probes.

    .ci/with_postgres.sh python -m benchmarks.service --json
    python -m benchmarks.service --jobs 200 --probes 10000

Inserts jobs and probes in bulk, most of them ended. Measures how long the server takes to answer the list
of jobs, one job, its probes and its page, and how long a claim of the next job takes. Without a server of
PostgreSQL (PACELINE_TEST_POSTGRES_URL), it measures SQLite alone.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from fastapi.testclient import TestClient
from sqlalchemy import insert

from benchmarks.soak_load import POSTGRES, postgres_database
from search_spaces import Configuration
from storage import open_storage
from storage.database import Storage
from storage.engine import engine_for, parsed
from storage.rows import slice_row
from storage.service_tables import job_events, jobs
from storage.tables import curve_points, probes, slices, studies
from storage.transactions import writing
from tuner.domain.job_queue import JobState, Role
from tuner.domain.measurement import Measurement, Outcome, Purpose
from tuner.server.app import create_app
from tuner.server.settings import ServerSettings

_NUM_POINTS = 10
_NUM_EVENTS = 50
_ROWS_AT_ONCE = 20_000
_REPEATS = 30
_CONFIGURATION = Configuration(nodes=1, batch_size=32, learning_rate=0.1, strategy="all_reduce")
_MEASUREMENT = Measurement(
    configuration=_CONFIGURATION,
    purpose=Purpose.STATISTICS,
    outcome=Outcome.PAUSED,
    training_seconds=float(_NUM_POINTS),
    step=_NUM_POINTS,
    samples=32 * _NUM_POINTS,
    charged_seconds=1.0,
)


def fill(url: str, num_jobs: int, num_probes: int) -> None:
    """Stores jobs, each with a study, so that the studies have the given number of probes in all.

    One job in ten is queued, the others have ended.
    """
    connections = engine_for(parsed(url))
    now = time.time()
    each = num_probes // num_jobs
    with writing(connections) as connection:

        def add(table: Any, rows: list[dict[str, Any]]) -> None:
            for first in range(0, len(rows), _ROWS_AT_ONCE):
                connection.execute(insert(table), rows[first : first + _ROWS_AT_ONCE])

        numbers = range(1, num_jobs + 1)
        add(studies, [_study(number, now) for number in numbers])
        add(jobs, [_job(number, now) for number in numbers])
        add(
            job_events,
            [
                {"job_id": j, "number": n, "kind": "decision", "text": "start", "created_at": now, "data": {}}
                for j in numbers
                for n in range(1, _NUM_EVENTS + 1)
            ],
        )
        ids = [(study, (study - 1) * each + k + 1) for study in numbers for k in range(each)]
        add(probes, [_probe(study, probe, now) for study, probe in ids])
        add(slices, [_slice(probe, now) for _, probe in ids])
        add(
            curve_points,
            [
                {
                    "probe_id": probe,
                    "slice_index": 0,
                    "point_index": k,
                    "study_id": study,
                    "training_seconds": float(k),
                    "step": k,
                    "samples": 32 * k,
                    "value": 1.0 / (1 + k),
                }
                for study, probe in ids
                for k in range(_NUM_POINTS)
            ],
        )
    if connections.dialect.name == "postgresql":
        with connections.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            # The rows were inserted with their keys, and the planner needs numbers of rows.
            for table, key in (("jobs", "job_id"), ("studies", "study_id"), ("probes", "probe_id")):
                name = f"paceline_{table}"
                sequence, last = (
                    f"pg_get_serial_sequence('{name}', '{key}')",
                    f"SELECT max({key}) FROM {name}",
                )
                connection.exec_driver_sql(f"SELECT setval({sequence}, ({last}))")
            connection.exec_driver_sql("ANALYZE")
    connections.dispose()


def _study(number: int, now: float) -> dict[str, Any]:
    return {
        "study_id": number,
        "name": f"job-{number}",
        "job_name": f"job-{number}",
        "fingerprint": f"{number:016x}",
        "job": {"goal": {"metric": "loss", "target": 0.01, "direction": "minimize"}},
        "created_at": now,
    }


def _job(number: int, now: float) -> dict[str, Any]:
    is_queued = number % 10 == 0
    return {
        "job_id": number,
        "name": f"job-{number}",
        "job_file": "[goal]\n" * 40,
        "options": {},
        "labels": "," if number % 3 else ",gpu,",
        "priority": number % 5,
        "state": str(JobState.QUEUED if is_queued else JobState.SUCCEEDED),
        "request": "",
        "reason": "",
        "plan": {"lines": ["job"] * 10},
        "used_seconds": 60.0,
        "used_node_hours": 1.0,
        "used_dollars": 1.0,
        "request_digest": "",
        "created_at": now + number,
        "finished_at": None if is_queued else now + number,
        "exit_code": None if is_queued else 0,
        "approved_by": "",
        "attempt": 0 if is_queued else 1,
        "failures": 0,
        "worker": "",
        "study_id": number,
        "progress": {},
        "num_events": _NUM_EVENTS,
    }


def _probe(study: int, probe: int, now: float) -> dict[str, Any]:
    return {
        "probe_id": probe,
        "study_id": study,
        "configuration": _CONFIGURATION.key,
        "purpose": "statistics",
        "trial_number": None,
        "outcome": "paused",
        "reason": "",
        "attempt": 1,
        "created_at": now,
    }


def _slice(probe: int, now: float) -> dict[str, Any]:
    key = {"probe_id": probe, "slice_index": 0, "attempt": 1, "finished_at": now}
    return {**slice_row(_MEASUREMENT), **key}


def measure(store: Storage, num_jobs: int) -> list[dict[str, Any]]:
    """Returns median and 95th percentile of the milliseconds of each request."""
    _, text = store.tokens.create("benchmark", Role.ADMIN)
    client = TestClient(create_app(store, ServerSettings()), headers={"Authorization": f"Bearer {text}"})
    middle = num_jobs // 2

    def get(path: str) -> Callable[[], None]:
        def ask() -> None:
            answer = client.get(path, follow_redirects=False)
            assert answer.status_code == 200, (path, answer.text[:500])

        return ask

    def claim() -> None:
        assert store.queue.claim("w", labels=["gpu"], lease_seconds=60, most_failures=3) is not None

    requests = {
        "list of jobs": get("/api/v1/jobs"),
        "list of jobs, filtered": get("/api/v1/jobs?state=queued&name=job-1"),
        "job": get(f"/api/v1/jobs/{middle}"),
        "events of a job": get(f"/api/v1/jobs/{middle}/events?wait=false"),
        "probes of a job": get(f"/api/v1/jobs/{middle}/probes"),
        "claim of the next job": claim,
    }
    key = re.search(r'name="csrf" value="([^"]+)"', client.get("/login").text)
    assert key is not None
    client.post("/login", data={"csrf": key[1], "token": text}, headers={"Origin": "http://testserver"})
    requests |= {"page of jobs": get("/"), "page of a job": get(f"/jobs/{middle}")}
    found = []
    for name, ask in requests.items():
        ask()
        times = []
        for _ in range(_REPEATS):
            started = time.perf_counter()
            ask()
            times.append(1000 * (time.perf_counter() - started))
        found.append(
            {
                "request": name,
                "median_ms": statistics.median(times),
                "p95_ms": statistics.quantiles(times, n=20)[-1],
            }
        )
    return found


@contextmanager
def _databases() -> Iterator[dict[str, str]]:
    with tempfile.TemporaryDirectory() as folder:
        urls = {"sqlite": f"sqlite:///{folder}/service.db"}
        if not os.environ.get(POSTGRES):
            yield urls
            return
        with postgres_database(os.environ[POSTGRES]) as url:
            yield {**urls, "postgresql": url}


def main(
    num_jobs: Annotated[int, typer.Option("--jobs", help="Number of jobs.")] = 2000,
    num_probes: Annotated[int, typer.Option("--probes", help="Number of probes of all jobs.")] = 100_000,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Measures the requests of the service."""
    rows = []
    with _databases() as urls:
        for database, url in urls.items():
            with open_storage(url) as store:
                print(f"filling {database}", file=sys.stderr)
                fill(url, num_jobs, num_probes)
                rows += [{"database": database, **row} for row in measure(store, num_jobs)]
    result = {"jobs": num_jobs, "probes": num_probes, "rows": rows}
    if as_json:
        print(json.dumps(result, indent=1))
        return
    print(f"{num_jobs} jobs, {num_probes} probes; milliseconds of {_REPEATS} requests")
    for row in rows:
        print(
            f"{row['database']:10}  {row['request']:24}  median {row['median_ms']:6.1f}  "
            f"p95 {row['p95_ms']:6.1f}"
        )


if __name__ == "__main__":
    typer.run(main)
