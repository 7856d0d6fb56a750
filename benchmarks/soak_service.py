"""The service under kills: every job ends once, pays for each slice once, and answers as if undisturbed.

Workers, their processes and the server are killed at random, the connections to PostgreSQL are cut, and it
is restarted. At the end, each job is compared with the same job that nothing disturbed.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.soak_postgres import PostgresServer, postgres_folder
from benchmarks.soak_record import SoakRecord, quantile
from benchmarks.soak_round import ROOT, all_processes
from benchmarks.soak_service_jobs import (
    JOB,
    NODE_HOURS_OF_A_JOB,
    PROBES_OF_A_JOB,
    RECORDING,
    check_job,
    recording,
    undisturbed,
)
from storage import open_storage
from storage.database import Storage
from tuner.domain.job_queue import Quota, Role
from tuner.launchers.process_records import ProcessRecord

#: Seconds of a lease: a stopped process loses its job after this time.
_LEASE_SECONDS = 5.0
#: Seconds between two kills, at random.
_PAUSE_SECONDS = (0.5, 4.0)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Size of a run.

    Args:
        workers: Number of workers, each with one slot.
        jobs: Number of jobs.
        kills: Number of kills of workers and of their processes.
        server_kills: Number of kills of the server.
        seeds: Number of different jobs.
    """

    workers: int
    jobs: int
    kills: int
    server_kills: int = 2
    seeds: int = 8


FULL = Scale(workers=8, jobs=40, kills=40)
SHORT = Scale(workers=3, jobs=6, kills=6, server_kills=1, seeds=2)


def run_service(record: SoakRecord, scale: Scale = FULL, *, databases: tuple[str, ...] = ()) -> None:
    """Runs all jobs on SQLite, and on PostgreSQL if it is installed; the time is a limit for both together.

    Args:
        record: Receives counts, figures and broken invariants.
        scale: Size of the run.
        databases: `sqlite` and `postgresql`; all that are there by default.
    """
    programs = postgres_folder()
    wanted = databases or ("sqlite", *(("postgresql",) if programs else ()))
    expected = {seed: undisturbed(seed) for seed in range(scale.seeds)}
    for database in wanted:
        with tempfile.TemporaryDirectory(prefix="soak-service-", ignore_cleanup_errors=True) as name:
            if database == "sqlite":
                _Service(record, scale, Path(name), f"sqlite:///{name}/service.db", None).run(expected)
            elif programs is not None:
                with PostgresServer(programs) as server:
                    _Service(record, scale, Path(name), server.url, server).run(expected)


@dataclass
class _Service:
    """One database with a server, workers and jobs.

    Args:
        record: Receives counts, figures and broken invariants.
        scale: Size of the run.
        folder: Folder of all files.
        url: URL of the database.
        postgres: The server of the database; None for SQLite.
    """

    record: SoakRecord
    scale: Scale
    folder: Path
    url: str
    postgres: PostgresServer | None
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    stopped: list[tuple[float, ProcessRecord]] = field(default_factory=list)
    server: subprocess.Popen[bytes] | None = None

    def run(self, expected: dict[int, dict[str, object]]) -> None:
        name = "sqlite" if self.postgres is None else "postgresql"
        self.rng = random.Random(self.record.seed)
        started = time.monotonic()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        try:
            with open_storage(self.url) as store:
                seeds = self._submit_all(store)
                self._disturb(store)
                seconds = time.monotonic() - started
                self._end_all()
                for job_id, seed in seeds.items():
                    for invariant, facts in check_job(store, store.queue.job(job_id), expected[seed]):
                        self.record.breaks(invariant, database=name, seed_of_job=seed, **facts)
                self._check_whole(store, name)
                jobs = [store.queue.job(job_id) for job_id in seeds]
        finally:
            self._end_all()
        self.record.counts[f"jobs on {name}"] += len(jobs)
        waits = [job.finished_at - job.started_at for job in jobs if job.finished_at and job.started_at]
        self.record.figures[name] = {
            "workers": self.scale.workers,
            "jobs": len(jobs),
            "probes": len(jobs) * PROBES_OF_A_JOB,
            "seconds": round(seconds, 1),
            "attempts": sum(job.attempt for job in jobs),
            "failed_attempts": sum(job.failures for job in jobs),
            "seconds_from_start_to_end_of_a_job": {
                "median": quantile(waits, 0.5), "max": quantile(waits, 1.0)
            },
        }  # fmt: skip

    def _submit_all(self, store: Storage) -> dict[int, int]:
        """Submits the jobs over HTTP, each twice with one key. Returns the seed of each job."""
        store.queue.put_file(recording())
        quota = Quota(jobs=self.scale.jobs, node_hours=NODE_HOURS_OF_A_JOB * self.scale.jobs)
        token = store.tokens.create("soak", Role.SUBMIT, quota=quota)[1]
        self._start_server()
        seeds = {}
        for number in range(self.scale.jobs):
            seed = number % self.scale.seeds
            found = {self._submit(store, token, seed, f"key-{number}") for _ in range(2)}
            if len(found) != 1:
                self.record.breaks("a repeated submission adds no job", number=number)
            seeds[found.pop()] = seed
        with contextlib.suppress(urllib.error.HTTPError):
            self._submit(store, token, 0, "one-too-many")
            self.record.breaks("no quota is overrun")
        return seeds

    def _submit(self, store: Storage, token: str, seed: int, key: str) -> int:
        digest = store.queue.put_file(recording())
        body = {
            "job_file": JOB.format(seed=seed),
            "files": {RECORDING: digest},
            "options": {"past_studies": False},
        }
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/v1/jobs",
            data=json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {token}",
                "Content-Type": "application/json",
                "Idempotency-Key": key,
            },
        )
        deadline = time.monotonic() + 60.0
        while True:
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return int(json.load(answer)["job_id"])
            except urllib.error.HTTPError:
                raise
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def _disturb(self, store: Storage) -> None:
        """Kills processes at random until all jobs have ended or the time is up."""
        scale, record = self.scale, self.record
        events = self._events_of_the_run()
        kills, next_kill = scale.kills, 0.0
        while True:
            while len(self.workers) < scale.workers:
                self.workers.append(self._start("worker", *self._worker_options()))
            self.workers = [worker for worker in self.workers if worker.poll() is None]
            counts = store.queue.count_jobs()
            ended = sum(count for state, count in counts.items() if state.has_ended)
            if ended >= scale.jobs:
                return
            if record.is_over:
                record.breaks("the jobs end in time", counts={str(s): n for s, n in counts.items()})
                return
            while events and ended >= events[0][0]:
                events.pop(0)[1]()
            now = time.monotonic()
            if kills and now >= next_kill:
                kills -= self._kill()
                next_kill = now + self.rng.uniform(*_PAUSE_SECONDS)
            self._continue_stopped(now)
            record.progress(f"{ended} of {scale.jobs} jobs have ended")
            time.sleep(0.1)

    def _events_of_the_run(self) -> list[tuple[int, Callable[[], None]]]:
        """Returns what happens after how many jobs have ended."""
        jobs, kills = self.scale.jobs, self.scale.server_kills
        events: list[tuple[int, Callable[[], None]]] = [
            (jobs * (i + 1) // (kills + 2), self._kill_server) for i in range(kills)
        ]
        if self.postgres is not None:
            events += [(jobs // 4, self._end_connections), (jobs // 2, self._restart_database)]
        return sorted(events, key=lambda event: event[0])

    def _kill(self) -> int:
        """Kills or stops a worker, a process of a job, or both. Returns whether anything was killed."""
        worker = self.rng.choice(self.workers)
        children = children_of(worker.pid)
        how = self.rng.choice(("worker", "worker and process", "process", "hand back", "stop"))
        if how in ("worker and process", "process", "stop") and not children:
            return 0
        with contextlib.suppress(ProcessLookupError):
            if how in ("worker and process", "process"):
                os.kill(children[0], signal.SIGKILL)
            if how in ("worker", "worker and process"):
                worker.kill()
            if how == "hand back":
                worker.terminate()
            if how == "stop":
                found = ProcessRecord.of(children[0])
                if found is not None:
                    # Long enough to lose the lease. The worker is stopped, too: else it kills the process.
                    for process in (worker.pid, children[0]):
                        os.kill(process, signal.SIGSTOP)
                        record = ProcessRecord.of(process)
                        if record is not None:
                            self.stopped.append((time.monotonic() + 2 * _LEASE_SECONDS, record))
        self.record.counts[f"kills: {how}"] += 1
        return 1

    def _continue_stopped(self, now: float, *, all_of_them: bool = False) -> None:
        for until, record in list(self.stopped):
            if now >= until or all_of_them:
                self.stopped.remove((until, record))
                if record.is_alive:
                    os.kill(record.process, signal.SIGCONT)

    def _kill_server(self) -> None:
        assert self.server is not None
        self.server.kill()
        self.server.wait()
        self.record.counts["kills: server"] += 1
        self._start_server()

    def _end_connections(self) -> None:
        assert self.postgres is not None
        self.record.counts["connections cut"] += self.postgres.end_connections()

    def _restart_database(self) -> None:
        assert self.postgres is not None
        self.postgres.stop()
        time.sleep(1.0)
        self.postgres.start()
        self.record.counts["restarts of the database"] += 1

    def _check_whole(self, store: Storage, name: str) -> None:
        running = [process for process in all_processes() if self._is_ours(process)]
        if running:
            self.record.breaks("no process is left", database=name, number=len(running))
        (token,) = store.tokens.tokens()
        if store.tokens.usage(token.token_id)[1].node_hours > NODE_HOURS_OF_A_JOB * self.scale.jobs:
            self.record.breaks("no quota is overrun", database=name)

    def _end_all(self) -> None:
        """Stops workers and server, and kills what does not stop."""
        self._continue_stopped(0.0, all_of_them=True)
        found = [*self.workers, *([self.server] if self.server is not None else [])]
        for process in found:
            process.terminate()
        for process in found:
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
        deadline = time.monotonic() + 30.0
        while (left := [p for p in all_processes() if self._is_ours(p)]) and time.monotonic() < deadline:
            time.sleep(0.2)
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.workers, self.server = [], None

    def _is_ours(self, process: int) -> bool:
        with contextlib.suppress(OSError):
            environment = Path(f"/proc/{process}/environ").read_bytes()
            return f"PACELINE_SOAK={self.folder}".encode() in environment and process != os.getpid()
        return False

    def _worker_options(self) -> list[str]:
        return [f"--artifacts={self.folder}/shared", f"--lease={_LEASE_SECONDS:g}", "--attempts=100"]

    def _start_server(self) -> None:
        self.server = self._start("serve", f"--port={self.port}")

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PACELINE_")}
        environment |= {
            "PACELINE_SOAK": str(self.folder),
            "PACELINE_STORAGE": self.url,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }
        with (self.folder / f"{arguments[0]}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "cli", *arguments],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def children_of(process: int) -> list[int]:
    """Returns the processes that a process has started and that have not ended."""
    try:
        words = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return []
    return [int(word) for word in words]
