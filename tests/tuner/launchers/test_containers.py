"""Command lines of container runtimes, run by small programs with the names of the runtimes.

No runtime is installed where these tests run. The programs check their arguments and run the command
without a container, with only the variables that were passed on.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tuner.launchers.container_programs import install_runtimes
from tuner.domain.errors import JobError
from tuner.launchers import CommandTask, JobState, JobStatus, containers
from tuner.launchers.command_launcher import CommandLauncher
from tuner.launchers.containers import RUNTIMES, Container, contained, container_runtime
from tuner.launchers.local_nodes import LocalNodes


@pytest.fixture
def runtimes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on PATH with programs that stand for docker, podman and apptainer."""
    return install_runtimes(tmp_path / "bin", monkeypatch)


def container(folder: Path, runtime: str, **changed: Any) -> Container:
    standard = {
        "image": "team/train:1.0",
        "folders": (folder, folder / "sub"),
        "working_folder": folder,
        "variables": ("SECRET", "TEXT"),
        "task_folder": folder,
        "grace_seconds": 5.0,
    }
    return Container(runtime=runtime, **{**standard, **changed})


def run(command: str, folder: Path, runtime: str, *, grace_seconds: float = 5.0) -> Callable[[], JobStatus]:
    """Starts a command in a container with the local launcher; returns a function that polls it."""
    inside = container(folder, runtime, grace_seconds=grace_seconds)
    launcher = CommandLauncher(LocalNodes(devices=[]))
    task = CommandTask(
        command=contained(command, inside),
        environment={"SECRET": "s3cr3t", "TEXT": "a 'b' $c\nd"},
        working_folder=folder,
        folder=folder,
        grace_seconds=grace_seconds,
    )
    handle = launcher.submit_command(task, num_nodes=1, devices_per_node=1)

    def poll(*, cancel: bool = False, close: bool = False) -> JobStatus:
        if cancel:
            launcher.cancel(handle)
        status = launcher.poll(handle)
        if status.state.has_ended or close:
            launcher.close()
        return status

    return poll


def ended(poll: Callable[..., JobStatus]) -> JobStatus:
    until = time.monotonic() + 60.0
    while not (status := poll()).state.has_ended:
        assert time.monotonic() < until
        time.sleep(0.02)
    return status


def wait_for(path: Path) -> None:
    until = time.monotonic() + 60.0
    while not path.exists():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["docker", "podman", "apptainer"])
def test_a_command_runs_in_its_container_with_its_variables(
    tmp_path: Path, runtimes: Path, runtime: str
) -> None:
    folder = tmp_path / "a 'folder'"
    folder.mkdir()
    names = "IN_CONTAINER SECRET TEXT RANK PACELINE_NODE_RANK HOME"
    command = f"""python3 -c 'import json, os; n = "{names}".split(); """
    command += """json.dump({k: os.environ.get(k) for k in n}, open("seen.json", "w"))'"""
    assert ended(run(command, folder, runtime)).state is JobState.SUCCEEDED
    seen = json.loads((folder / "seen.json").read_text())
    assert (seen["IN_CONTAINER"], seen["SECRET"], seen["TEXT"]) == (runtime, "s3cr3t", "a 'b' $c\nd")
    assert (seen["PACELINE_NODE_RANK"], seen["HOME"]) == ("0", None)
    calls = (runtimes / "calls.jsonl").read_text()
    assert "s3cr3t" not in calls
    assert json.loads(calls)[0] == runtime


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["docker", "apptainer"])
def test_the_exit_code_and_the_output_are_those_of_the_command(
    tmp_path: Path, runtimes: Path, runtime: str
) -> None:
    status = ended(run("echo out of luck >&2; exit 7", tmp_path, runtime))
    assert status.state is JobState.FAILED
    assert (status.failures[0].exit_code, "out of luck" in status.failures[0].reason) == (7, True)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["docker", "apptainer"])
def test_a_cancelled_command_may_save_and_is_killed_after_its_grace(
    tmp_path: Path, runtimes: Path, runtime: str
) -> None:
    script = "trap 'echo saved > saved; exit 0' TERM; touch started; while :; do sleep 0.1; done"
    poll = run(script, tmp_path, runtime)
    wait_for(tmp_path / "started")
    poll(cancel=True)
    assert ended(poll).state is JobState.CANCELLED
    assert (tmp_path / "saved").read_text() == "saved\n"
    poll = run("trap '' TERM; touch deaf; while :; do sleep 0.1; done", tmp_path, runtime, grace_seconds=1.0)
    wait_for(tmp_path / "deaf")
    poll(cancel=True)
    assert ended(poll).state is JobState.CANCELLED


@pytest.mark.slow
def test_a_container_ends_itself_if_nobody_watches_it(
    tmp_path: Path, runtimes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "_SILENT_SECONDS", 2)
    monkeypatch.setattr(containers, "_WATCH_SECONDS", 1)
    line = contained("touch started; exec sleep 600", container(tmp_path, "docker"))
    before = time.monotonic()
    done = subprocess.run(["/bin/sh", "-c", line], cwd=tmp_path, timeout=60)
    assert (tmp_path / "started").exists()
    assert done.returncode == 128 + 9
    assert time.monotonic() - before < 30


def test_pyxis_starts_a_step_of_the_job_in_the_image(tmp_path: Path) -> None:
    line = contained(
        "python train.py 'a b'", container(tmp_path, "pyxis", image="nvcr.io#nvidia/pytorch:24.01")
    )
    words = shlex.split(line)
    assert words[:3] == ["exec", "srun", "--nodelist=$SLURMD_NODENAME"]
    assert {"--overlap", "--nodes=1", "--ntasks=1", "--kill-on-bad-exit=1"} < set(words)
    assert "--container-image=nvcr.io#nvidia/pytorch:24.01" in words
    assert f"--container-mounts={tmp_path}:{tmp_path}" in words
    assert f"--container-workdir={tmp_path}" in words
    (passed,) = (word for word in words if word.startswith("--container-env="))
    assert passed.startswith("--container-env=SECRET,TEXT,PACELINE_JOB,")
    assert words[-3:] == ["/bin/sh", "-c", "python train.py 'a b'"]


def test_processes_of_others_are_never_killed(tmp_path: Path) -> None:
    # `kill -1` reaches all processes of a user unless the script is the first process of a container.
    for runtime in RUNTIMES:
        line = contained("true", container(tmp_path, runtime))
        assert (" -1" in line) == (runtime in ("docker", "podman"))
        assert line.count(" -1") == line.count('if [ "$$" = 1 ]; then kill "-$1" -1;')


def test_an_runtime_is_found_or_its_absence_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(JobError, match="needs docker, podman or apptainer on this host, and none of them"):
        container_runtime(None, "local")
    (tmp_path / "podman").write_text("")
    (tmp_path / "podman").chmod(0o755)
    assert [container_runtime(None, "local"), container_runtime(None, "slurm")] == ["podman", "apptainer"]
    assert container_runtime("pyxis", "slurm") == "pyxis"
    for launcher in ("torchrun", "ray"):
        with pytest.raises(
            JobError, match=r"needs cluster\.container: .*one of docker, podman, apptainer, pyxis"
        ):
            container_runtime(None, launcher)
