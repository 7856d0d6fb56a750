"""Several workers, and workers that are killed, on one database."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from search_spaces import Configuration
from storage import open_storage
from storage.engine import parsed
from tuner.domain.measurement import Outcome, Purpose

ROOT = Path(__file__).parents[2]
CONFIGURATION = Configuration(batch_size=8)

FIRST_START = """
import sys
from storage import open_storage
sys.stdin.readline()
with open_storage(sys.argv[1]) as storage:
    storage.optuna_storage()
    print(storage.ledger.open_study("digits", "f1", {}).study_id)
"""

RACE = """
import json, sys
from storage import open_storage
from tuner.domain.errors import LeaseLostError
url, owner, probes = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
won = {}
with open_storage(url) as storage:
    print("ready", flush=True)
    sys.stdin.readline()
    for probe in probes:
        try:
            won[probe] = storage.ledger.take_probe(probe, owner=owner, lease_seconds=600).attempt
        except LeaseLostError:
            pass
print(json.dumps(won))
"""

WRITER = """
import sys
from search_spaces import Configuration
from storage import open_storage
from tuner.domain.measurement import CurvePoint, Measurement, Outcome, Purpose
storage = open_storage(sys.argv[1])
study = storage.ledger.open_study("digits", "f1", {})
configuration = Configuration(batch_size=8)
lease = storage.ledger.start_probe(
    study.study_id, configuration, Purpose.TRAINING, trial_number=0, owner="writer", lease_seconds=0.0
)
for number in range(1_000_000):
    curve = tuple(
        CurvePoint(training_seconds=1.0, step=number, samples=index, value=0.5) for index in range(50)
    )
    storage.ledger.append_slice(lease, Measurement(
        configuration=configuration,
        purpose=Purpose.TRAINING,
        outcome=Outcome.PAUSED,
        curve=curve,
        step=number,
    ))
    print(number, flush=True)
"""


def started(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(processes: list[subprocess.Popen[str]]) -> list[Any]:
    """What each process printed last, once all were let go; every error is shown."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    ended = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), [e for _, e in ended]
    return [json.loads(out.splitlines()[-1]) for out, _ in ended]


@pytest.mark.slow
def test_workers_that_start_together_on_a_new_database_share_one_study(database_url: str) -> None:
    answers = finished([started(FIRST_START, database_url) for _ in range(6)])
    assert len(set(answers)) == 1
    with open_storage(database_url) as storage:
        assert [study.name for study in storage.ledger.studies()] == ["digits"]


@pytest.mark.slow
def test_each_of_many_raced_for_probes_goes_to_one_worker(database_url: str) -> None:
    with open_storage(database_url) as storage:
        study = storage.ledger.open_study("digits", "f1", {})
        leases = [
            storage.ledger.start_probe(
                study.study_id,
                CONFIGURATION,
                Purpose.TRAINING,
                trial_number=None,
                owner="dead",
                lease_seconds=0.0,
            )
            for _ in range(20)
        ]
    names = json.dumps([lease.probe_id for lease in leases])
    racers = [started(RACE, database_url, f"racer-{number}", names) for number in range(4)]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    won = finished(racers)
    taken = [int(probe) for prizes in won for probe in prizes]
    assert sorted(taken) == [lease.probe_id for lease in leases]
    assert {attempt for prizes in won for attempt in prizes.values()} == {2}
    with open_storage(database_url) as storage:
        holders = {probe.probe_id: probe.lease for probe in storage.ledger.probes(study.study_id)}
    for number, prizes in enumerate(won):
        for probe in prizes:
            lease = holders[int(probe)]
            assert lease is not None
            assert lease.owner == f"racer-{number}"


@pytest.mark.slow
@pytest.mark.parametrize("num_slices", [1, 7, 30])
def test_a_writer_killed_in_its_loop_leaves_whole_slices_only(database_url: str, num_slices: int) -> None:
    writer = started(WRITER, database_url)
    assert writer.stdout is not None
    assert writer.stderr is not None
    with writer:
        printed = [writer.stdout.readline() for _ in range(num_slices)]
        writer.send_signal(signal.SIGKILL)
        # `communicate` would pass over lines that `readline` has fetched already.
        out, errors = writer.stdout.read(), writer.stderr.read()
    assert printed[-1] == f"{num_slices - 1}\n", errors
    # What was printed was paid for and committed; the slice under way is there whole or not at all.
    committed = num_slices + out.count("\n")
    with open_storage(database_url) as storage:
        (study,) = storage.ledger.studies()
        (probe,) = storage.ledger.probes(study.study_id)
        assert [measurement.step for measurement in probe.slices] == list(range(len(probe.slices)))
        assert len(probe.slices) in (committed, committed + 1)
        assert {len(measurement.curve) for measurement in probe.slices} == {50}
        lease = storage.ledger.take_probe(probe.probe_id, owner="next", lease_seconds=60)
        assert lease.attempt == 2
        storage.ledger.end_probe(probe.probe_id, Outcome.STOPPED, "enough")
    path = parsed(database_url).database if database_url.startswith("sqlite") else None
    if path is not None:
        with sqlite3.connect(path) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()
