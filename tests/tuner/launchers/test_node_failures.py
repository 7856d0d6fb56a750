"""Which processes failed, and by what."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.tuner.launchers.command_conformance import end, submit
from tuner.launchers import CommandLauncher, JobState, LocalNodes
from tuner.launchers.job_folder import JobFolder, NodeStatus
from tuner.launchers.node_failures import node_failures

#: As torch 2.9 prints it when rank 1 was killed.
TORCHRUN = """
E1128 15:00:01.000 elastic/multiprocessing/api.py:874] failed (exitcode: -9) local_rank: 1 (pid: 4712)
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
train.py FAILED
------------------------------------------------------------
Failures:
[1]:
  time      : 2025-11-28_15:00:01
  host      : node
  rank      : 0 (local_rank: 0)
  exitcode  : -15 (pid: 4711)
  error_file: <N/A>
  traceback : Signal 15 (SIGTERM) received by PID 4711
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  time      : 2025-11-28_15:00:00
  host      : node
  rank      : 1 (local_rank: 1)
  exitcode  : {code} (pid: 4712)
  error_file: <N/A>
============================================================
"""


def exit_code(folder: Path, code: int, log: str) -> int | None:
    (folder / "node-0.log").write_text(log)
    node = NodeStatus(node=0, host="a", state="ended", beats=1, exits={0: code}, reason=None, ended_at=1.0)
    (failure,) = node_failures(JobFolder(folder), {0: node}, 2)
    return failure.exit_code


@pytest.mark.parametrize("child", [-9, -11])
def test_a_rank_of_torchrun_that_was_killed_is_known_by_the_signal(tmp_path: Path, child: int) -> None:
    assert exit_code(tmp_path, 1, TORCHRUN.format(code=child)) == child


@pytest.mark.slow
def test_torchrun_prints_the_signal_as_expected(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        "import os, signal, time\n"
        "if os.environ['RANK'] == '1': os.kill(os.getpid(), signal.SIGKILL)\n"
        "time.sleep(100)\n"
    )
    launcher = CommandLauncher(LocalNodes())
    command = f"{sys.executable} -m torch.distributed.run --standalone --nproc-per-node 2 train.py"
    status = end(launcher, submit(launcher, tmp_path, command))
    launcher.close()
    assert status.state is JobState.FAILED
    assert status.failures[0].exit_code == -9


def test_a_rank_of_torchrun_that_raised_is_an_error_as_before(tmp_path: Path) -> None:
    assert exit_code(tmp_path, 1, TORCHRUN.format(code=1)) == 1
    assert exit_code(tmp_path, 3, TORCHRUN.format(code=-9)) == 3
    assert exit_code(tmp_path, 1, "ValueError: no") == 1


@pytest.mark.parametrize(
    ("noted", "known"), [(1, 1), (127, 127), (128, 128), (137, -9), (143, -15), (255, 255), (-9, -9)]
)
def test_a_shell_s_code_for_a_signal_is_the_signal(tmp_path: Path, noted: int, known: int) -> None:
    (tmp_path / "node-0.json").write_text(
        '{"node": 0, "host": "a", "state": "ended", "beats": 1, "reason": null, '
        f'"exits": [{{"copy": 0, "code": {noted}}}]}}'
    )
    (tmp_path / "rank-1.exit").write_text(f"{noted}\n")
    folder = JobFolder(tmp_path)
    assert folder.statuses(1)[0].exits == {0: known}
    assert folder.rank_exits() == {1: known}
