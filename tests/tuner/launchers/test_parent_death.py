"""Helper processes end together with the process that started them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.tuner.launchers.command_conformance import STAYS, processes_of, submit
from tests.tuner.launchers.conformance import is_alive, wait_until
from tuner.launchers import CommandLauncher, LocalNodes

ROOT = Path(__file__).resolve().parents[3]

TUNER = """
    import os, time
    from tuner.launchers.warm_ranks import ForkServer

    server = ForkServer(environment=os.environ, preload=["imports_for_a_minute"])
    print(server.process, flush=True)
    time.sleep(60)
"""


def test_a_fork_server_that_still_imports_dies_with_the_tuner(tmp_path: Path) -> None:
    module = tmp_path / "imports_for_a_minute.py"
    module.write_text(
        "import time, pathlib\npathlib.Path(__file__).with_name('here').touch()\ntime.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(TUNER)], stdout=subprocess.PIPE, text=True, env=environment
    ) as tuner:
        assert tuner.stdout is not None
        server = int(tuner.stdout.readline())
        wait_until((tmp_path / "here").exists, "the server imports")
        tuner.kill()
    wait_until(lambda: not is_alive(server), "the server ends")


def test_a_process_whose_parent_has_ended_exits() -> None:
    code = "from tuner.domain.parent_death import die_with_parent; die_with_parent(1); print('here')"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (answer.returncode, answer.stdout) == (1, "")


def test_a_command_dies_with_its_node_agent_before_the_tuner_polls(tmp_path: Path) -> None:
    launcher = CommandLauncher(LocalNodes())
    submit(launcher, tmp_path, STAYS, num_nodes=2)
    first, second = processes_of(tmp_path, 2)
    agents = {int(json.loads(path.read_text())["process"]) for path in tmp_path.glob("job-*/node-*.json")}
    parent = int(Path(f"/proc/{first}/stat").read_text().rpartition(")")[2].split()[1])
    assert parent in agents
    os.kill(parent, signal.SIGKILL)
    wait_until(lambda: not is_alive(first), "the command ends")
    assert is_alive(second)
    launcher.close()
