"""The job of a slice: the environment of its processes, and what it leaves on disk."""

from __future__ import annotations

import json
import shlex
import sys
import time
from pathlib import Path

import pytest

from search_spaces import Configuration
from tests.tuner.launchers.container_programs import install_runtimes
from tuner.domain.measurement import Measurement, Outcome, Purpose
from tuner.job import Job
from tuner.launchers import CommandLauncher, LocalNodes
from tuner.probes import Until
from tuner.probes.commands.prober import CommandProber

CONFIGURATION = Configuration(nodes=2, batch_size=10, learning_rate=0.5, strategy="all_reduce")


def slice_of(
    folder: Path, script: str, *arguments: str, cluster: dict[str, object] | None = None, **more: object
) -> Measurement:
    """A slice of 10 samples on two nodes, with everything it started ended."""
    (folder / "script.py").write_text(script)
    job = Job.model_validate(
        {
            "workload": {"command": shlex.join([sys.executable, "script.py", *arguments]), **more},
            "goal": {"metric": "accuracy", "target": 0.99},
            "space": {"batch_size": (10, 20), "learning_rate": (0.5,)},
            "cluster": {"nodes": (2,), **(cluster or {})},
        }
    )
    prober = CommandProber(job, folder, CommandLauncher(LocalNodes()))
    try:
        handle = prober.start(CONFIGURATION, Purpose.STATISTICS, Until(samples=10), folder / "probe")
        deadline = time.monotonic() + 60
        while (seen := prober.poll(handle)).outcome is Outcome.RUNNING:
            assert time.monotonic() < deadline, "the slice did not end"
            time.sleep(0.01)
        return seen
    finally:
        prober.close()


THREADS = """
import os
from paceline_client import report
names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
print(*(os.environ.get(name) for name in names), flush=True)
report(samples=10, value=0.5)
"""


@pytest.mark.parametrize(("one_per", "num_logs"), [("job", 1), ("node", 2), ("rank", 2)])
def test_processes_have_the_threads_that_the_job_states(tmp_path: Path, one_per: str, num_logs: int) -> None:
    seen = slice_of(
        tmp_path,
        THREADS,
        cluster={"threads_per_rank": 3},
        one_per=one_per,
        environment={"MKL_NUM_THREADS": "7"},
    )
    logs = (tmp_path / "probe" / "slices").glob("*/job-*/*-*.log")
    assert seen.outcome is Outcome.PAUSED, seen.error
    assert [log.read_text() for log in logs] == ["3 7 3\n"] * num_logs


def test_processes_have_the_threads_of_their_surroundings_if_the_job_states_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    slice_of(tmp_path, THREADS, one_per="job")
    (log,) = (tmp_path / "probe" / "slices").glob("*/job-*/node-0.log")
    assert log.read_text().split()[:2] == ["5", "None"]


CHATTY = """
import json, os, sys, time
print("first")
for _ in range(60):
    print("x" * 99_999)
print("last", flush=True)
with open(os.environ["PACELINE_METRICS"], "a") as file:
    for _ in range(60):
        file.write(json.dumps({"samples": 10, "much": "x" * 99_999}) + "\\n")
    if sys.argv[1] == "by a failure":
        sys.exit(3)
    file.write(json.dumps({"samples": 10, "value": 0.5}) + "\\n")
if sys.argv[1] == "by the prober":
    time.sleep(1000)
"""


@pytest.mark.parametrize("ends", ["by itself", "by the prober", "by a failure"])
def test_what_a_slice_leaves_on_disk_is_bounded(tmp_path: Path, ends: str) -> None:
    seen = slice_of(tmp_path, CHATTY, ends, one_per="job")
    assert seen.outcome is (Outcome.FAILED if ends == "by a failure" else Outcome.PAUSED), seen.error
    (folder,) = (tmp_path / "probe" / "slices").iterdir()
    (log,) = folder.glob("job-*/node-0.log")
    printed, reported = log.read_text().splitlines(), (folder / "metrics.jsonl").read_text().splitlines()
    for lines in (printed, reported):
        assert sum(map(len, lines)) < 5.1 * 2**20, "the script wrote 6 MB"
    assert (printed[0], printed[-1]) == ("first", "last")
    assert sum("bytes are left out here" in line for line in printed) == 1
    progress = [json.loads(line) for line in reported]
    assert sum(line.get("event") == "left_out" and line["bytes"] > 0 for line in progress) == 1
    assert progress[0]["samples"] == progress[-1]["samples"] == 10
    assert not list(folder.glob("job-*/*.times")), "notes of when lines were written are of no use any more"


def test_a_slice_that_is_given_up_with_its_prober_leaves_as_little(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(CHATTY)
    job = Job.model_validate(
        {
            "workload": {"command": shlex.join([sys.executable, "script.py", "by the prober"])},
            "goal": {"metric": "accuracy", "target": 0.99},
            "space": {"batch_size": (10, 20), "learning_rate": (0.5,)},
        }
    )
    prober = CommandProber(job, tmp_path, CommandLauncher(LocalNodes()))
    one_node = Configuration(nodes=1, batch_size=10, learning_rate=0.5, strategy="all_reduce")
    handle = prober.start(one_node, Purpose.STATISTICS, Until(samples=1000), tmp_path / "probe")
    deadline = time.monotonic() + 60
    while not prober.poll(handle).curve:
        assert time.monotonic() < deadline, "nothing was scored"
        time.sleep(0.01)
    prober.close()
    for path in (tmp_path / "probe" / "slices").glob("*/**/*.[lj]*"):
        assert path.stat().st_size < 5.1 * 2**20, path


@pytest.mark.slow
def test_a_slice_runs_in_the_image_of_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtimes = install_runtimes(tmp_path / "bin", monkeypatch)
    script = """
import os
from paceline_client import report
report(samples=10, value=0.75 if os.environ["IN_CONTAINER"] == "podman" else 0.0)
"""
    cluster = {"image": "team/train:1.0", "container": "podman"}
    measured = slice_of(tmp_path, script, cluster=cluster, environment={"TOKEN": "s3cr3t"})
    assert measured.outcome is Outcome.PAUSED, measured.error
    assert [point.value for point in measured.curve] == [0.75]
    calls = (runtimes / "calls.jsonl").read_text()
    assert ("team/train:1.0" in calls, "--env=TOKEN" in calls, "s3cr3t" in calls) == (True, True, False)
