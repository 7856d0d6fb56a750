"""What every launcher must do with commands; a test class of each engine inherits these."""

from __future__ import annotations

import shlex
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.tuner.launchers.conformance import TIMEOUT_SECONDS, Watch, is_alive, wait_until
from tuner.launchers import CommandTask, JobHandle, JobState, JobStatus, Launcher, LogReader, OnePer

#: Ranks meet by gloo and add up their ranks.
ALL_REDUCE = """
import os, sys
import torch, torch.distributed as dist
dist.init_process_group("gloo")
total = torch.tensor([float(dist.get_rank() + 1)])
dist.all_reduce(total)
print("rank", dist.get_rank(), "of", dist.get_world_size(), "sum", total.item(), flush=True)
dist.destroy_process_group()
"""

#: A process in a session of its own, as `setsid` starts one where it is installed.
LEFT_BEHIND = 'import os, time; os.setsid(); open(f"process-{os.getpid()}", "w").close(); time.sleep(1000)'


def task(folder: Path, command: str, **more: object) -> CommandTask:
    return CommandTask(command=command, folder=folder, working_folder=folder, **more)  # type: ignore[arg-type]


def submit(
    launcher: Launcher,
    folder: Path,
    command: str,
    *,
    num_nodes: int = 1,
    devices_per_node: int = 1,
    **more: object,
) -> JobHandle:
    return launcher.submit_command(
        task(folder, command, **more), num_nodes=num_nodes, devices_per_node=devices_per_node
    )


def end(launcher: Launcher, handle: JobHandle) -> JobStatus:
    return Watch(launcher, handle).end()


def script(folder: Path, text: str, name: str = "script.py") -> str:
    """The command that runs a Python script written there."""
    (folder / name).write_text(textwrap.dedent(text))
    return f"{sys.executable} {name}"


def processes_of(folder: Path, num: int) -> list[int]:
    """The processes that copies of a command wrote into the folder, once so many have."""
    wait_until(lambda: len(list(folder.glob("process-*"))) >= num, f"{num} copies have started")
    return [int(path.name.rpartition("-")[2]) for path in folder.glob("process-*")]


#: A copy says that it is there, and stays.
STAYS = "touch process-$$; sleep 1000 & wait"
#: The same, and it saves when it is asked to end.
# No `wait`: it returns where a child dies of the same signal first, and the script ends without its trap.
SAVES = (
    "trap 'echo saved > saved-$PACELINE_NODE_RANK; exit 0' TERM; touch process-$$; "
    "while :; do sleep 0.1; done"
)


class CommandConformance:
    """Needs a fixture `launcher` with at least two nodes, and `work`, a folder that all its nodes see."""

    #: Whether processes on the nodes are processes of this host, so that a test can look at them.
    sees_processes = True

    def test_processes_on_two_nodes_meet_and_reduce(self, launcher: Launcher, work: Path) -> None:
        handle = submit(
            launcher, work, script(work, ALL_REDUCE), num_nodes=2, devices_per_node=2, one_per=OnePer.RANK
        )
        status = end(launcher, handle)
        logs = launcher.logs(handle)
        assert (status.state, sorted(logs)) == (JobState.SUCCEEDED, [0, 1, 2, 3]), (status, logs)
        assert all(f"rank {rank} of 4 sum 10.0" in log for rank, log in logs.items()), logs

    def test_each_node_runs_its_own_copy_and_knows_its_place(self, launcher: Launcher, work: Path) -> None:
        command = 'echo "node $PACELINE_NODE_RANK of $PACELINE_NUM_NODES main $MASTER_ADDR:$MASTER_PORT"'
        handle = submit(launcher, work, command, num_nodes=2)
        assert end(launcher, handle).state is JobState.SUCCEEDED
        logs = launcher.logs(handle)
        assert [log.split(" main ")[0] for _, log in sorted(logs.items())] == ["node 0 of 2", "node 1 of 2"]
        assert len({log.split(" main ")[1] for log in logs.values()}) == 1

    def test_one_copy_a_job_runs_on_the_first_node(self, launcher: Launcher, work: Path) -> None:
        handle = submit(
            launcher, work, "echo copy $PACELINE_NODE_RANK; sleep 0.3", num_nodes=2, one_per=OnePer.JOB
        )
        assert end(launcher, handle).state is JobState.SUCCEEDED
        assert launcher.logs(handle) == {0: "copy 0\n"}

    def test_environment_and_folder_are_those_asked_for(self, launcher: Launcher, work: Path) -> None:
        (work / "below").mkdir()
        handle = launcher.submit_command(
            CommandTask(
                command='echo "$GREETING"; pwd',
                environment={"GREETING": 'it\'s "me" $HOME'},
                working_folder=work / "below",
                folder=work,
            ),
            num_nodes=1,
            devices_per_node=1,
        )
        assert end(launcher, handle).state is JobState.SUCCEEDED
        assert launcher.logs(handle)[0].splitlines() == ['it\'s "me" $HOME', str(work / "below")]

    def test_a_failing_copy_ends_the_others_with_its_code_and_its_words(
        self, launcher: Launcher, work: Path
    ) -> None:
        command = (
            'if [ "$PACELINE_NODE_RANK" = 1 ]; then echo "no such data set"; exit 7; fi; sleep 1000 & wait'
        )
        status = end(launcher, submit(launcher, work, command, num_nodes=2))
        assert status.state is JobState.FAILED
        first = status.failures[0]
        assert (first.rank, first.exit_code) == (1, 7)
        assert "exit code 7" in first.reason
        assert "no such data set" in first.reason

    def test_a_command_that_is_not_there_fails_with_the_shell_s_words(
        self, launcher: Launcher, work: Path
    ) -> None:
        status = end(launcher, submit(launcher, work, "no-such-program --here"))
        assert status.state is JobState.FAILED
        assert "no-such-program" in status.failures[0].reason
        assert status.failures[0].exit_code == 127

    def test_a_working_folder_that_is_not_there_fails_by_name(self, launcher: Launcher, work: Path) -> None:
        handle = launcher.submit_command(
            CommandTask(command="true", working_folder=work / "nowhere", folder=work),
            num_nodes=1,
            devices_per_node=1,
        )
        status = end(launcher, handle)
        assert status.state is JobState.FAILED
        assert "nowhere" in status.failures[0].reason

    @pytest.mark.parametrize(
        "command", ["kill -9 $$", "sh -c 'kill -9 $$'; exit $?"], ids=["itself", "below"]
    )
    def test_a_copy_that_was_killed_is_known_by_the_signal(
        self, launcher: Launcher, work: Path, command: str
    ) -> None:
        """Also where a shell or a starter of processes turned it into an exit code."""
        status = end(launcher, submit(launcher, work, command))
        assert status.state is JobState.FAILED
        assert status.failures[0].exit_code == -9

    def test_logs_are_read_while_they_grow_with_the_times_of_lines(
        self, launcher: Launcher, work: Path
    ) -> None:
        command = f"echo first; sleep 1; echo second; {STAYS}"
        began = time.time()
        handle = submit(launcher, work, command, num_nodes=2, one_per=OnePer.RANK)
        reader, lines = LogReader(launcher.log_files(handle)), []

        def have_come() -> bool:
            launcher.poll(handle)
            lines.extend(reader.read())
            return len(lines) == 4

        wait_until(have_come, "both copies have printed two lines")
        written = {(line.copy, line.text): line.written_at for line in lines}
        assert sorted(written) == [(0, "first"), (0, "second"), (1, "first"), (1, "second")]
        for copy in range(2):
            assert began - 0.1 < written[copy, "first"] < time.time()
            # Notes are taken every 0.05 s, or later on a busy host.
            assert 0.9 < written[copy, "second"] - written[copy, "first"] < 2.0
        launcher.cancel(handle)
        assert end(launcher, handle).state is JobState.CANCELLED
        assert reader.read(has_ended=True) == []

    def test_cancel_gives_time_to_save_and_leaves_no_process(self, launcher: Launcher, work: Path) -> None:
        handle = submit(launcher, work, SAVES, num_nodes=2)
        processes = processes_of(work, 2)
        launcher.cancel(handle)
        assert end(launcher, handle).state is JobState.CANCELLED
        assert sorted(path.name for path in work.glob("saved-*")) == ["saved-0", "saved-1"]
        if self.sees_processes:
            assert not any(is_alive(process) for process in processes)

    def test_cancel_kills_who_does_not_listen(self, launcher: Launcher, work: Path) -> None:
        command = "trap '' TERM; touch process-$$; while true; do sleep 1; done"
        handle = submit(launcher, work, command, grace_seconds=0.5)
        processes = processes_of(work, 1)
        launcher.cancel(handle)
        assert end(launcher, handle).state is JobState.CANCELLED
        if self.sees_processes:
            assert not any(is_alive(process) for process in processes)

    @pytest.mark.slow
    def test_a_hung_copy_runs_until_its_time_limit(self, launcher: Launcher, work: Path) -> None:
        handle = submit(launcher, work, STAYS, num_nodes=2, time_limit_seconds=10.0, grace_seconds=0.5)
        processes = processes_of(work, 2)
        status = end(launcher, handle)
        assert status.state is JobState.TIMED_OUT
        assert "time limit" in status.failures[0].reason
        if self.sees_processes:
            assert not any(is_alive(process) for process in processes)

    def test_processes_that_a_copy_leaves_behind_end_with_it(self, launcher: Launcher, work: Path) -> None:
        left_behind = shlex.join([sys.executable, "-S", "-c", LEFT_BEHIND])
        command = f"{left_behind} & while ! ls process-*; do sleep 0.1; done"
        handle = submit(launcher, work, command)
        processes = processes_of(work, 1)
        assert end(launcher, handle).state is JobState.SUCCEEDED
        if self.sees_processes:
            wait_until(lambda: not any(is_alive(p) for p in processes), "what was left behind ends")

    def test_jobs_follow_each_other_in_one_folder(self, launcher: Launcher, work: Path) -> None:
        handles = []
        for word in ("first", "second"):
            handles.append(submit(launcher, work, f"echo {word}"))
            assert end(launcher, handles[-1]).state is JobState.SUCCEEDED
        assert [launcher.logs(handle)[0] for handle in handles] == ["first\n", "second\n"]

    def test_several_jobs_run_at_once(self, launcher: Launcher, work: Path) -> None:
        handles = [
            submit(launcher, work, f"touch here-{i}; while ! [ -e here-{1 - i} ]; do sleep 0.1; done")
            for i in range(2)
        ]
        assert [end(launcher, handle).state for handle in handles] == [JobState.SUCCEEDED] * 2

    def test_cancel_leaves_an_ended_job_alone(self, launcher: Launcher, work: Path) -> None:
        handle = submit(launcher, work, "true")
        end(launcher, handle)
        launcher.cancel(handle)
        assert launcher.poll(handle).state is JobState.SUCCEEDED

    def test_an_unknown_job_is_refused(self, launcher: Launcher, work: Path) -> None:
        stranger = JobHandle(identity="nobody", num_nodes=1, num_ranks=1, folder=work)
        with pytest.raises(ValueError, match="nobody"):
            launcher.poll(stranger)

    def test_startup_is_reported_once_all_processes_run(self, launcher: Launcher, work: Path) -> None:
        handle = submit(launcher, work, STAYS, num_nodes=2)
        watch = Watch(launcher, handle)
        status = watch.until(lambda w: w.status.startup_seconds is not None, "all copies have started")
        assert status.state is JobState.RUNNING
        assert 0 < (status.startup_seconds or 0) < TIMEOUT_SECONDS
        launcher.cancel(handle)
        watch.end()

    def test_orphans_of_a_killed_tuner_are_ended(self, launcher: Launcher, work: Path) -> None:
        """Another launcher of the same engine finds the job by what lies in the folder."""
        handle = submit(launcher, work, f"head -c 6000000 /dev/zero; {SAVES}", num_nodes=2)
        processes = processes_of(work, 2)
        another = self.another_launcher()
        try:
            assert len(another.end_orphans(work)) == 1
            assert another.end_orphans(work) == []
        finally:
            another.close()
        wait_until(lambda: len(list(work.glob("saved-*"))) == 2, "both copies have saved")
        if self.sees_processes:
            wait_until(lambda: not any(is_alive(p) for p in processes), "the orphans have ended")
        logs = [log_file.path for log_file in launcher.log_files(handle).values()]
        wait_until(lambda: all(log.stat().st_size < 5.1 * 2**20 for log in logs), "their logs are trimmed")
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not launcher.poll(handle).state.has_ended:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def another_launcher(self) -> Launcher:
        """A second launcher of the same kind, as a tuner that is started again would make."""
        raise NotImplementedError
