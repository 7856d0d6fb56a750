from __future__ import annotations

import ast
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.tuner.report.launch.plans import AWKWARD, plan, told_by
from tuner.job.engine_sections import RaySection
from tuner.report.launch import LaunchPlan, launch_text

NUM_NODES = 2


def assigned(made: LaunchPlan) -> dict[str, object]:
    """What the file's upper-case names are."""
    found = {}
    for node in ast.parse(launch_text(made, "ray")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = ast.literal_eval(node.value)
    return found


def test_a_bundle_is_what_the_job_file_says_of_a_node(folder: Path) -> None:
    assert assigned(plan(folder, cores_per_node=8))["RESOURCES"] == {"CPU": 8}
    made = plan(folder, accelerator="A100", devices_per_node=4, cores_per_node=8)
    assert assigned(made)["RESOURCES"] == {"CPU": 8, "GPU": 4}
    section = RaySection(cpus_per_node=6, gpus_per_node=2, resources={"a100": 2.0}, address="http://ray:1")
    stated = plan(folder, settings=section.model_dump(exclude_none=True))
    assert assigned(stated)["RESOURCES"] == {"CPU": 6, "GPU": 2, "a100": 2.0}
    assert "ray job submit --address http://ray:1 " in launch_text(stated, "ray")


def test_the_script_survives_as_a_python_text(folder: Path) -> None:
    made = plan(folder, command=f"echo {AWKWARD!r} \\\n  '{{x}}'\n")
    assert made.command in str(assigned(made)["SCRIPT"])
    assert assigned(made)["NUM_NODES"] == 2


@dataclass(frozen=True, kw_only=True)
class RayCluster:
    """A running Ray of several nodes on this machine.

    Args:
        address: Where it takes jobs.
        command: Its command line.
    """

    address: str
    command: Path

    def submit(self, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs a folder's `job.py` as a job."""
        variables = [f'"{name}": "{value}"' for name, value in environment.items()]
        runtime = "{" + f'"env_vars": {{{", ".join(variables)}}}' + "}"
        return subprocess.run(
            [
                str(self.command), "job", "submit", "--address", self.address, "--working-dir", str(folder),
                "--runtime-env-json", runtime, "--", str(self.command.with_name("python")), "job.py",
            ],
            capture_output=True, text=True, timeout=240, env=outside_ray(),
        )  # fmt: skip


def outside_ray() -> dict[str, str]:
    """This process's environment, less what would lead Ray elsewhere."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTHON"))}


def ports(count: int) -> list[int]:
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [int(listener.getsockname()[1]) for listener in listeners]


def until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain"
        time.sleep(0.5)


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[RayCluster]:
    """Two raylets; ended by the processes that were started, never by `ray stop`, which ends others' too."""
    found = shutil.which("ray", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if found is None:
        pytest.skip("Ray is not installed: pip install 'paceline[ray]'")
    port, client, dashboard, agent = ports(4)
    # Sockets in it have paths of at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="ray") as short:
        environment = {**outside_ray(), "RAY_TMPDIR": short, "RAY_USAGE_STATS_ENABLED": "0"}
        (Path(short) / "ray").mkdir()
        shared = ["start", "--block", "--num-cpus=2", "--object-store-memory=100000000"]
        head = [
            "--head", f"--port={port}", f"--ray-client-server-port={client}", "--node-ip-address=127.0.0.1",
            "--include-dashboard=true", f"--dashboard-port={dashboard}",
            f"--dashboard-agent-listen-port={agent}",
        ]  # fmt: skip
        others = [f"--address=127.0.0.1:{port}", "--dashboard-agent-listen-port=0"]
        cluster = RayCluster(address=f"http://127.0.0.1:{dashboard}", command=Path(found))
        started = []
        try:
            for arguments in (head, *[others] * (NUM_NODES - 1)):
                command = [found, *shared, *arguments]
                started.append(_started(command, environment, Path(short) / f"{len(started)}.log"))
                until(lambda: _answers(port), 90)
            until(lambda: _lists_jobs(cluster), 120)
            yield cluster
        finally:
            for process in reversed(started):
                process.terminate()
            for process in reversed(started):
                with suppress(subprocess.TimeoutExpired):
                    process.wait(20)
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _started(command: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("w") as output:
        return subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, start_new_session=True
        )


def _answers(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


def _lists_jobs(cluster: RayCluster) -> bool:
    answer = subprocess.run(
        [str(cluster.command), "job", "list", "--address", cluster.address],
        capture_output=True,
        env=outside_ray(),
    )
    return answer.returncode == 0


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.slow
def test_ray_tells_every_node_its_place(folder: Path, tmp_path: Path, ray_cluster: RayCluster) -> None:
    (folder / "job.py").write_text(launch_text(plan(folder), "ray"))
    ended = ray_cluster.submit(folder, OUT=str(tmp_path))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    places = [told_by(tmp_path, node) for node in (0, 1)]
    for node, place in enumerate(places):
        assert place[0] == f"{node} of 2"
        assert place[1] == place[2] == places[0][1]
        assert place[3] == AWKWARD


@pytest.mark.slow
def test_a_failing_node_ends_the_others_and_the_job(
    folder: Path, tmp_path: Path, ray_cluster: RayCluster
) -> None:
    waits = 'echo $$ > "$OUT/process"; sleep 300; :'
    fails = 'until [ -s "$OUT/process" ]; do sleep 0.1; done; exit 3'
    made = plan(folder, command=f'if [ "$PACELINE_NODE_RANK" = 0 ]; then {waits}; else {fails}; fi')
    (folder / "job.py").write_text(launch_text(made, "ray"))
    ended = ray_cluster.submit(folder, OUT=str(tmp_path))
    assert ended.returncode != 0
    assert "node 1 ended with 3" in ended.stdout + ended.stderr
    process = int((tmp_path / "process").read_text())
    until(lambda: not alive(process), 30)
