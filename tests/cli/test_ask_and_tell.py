"""Trainers that Paceline cannot start, in Python and in shell, with a real server and a real worker."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import paceline_client
import pytest

from storage import open_storage
from tuner.domain.job_queue import JobRecord, JobState, Role
from tuner.domain.remote_slices import RemoteSlice, SliceEnd

pytest.importorskip("fastapi", reason="needs the extra `serve`")

Found = TypeVar("Found")
ROOT = Path(__file__).resolve().parents[2]


class Service:
    """A server and a worker in processes of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.storage = f"sqlite:///{folder}/service.db"
        self._processes: list[subprocess.Popen[bytes]] = []
        with open_storage(self.storage) as store:
            _, self.token = store.tokens.create("a trainer", Role.SUBMIT)
        self._paceline("serve", "--port", "0")
        self._paceline("worker", "--artifacts", str(folder / "artifacts"))
        self.url = self._address()

    def _paceline(self, *arguments: str) -> None:
        environment = {**os.environ, "PACELINE_STORAGE": self.storage}
        with (self.folder / f"{arguments[0]}.log").open("wb") as log:
            command = [sys.executable, "-m", "cli", *arguments]
            self._processes.append(
                subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
            )

    def _address(self) -> str:
        def found() -> str | None:
            match = re.search(r"at (http://\S+?);", (self.folder / "serve.log").read_text())
            return None if match is None else match[1]

        return until(found)

    def open(self, job_text: str) -> int:
        path = self.folder / "remote.toml"
        path.write_text(job_text)
        return paceline_client.connect(self.url, self.token).open(path).job_id

    def trainer(self, *command: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PACELINE_TOKEN": self.token}
        process = subprocess.Popen(command, cwd=self.folder, env=environment, start_new_session=True)
        self._processes.append(process)
        return process

    def job(self, job_id: int) -> JobRecord:
        with open_storage(self.storage) as store:
            return store.queue.job(job_id)

    def slices(self) -> list[RemoteSlice]:
        """All slices, the first one first."""
        found: list[RemoteSlice] = []
        with open_storage(self.storage) as store:
            while True:
                try:
                    found.append(store.remote_slices.slice(len(found) + 1))
                except Exception:
                    return found

    def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.terminate()
        for process in self._processes:
            process.wait(timeout=30)


def until(condition: Callable[[], Found | None], seconds: float = 60.0) -> Found:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("the condition did not become true in time")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path)
    yield service
    service.close()


@pytest.mark.slow
def test_a_python_trainer_is_tuned_to_its_target(service: Service) -> None:
    for name in ("remote_trainer.py", "remote_trainer.toml"):
        shutil.copyfile(ROOT / "examples" / name, service.folder / name)
    trainer = service.trainer(sys.executable, "remote_trainer.py", service.url)
    assert trainer.wait(timeout=90) == 0
    job = service.job(1)
    assert (job.state, job.exit_code) == (JobState.SUCCEEDED, 0), job.reason
    with open_storage(service.storage) as store:
        assert job.study_id is not None
        (stored,) = store.ledger.recommendations(job.study_id)
        (probe, *_) = store.ledger.probes(job.study_id)
    assert stored.recommendation["verified"]["reached"]
    measured = probe.slices[-1]
    # The time that a trainer waits for answers of the server is no training.
    assert 0.0 < measured.training_seconds < measured.charged_seconds
    assert job.usage.seconds > 0.0


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_a_killed_shell_trainer_is_replaced_by_another_one(service: Service) -> None:
    text = (ROOT / "examples" / "remote_trainer.toml").read_text().replace('lease = "30s"', 'lease = "3s"')
    job_id = service.open(text)
    command = ("sh", str(ROOT / "examples" / "trainer.sh"), service.url, str(job_id))
    first = service.trainer(*command)
    # The first slice ends after one score. The trainer is killed in the middle of the second one.
    killed = until(lambda: next((s for s in service.slices()[1:] if s.last_number > 0), None))
    os.killpg(first.pid, signal.SIGKILL)
    second = service.trainer(*command)
    assert second.wait(timeout=90) == 0
    assert service.job(job_id).state is JobState.SUCCEEDED
    slices = service.slices()
    assert next(s for s in slices if s.slice_id == killed.slice_id).end is SliceEnd.LOST
    resumed = slices[killed.slice_id]
    # The next trainer resumes the same training from the checkpoint that the killed one had reported.
    assert (resumed.probe, resumed.instructions["checkpoint"]) == (killed.probe, killed.checkpoint)
    assert resumed.trainer != killed.trainer
