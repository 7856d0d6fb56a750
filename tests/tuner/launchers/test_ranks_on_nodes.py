"""Ranks of functions over an engine's nodes: the same suite as the local launcher's."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tuner.launchers.conformance import LauncherConformance, Watch, outcome, submit
from tuner.domain.errors import ProbeError
from tuner.launchers import CommandLauncher, CommandTask, JobState, LocalNodes, RankTask
from tuner.launchers.job_folder import JobFolder
from tuner.launchers.rank_commands import logged
from tuner.launchers.rank_program import choose_interface, listening_at


@pytest.mark.slow
class TestRanksOnLocalNodes(LauncherConformance):
    @pytest.fixture
    def launcher(self) -> Iterator[CommandLauncher]:
        launcher = CommandLauncher(LocalNodes())
        yield launcher
        launcher.close()


@pytest.fixture
def launcher() -> Iterator[CommandLauncher]:
    launcher = CommandLauncher(LocalNodes())
    yield launcher
    launcher.close()


def test_paceline_s_import_path_is_for_ranks_and_not_for_commands(
    launcher: CommandLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    task = CommandTask(command='echo "path: $PYTHONPATH"', working_folder=tmp_path, folder=tmp_path)
    handle = launcher.submit_command(task, num_nodes=1, devices_per_node=1)
    assert outcome(launcher, handle).state is JobState.SUCCEEDED
    assert launcher.logs(handle) == {0: "path: \n"}


@pytest.mark.slow
def test_a_working_folder_with_names_like_ours_gets_in_nobody_s_way(
    launcher: CommandLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tuner").mkdir()
    (tmp_path / "tuner" / "__init__.py").write_text("raise ImportError('not this one')")
    monkeypatch.chdir(tmp_path)
    assert outcome(launcher, submit(launcher, tmp_path, "echo", value=3)).results == {0: 3}


@pytest.mark.slow
def test_a_job_that_tolerates_rank_loss_keeps_what_the_others_returned(
    launcher: CommandLauncher, tmp_path: Path
) -> None:
    function = "tests.tuner.launchers.rank_functions:leave_by_signal"
    task = RankTask(function=function, payload={}, folder=tmp_path, tolerates_rank_loss=True)
    watch = Watch(launcher, launcher.submit(task, num_nodes=2, devices_per_node=1))
    status = watch.end()
    assert status.state is JobState.SUCCEEDED, status.failures
    assert status.results == {1: 1}


def test_a_closed_launcher_takes_no_ranks(tmp_path: Path) -> None:
    launcher = CommandLauncher(LocalNodes())
    launcher.close()
    with pytest.raises(ProbeError, match="closed"):
        submit(launcher, tmp_path, "echo", value=1)


@pytest.mark.parametrize(
    ("command", "tolerated", "noted_code", "code"),
    [
        ("true", False, 0, 0),
        ("exit 7", False, 7, 7),
        ("kill -KILL $$", False, -9, 137),
        ("kill -KILL $$", True, -9, 0),
        ("exit 7", True, 7, 7),
    ],
)
def test_a_rank_s_end_is_noted(
    tmp_path: Path, command: str, tolerated: bool, noted_code: int, code: int
) -> None:
    folder = tmp_path / "it's a folder"
    folder.mkdir()
    line = logged(f"echo 'said it'; {command}", folder, tolerates_kill=tolerated)
    ended = subprocess.run(["/bin/sh", "-c", line], env={**os.environ, "RANK": "3"}, check=False)
    assert ended.returncode == code
    assert JobFolder(folder).rank_exits() == {3: noted_code}
    assert JobFolder(folder).logs()[3].startswith("said it\n")


def test_messages_are_read_line_by_line_and_never_half(tmp_path: Path) -> None:
    path, folder = tmp_path / "messages-0.jsonl", JobFolder(tmp_path)
    assert folder.new_messages(0, 0) == ([], 0)
    path.write_text('{"a": 1}\n{"b"')
    found, offset = folder.new_messages(0, 0)
    assert found == [{"a": 1}]
    assert folder.new_messages(0, offset) == ([], offset)
    with path.open("a") as file:
        file.write(": 2}\n")
    assert folder.new_messages(0, offset)[0] == [{"b": 2}]


def test_gloo_takes_the_interface_towards_the_main_node_unless_stated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "chosen")
    choose_interface("127.0.0.1")
    assert os.environ["GLOO_SOCKET_IFNAME"] == "chosen"
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    choose_interface("127.0.0.1")
    assert os.environ["GLOO_SOCKET_IFNAME"] == "lo"
    monkeypatch.delenv("GLOO_SOCKET_IFNAME")


def test_the_store_listens_only_where_other_ranks_connect() -> None:
    with listening_at("127.0.0.1", 0) as listening:  # type: ignore[union-attr]
        assert listening.getsockname()[0] == "127.0.0.1"


def test_the_store_listens_everywhere_if_no_interface_has_its_address() -> None:
    assert listening_at("192.0.2.7", 0) is None


def test_the_store_listens_everywhere_if_its_name_is_the_loopback_address_only_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.1.1", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_named: found)
    assert listening_at("node1", 0) is None


def test_the_store_listens_everywhere_if_its_name_has_several_addresses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
    found = [(*entry, ("127.0.0.1", 0)), (*entry, ("127.0.0.2", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_named: found)
    # This address alone would be listened at.
    assert listening_at("127.0.0.1", 0) is None


def test_only_the_user_can_read_the_secret_of_a_job(tmp_path: Path) -> None:
    folder = JobFolder.make(tmp_path, "a")
    folder.write_ranks({"secret": "of the job"})
    folder.write_task({"environment": {"TOKEN": "of the user"}})
    for name in ("ranks.json", "task.json"):
        assert (folder.path / name).stat().st_mode & 0o777 == 0o600
    folder.record({})
    assert (folder.path / "engine.json").stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    found = os.umask(0)
    os.umask(found)
    return found
