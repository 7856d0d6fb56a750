"""What every launcher must do; a test class of each launcher inherits these."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tuner.launchers import JobHandle, JobState, JobStatus, Launcher, RankTask

FUNCTIONS = "tests.tuner.launchers.rank_functions"
#: For a machine that does much else: nobody waits so long where all is well.
TIMEOUT_SECONDS = 120.0


def submit(
    launcher: Launcher,
    folder: Path,
    function: str,
    *,
    num_nodes: int = 1,
    devices_per_node: int = 1,
    **payload: Any,
) -> JobHandle:
    path = function if ":" in function else f"{FUNCTIONS}:{function}"
    task = RankTask(function=path, payload=payload, folder=folder)
    return launcher.submit(task, num_nodes=num_nodes, devices_per_node=devices_per_node)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited {TIMEOUT_SECONDS:g} s in vain until {what}"
        time.sleep(0.005)


class Watch:
    """Polls a job and keeps all its messages."""

    def __init__(self, launcher: Launcher, handle: JobHandle) -> None:
        self.launcher = launcher
        self.handle = handle
        self.messages: list[tuple[int, Mapping[str, Any]]] = []
        self.status = self.poll()

    def poll(self) -> JobStatus:
        self.status = self.launcher.poll(self.handle)
        self.messages += self.status.messages
        return self.status

    def until(self, condition: Callable[[Watch], bool], what: str) -> JobStatus:
        wait_until(lambda: self.poll() is not None and condition(self), what)
        return self.status

    def end(self) -> JobStatus:
        return self.until(lambda watch: watch.status.state.has_ended, "the job ends")

    def processes(self, num_ranks: int) -> list[int]:
        """The process of every rank, once all have told."""
        self.until(lambda watch: len(watch.messages) >= num_ranks, "every rank told its process")
        return [int(message["process"]) for _, message in self.messages]


def outcome(launcher: Launcher, handle: JobHandle) -> JobStatus:
    return Watch(launcher, handle).end()


def is_alive(process: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class LauncherConformance:
    """Needs a fixture `launcher`; it may be shared by all tests of the class."""

    #: Local ranks of two nodes with two devices each; nodes that share a host number theirs on.
    local_ranks_of_two_by_two = (0, 1, 0, 1)

    def test_ranks_of_two_nodes_meet_and_reduce(self, launcher: Launcher, tmp_path: Path) -> None:
        handle = submit(launcher, tmp_path, "sum_of_ranks", num_nodes=2, devices_per_node=2)
        status = outcome(launcher, handle)
        assert status.state is JobState.SUCCEEDED, status.failures
        assert [status.results[rank]["sum"] for rank in range(4)] == [10.0] * 4
        local_ranks = tuple(status.results[rank]["local_rank"] for rank in range(4))
        assert local_ranks == self.local_ranks_of_two_by_two
        assert len({status.results[rank]["process"] for rank in range(4)}) == 4
        assert status.startup_seconds is not None
        assert status.startup_seconds > 0

    def test_jobs_follow_each_other_in_one_folder_with_a_secret_each(
        self, launcher: Launcher, tmp_path: Path
    ) -> None:
        secrets = set()
        for number in range(3):
            status = outcome(launcher, submit(launcher, tmp_path, "sum_of_ranks", num_nodes=2))
            assert status.state is JobState.SUCCEEDED, status.failures
            assert status.results[0]["sum"] == 3.0
            secrets |= {status.results[rank]["secret"] for rank in range(2)}
            assert len(secrets) == number + 1
            assert status.results[0]["secret"] not in status.results[0]["shown"]
        assert min(map(len, secrets)) >= 32

    def test_messages_of_a_rank_come_in_order_and_once(self, launcher: Launcher, tmp_path: Path) -> None:
        watch = Watch(launcher, submit(launcher, tmp_path, "count", num_nodes=2, messages=500))
        assert watch.end().state is JobState.SUCCEEDED
        for rank in range(2):
            numbers = [message["number"] for sender, message in watch.messages if sender == rank]
            assert numbers == list(range(500))
        assert launcher.poll(watch.handle).messages == ()

    def test_large_payloads_and_messages_pass(self, launcher: Launcher, tmp_path: Path) -> None:
        text = "x" * 3_000_000
        assert outcome(launcher, submit(launcher, tmp_path, "echo", value=text)).results == {0: text}
        watch = Watch(launcher, submit(launcher, tmp_path, "count", messages=2, length=3_000_000))
        watch.end()
        assert [len(message["text"]) for _, message in watch.messages] == [3_000_000] * 2

    def test_plain_data_arrive_as_they_were(self, launcher: Launcher, tmp_path: Path) -> None:
        value = {"none": None, "list": [1, 2.5, True], "text": "ü\n", "infinite": float("inf")}
        assert outcome(launcher, submit(launcher, tmp_path, "echo", value=value)).results == {0: value}

    def test_payload_that_is_not_plain_is_refused(self, launcher: Launcher, tmp_path: Path) -> None:
        with pytest.raises(TypeError, match="not JSON serializable"):
            submit(launcher, tmp_path, "echo", value=object())

    def test_function_without_a_module_is_refused(self, launcher: Launcher, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="write module:function"):
            RankTask(function="train", payload={}, folder=tmp_path)

    def test_function_that_does_not_exist_fails_the_job(self, launcher: Launcher, tmp_path: Path) -> None:
        status = outcome(launcher, submit(launcher, tmp_path, f"{FUNCTIONS}:no_such_function"))
        assert status.state is JobState.FAILED
        assert "no_such_function" in status.failures[0].reason
        assert status.startup_seconds is None

    def test_logs_hold_what_each_rank_and_its_children_printed(
        self, launcher: Launcher, tmp_path: Path
    ) -> None:
        handle = submit(launcher, tmp_path, "write", num_nodes=2)
        assert outcome(launcher, handle).state is JobState.SUCCEEDED
        for rank, log in launcher.logs(handle).items():
            # Where names of hosts cannot be looked up, torch says so first.
            assert {line for line in log.splitlines() if "[c10d]" not in line} == {
                f"printed by rank {rank}",
                f"warned by rank {rank}",
                f"said by a child of rank {rank}",
            }

    def test_the_rank_that_raised_comes_before_those_that_only_lost_it(
        self, launcher: Launcher, tmp_path: Path
    ) -> None:
        handle = submit(launcher, tmp_path, "rank_one_raises", num_nodes=3)
        status = outcome(launcher, handle)
        assert status.state is JobState.FAILED
        assert status.failures[0].rank == 1
        assert {failure.rank for failure in status.failures} == {0, 1, 2}
        assert "ArithmeticError: the loss of rank 1 is not a number" in status.failures[0].reason
        assert "rank_functions.py" in status.failures[0].reason
        log = launcher.logs(handle)[1]
        assert "rank 1 is about to raise" in log
        assert "the loss of rank 1 is not a number" in log

    def test_a_killed_rank_ends_the_job_and_comes_first(self, launcher: Launcher, tmp_path: Path) -> None:
        status = outcome(launcher, submit(launcher, tmp_path, "rank_one_is_killed", num_nodes=2))
        assert status.state is JobState.FAILED
        assert status.failures[0].rank == 1
        assert status.failures[0].exit_code == -9
        assert "killed by SIGKILL (out of memory?)" in status.failures[0].reason
        assert "rank 1 takes too much" in status.failures[0].reason

    @pytest.mark.parametrize("exit_code", [0, 3])
    def test_a_rank_that_leaves_without_returning_failed(
        self, launcher: Launcher, tmp_path: Path, exit_code: int
    ) -> None:
        status = outcome(launcher, submit(launcher, tmp_path, "leave", num_nodes=2, exit_code=exit_code))
        assert status.state is JobState.FAILED
        assert [(failure.rank, failure.exit_code) for failure in status.failures] == [(0, exit_code)]
        assert f"exit code {exit_code}" in status.failures[0].reason

    def test_a_job_goes_on_until_its_last_rank_returns(self, launcher: Launcher, tmp_path: Path) -> None:
        flag = tmp_path / "go"
        watch = Watch(launcher, submit(launcher, tmp_path, "rank_one_waits", num_nodes=2, until=str(flag)))
        watch.until(lambda seen: seen.status.startup_seconds is not None, "both ranks entered")
        assert watch.status.state is JobState.RUNNING
        assert watch.status.results == {}
        flag.touch()
        assert watch.end().results == {0: 0, 1: 1}

    def test_several_jobs_run_at_once(self, launcher: Launcher, tmp_path: Path) -> None:
        folders = [tmp_path / str(index) for index in range(3)]
        for folder in folders:
            folder.mkdir()
        flag = tmp_path / "go"
        handles = [
            submit(launcher, folder, "rank_one_waits", num_nodes=2, until=str(flag)) for folder in folders
        ]
        watches = [Watch(launcher, handle) for handle in handles]
        for watch in watches:
            watch.until(lambda seen: seen.status.state is JobState.RUNNING, "the job runs")
        flag.touch()
        assert [watch.end().state for watch in watches] == [JobState.SUCCEEDED] * 3

    def test_cancel_leaves_no_process_of_frozen_or_waiting_ranks(
        self, launcher: Launcher, tmp_path: Path
    ) -> None:
        watch = Watch(launcher, submit(launcher, tmp_path, "hang", num_nodes=3, frozen=True))
        processes = watch.processes(3)
        assert all(is_alive(process) for process in processes)
        launcher.cancel(watch.handle)
        assert launcher.poll(watch.handle).state is JobState.CANCELLED
        wait_until(lambda: not any(map(is_alive, processes)), "every rank is gone")

    def test_cancel_leaves_no_process_a_rank_started(self, launcher: Launcher, tmp_path: Path) -> None:
        watch = Watch(launcher, submit(launcher, tmp_path, "hang", child=True))
        watch.processes(1)
        child = int(watch.messages[0][1]["child"])
        assert is_alive(child)
        launcher.cancel(watch.handle)
        wait_until(lambda: not is_alive(child), "the rank's own child is gone")

    def test_cancel_leaves_an_ended_job_alone(self, launcher: Launcher, tmp_path: Path) -> None:
        handle = submit(launcher, tmp_path, "echo", value=1)
        outcome(launcher, handle)
        launcher.cancel(handle)
        assert launcher.poll(handle).state is JobState.SUCCEEDED

    def test_a_silent_job_shows_how_long_it_was_silent(self, launcher: Launcher, tmp_path: Path) -> None:
        watch = Watch(launcher, submit(launcher, tmp_path, "hang"))
        watch.processes(1)
        before = watch.poll().seconds_since_progress
        time.sleep(0.05)
        assert launcher.poll(watch.handle).seconds_since_progress >= before + 0.05
        launcher.cancel(watch.handle)

    def test_an_unknown_job_is_refused(self, launcher: Launcher, tmp_path: Path) -> None:
        stranger = JobHandle(identity="stranger", num_nodes=1, num_ranks=1, folder=tmp_path)
        with pytest.raises(ValueError, match="stranger was not submitted to this launcher"):
            launcher.poll(stranger)

    def test_ranks_are_not_the_tuner(self, launcher: Launcher, tmp_path: Path) -> None:
        results = outcome(launcher, submit(launcher, tmp_path, "sum_of_ranks")).results
        assert results[0]["process"] != os.getpid()
