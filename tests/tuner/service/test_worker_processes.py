"""Real workers and recorded jobs: kills, signals, requests, and processes that come back too late."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from benchmarks.soak_service import children_of
from storage import open_storage
from storage.database import Storage
from tests.recorded_grid import write_job
from tuner.domain.job_queue import FileKind, JobRecord, JobState, NewJob

pytestmark = pytest.mark.slow

TIMEOUT_SECONDS = 90.0
SCRIPT = """
import json, os, time
with open(os.environ["PACELINE_METRICS"], "a") as metrics:
    for step in range(1, 4000):
        line = {"step": step, "samples": 16 * step, "value": 1 + 1 / step}
        print(json.dumps(line), file=metrics, flush=True)
        time.sleep(0.05)
"""
COMMAND_JOB = """
name = "slow"
[workload]
command = "{python} train.py --lr {learning_rate} --batch-size {batch_size}"
[goal]
metric = "loss"
target = 0.5
[space]
batch_size = [16, 32]
learning_rate = { low = 0.001, high = 0.03 }
[budget]
time = "600s"
"""


#: Saves when it is asked to end, and resumes.
SAVING_SCRIPT = """
import json, os, pathlib, sys, time
state = pathlib.Path(sys.argv[sys.argv.index("--save") + 1])
first = int(state.read_text()) if state.exists() and "--resume" in sys.argv else 0
with open(os.environ["PACELINE_METRICS"], "a") as metrics:
    for step in range(first + 1, 10**6):
        line = {"step": step, "samples": 16 * step, "value": 1 + 1 / step}
        print(json.dumps(line if step % 20 == 0 else {**line, "value": None}), file=metrics, flush=True)
        time.sleep(0.05)
        if os.path.exists(os.environ["PACELINE_STOP_FILE"]):
            state.parent.mkdir(parents=True, exist_ok=True)
            state.write_text(str(step))
            break
"""
SAVING_JOB = COMMAND_JOB.replace('{batch_size}"', '{batch_size} --save {checkpoint}"\nresume = "--resume"', 1)


@dataclass
class Place:
    folder: Path
    store: Storage
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def submit(self, count: int = 1) -> int:
        """Submits recorded jobs; returns the number of the last one."""
        path = write_job(self.folder, ('time = "10m"', 'time = "10m"\nprobes = 6'))
        return self._submit(path.read_text(), "grid.jsonl.gz", count)

    def submit_command(self, script: str = SCRIPT, job: str = COMMAND_JOB) -> int:
        """Submits a job whose script trains for minutes."""
        (self.folder / "train.py").write_text(script)
        return self._submit(job, "train.py", 1)

    def _submit(self, text: str, file: str, count: int) -> int:
        digest = self.store.queue.put_file((self.folder / file).read_bytes())
        new = NewJob(name="replay", job_file=text, files={file: digest}, options={"past_studies": False})
        return [self.store.queue.submit(new)[0].job_id for _ in range(count)][-1]

    def start(self, *options: str) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PACELINE_")}
        environment |= {"PACELINE_STORAGE": f"sqlite:///{self.folder}/service.db", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "cli", "worker", f"--artifacts={self.folder}/shared", "--lease=3"]
        root = str(Path(__file__).parents[3])
        with (self.folder / "workers.log").open("ab") as log:
            worker = subprocess.Popen(
                [*command, *options],
                cwd=self.folder,
                env={**environment, "PYTHONPATH": root},
                stdout=log,
                stderr=log,
            )
        self.workers.append(worker)
        return worker

    def is_writable(self) -> bool:
        with contextlib.closing(sqlite3.connect(self.folder / "service.db", timeout=0.2)) as database:
            try:
                database.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return False
            return True

    def job(self, job_id: int) -> JobRecord:
        return self.store.queue.job(job_id)

    def wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not condition():
            assert time.monotonic() < deadline, (self.folder / "workers.log").read_text()
            time.sleep(0.05)

    def wait_for_slices(self, job_id: int, kind: str = "slice") -> None:
        """Waits until the search of a job has measured something."""
        self.wait(lambda: any(event.kind == kind for event in self.store.queue.events(job_id)))

    def reported_step(self, job_id: int) -> int:
        """Returns the largest step that a running slice of a job has reported."""
        return max((s["step"] for s in self.job(job_id).current_progress.get("slices", ())), default=0)

    def final_events(self, job_id: int) -> list[str]:
        events = self.store.queue.events(job_id)
        return [
            e.text for e in events if e.kind == "state" and e.text.startswith(("succeeded", "failed", "canc"))
        ]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with open_storage(f"sqlite:///{tmp_path}/service.db") as store:
        found = Place(tmp_path, store)
        yield found
        for worker in found.workers:
            for process in (*children_of(worker.pid), worker.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGCONT)
                    os.kill(process, signal.SIGKILL)
            worker.wait()


def test_a_stopped_worker_hands_its_job_back_and_the_next_one_continues_its_study(place: Place) -> None:
    job_id = place.submit()
    worker = place.start()
    place.wait_for_slices(job_id)
    worker.terminate()
    assert worker.wait(TIMEOUT_SECONDS) == 0
    job = place.job(job_id)
    assert (job.state, job.failures, job.worker) == (JobState.QUEUED, 0, "")
    assert place.store.queue.workers()[0].stopped_at is not None
    before = place.store.ledger.probes(job.study_id or 0)
    assert any(probe.slices for probe in before)
    assert all(probe.lease is None for probe in before)
    assert place.start("--drain-after-jobs=1").wait(TIMEOUT_SECONDS) == 0
    after = place.job(job_id)
    assert (after.state, after.attempt, after.study_id) == (JobState.SUCCEEDED, 2, job.study_id)
    probes = {p.probe_id: p for p in place.store.ledger.probes(job.study_id or 0)}
    assert all(probes[p.probe_id].slices[: len(p.slices)] == p.slices for p in before)
    assert place.final_events(job_id) == ["succeeded"]


def test_a_stopped_worker_lets_a_script_save_and_the_next_one_resumes_there(place: Place) -> None:
    job_id = place.submit_command(SAVING_SCRIPT, SAVING_JOB)
    worker = place.start()
    place.wait(lambda: place.reported_step(job_id) > 25)
    worker.terminate()
    assert worker.wait(TIMEOUT_SECONDS) == 0
    job = place.job(job_id)
    assert job.state is JobState.QUEUED
    (probe,) = place.store.ledger.probes(job.study_id or 0)
    saved = probe.slices[-1]
    assert saved.checkpoint is not None
    assert saved.step > 25
    place.start()
    place.wait(lambda: place.job(job_id).attempt == 2 and place.reported_step(job_id) > saved.step)
    place.store.queue.cancel(job_id, "seen enough")
    place.wait(lambda: place.job(job_id).state.has_ended)
    (resumed,) = [p for p in place.store.ledger.probes(job.study_id or 0) if p.probe_id == probe.probe_id]
    assert all(m.restart_seconds is None for m in resumed.slices)


def test_a_killed_worker_loses_nothing_because_its_process_hands_the_job_back(place: Place) -> None:
    job_id = place.submit()
    worker = place.start()
    place.wait_for_slices(job_id)
    worker.kill()
    worker.wait()
    place.wait(lambda: place.job(job_id).state is not JobState.RUNNING)
    assert place.job(job_id).state is JobState.QUEUED


def test_a_killed_process_of_a_job_is_replaced_at_once_and_the_job_ends_once(place: Place) -> None:
    job_id = place.submit()
    worker = place.start()
    place.wait_for_slices(job_id)
    (child,) = children_of(worker.pid)
    os.kill(child, signal.SIGKILL)
    place.wait(lambda: place.job(job_id).state.has_ended)
    job = place.job(job_id)
    assert (job.state, job.attempt, job.failures) == (JobState.SUCCEEDED, 2, 1)
    assert place.final_events(job_id) == ["succeeded"]
    assert set(place.store.queue.job_files(job_id, FileKind.LOG)) == {"attempt-1.log", "attempt-2.log"}


def test_a_process_that_was_stopped_and_comes_back_late_changes_nothing(place: Place) -> None:
    job_id = place.submit()
    worker = place.start()
    place.wait_for_slices(job_id)
    (child,) = children_of(worker.pid)
    while True:
        for process in (worker.pid, child):
            os.kill(process, signal.SIGSTOP)
        if place.is_writable():
            break
        # A process that is stopped in a transaction locks all others out of SQLite.
        for process in (worker.pid, child):
            os.kill(process, signal.SIGCONT)
        time.sleep(0.05)
    assert place.start("--drain-after-jobs=1").wait(TIMEOUT_SECONDS) == 0
    job, events = place.job(job_id), place.store.queue.events(job_id)
    assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)
    probes = place.store.ledger.probes(job.study_id or 0)
    reports = place.store.queue.job_files(job_id, FileKind.REPORT)
    os.kill(child, signal.SIGCONT)
    place.wait(lambda: (Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]) == "Z")
    os.kill(worker.pid, signal.SIGCONT)
    worker.terminate()
    worker.wait(TIMEOUT_SECONDS)
    assert place.job(job_id) == job
    assert place.store.queue.events(job_id) == events
    assert place.store.ledger.probes(job.study_id or 0) == probes
    assert place.store.queue.job_files(job_id, FileKind.REPORT) == reports


def test_pause_resume_and_cancel_reach_a_running_script(place: Place) -> None:
    job_id = place.submit_command()
    place.start()
    place.wait(lambda: place.reported_step(job_id) > 0)
    running = place.job(job_id).current_progress["slices"][0]
    assert running["configuration"]["batch_size"] in (16, 32)
    place.store.queue.pause(job_id)
    place.wait(lambda: place.job(job_id).state is JobState.PAUSED)
    paused = place.job(job_id)
    assert paused.usage.seconds > 0
    place.store.queue.resume(job_id)
    place.wait(lambda: place.job(job_id).attempt == 2 and place.reported_step(job_id) > 0)
    place.store.queue.cancel(job_id, "not needed")
    place.wait(lambda: place.job(job_id).state.has_ended)
    job = place.job(job_id)
    assert (job.state, job.exit_code, job.reason) == (JobState.CANCELLED, 130, "not needed")
    assert (job.failures, job.study_id) == (0, paused.study_id)
    assert job.usage.seconds > paused.usage.seconds
    probes = place.store.ledger.probes(job.study_id or 0)
    assert job.usage.seconds == pytest.approx(sum(m.charged_seconds for p in probes for m in p.slices))


def test_the_url_of_the_database_is_neither_on_command_lines_nor_in_environments(place: Place) -> None:
    job_id = place.submit_command()
    worker = place.start()
    place.wait(lambda: bool(place.job(job_id).progress.get("slices")))
    found = [*children_of(worker.pid)]
    for process in found:
        found += children_of(process)
        assert b"service.db" not in Path(f"/proc/{process}/cmdline").read_bytes()
        assert b"PACELINE_STORAGE" not in Path(f"/proc/{process}/environ").read_bytes()
    assert len(found) > 1
