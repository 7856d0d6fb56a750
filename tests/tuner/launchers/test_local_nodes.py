"""Which devices the jobs of one host see."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tuner.launchers.command_conformance import end, submit
from tests.tuner.launchers.conformance import wait_until
from tuner.launchers import CommandLauncher, JobHandle, JobState, LocalNodes
from tuner.launchers.local_nodes import _visible_devices

#: Says which devices it sees, and stays.
SEES = 'echo "sees $CUDA_VISIBLE_DEVICES"; while ! [ -e over ]; do sleep 0.05; done'


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> Iterator[CommandLauncher]:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    launcher = CommandLauncher(LocalNodes(["a", "b", "c", "d"]))
    yield launcher
    launcher.close()


def seen(launcher: CommandLauncher, handle: JobHandle) -> list[str]:
    def whole_lines() -> list[str]:
        logs = list(launcher.logs(handle).values())
        return logs if all(log.endswith("\n") for log in logs) else []

    wait_until(whole_lines, "it has started")
    return [log.removeprefix("sees").strip() for log in whole_lines()]


def test_commands_that_run_at_once_have_devices_of_their_own(
    launcher: CommandLauncher, tmp_path: Path
) -> None:
    first, second, third = (submit(launcher, tmp_path, SEES) for _ in range(3))
    assert [seen(launcher, handle) for handle in (first, second, third)] == [[""], ["b"], ["c"]]
    launcher.cancel(second)
    assert end(launcher, second).state is JobState.CANCELLED
    assert seen(launcher, submit(launcher, tmp_path, SEES, devices_per_node=2)) == ["b,d"]
    (tmp_path / "over").touch()


def test_nodes_of_one_command_have_devices_of_their_own(launcher: CommandLauncher, tmp_path: Path) -> None:
    handle = submit(launcher, tmp_path, SEES, num_nodes=2, devices_per_node=2)
    wait_until(lambda: len(launcher.logs(handle)) == 2, "both nodes have started")
    assert seen(launcher, handle) == ["", "c,d"]
    # There is none left: the next sees what this process sees, as on a host without devices.
    assert seen(launcher, submit(launcher, tmp_path, SEES)) == [""]
    (tmp_path / "over").touch()


def test_devices_that_the_job_names_are_those_it_sees(launcher: CommandLauncher, tmp_path: Path) -> None:
    handles = [submit(launcher, tmp_path, SEES, environment={"CUDA_VISIBLE_DEVICES": "7"}) for _ in range(2)]
    assert [seen(launcher, handle) for handle in handles] == [["7"], ["7"]]
    (tmp_path / "over").touch()


def test_devices_are_counted_without_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert _visible_devices(tmp_path) == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-8f")
    assert _visible_devices(tmp_path) == ["2", "GPU-8f"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert _visible_devices(tmp_path) == []
