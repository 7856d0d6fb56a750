"""What is made of SLURM's words: states, reasons, silence; SLURM's commands are scripts that say so."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from tests.tuner.launchers.conformance import wait_until
from tuner.domain.errors import JobError, ProbeError
from tuner.launchers import JobState, NodeJob, SlurmNodes, SlurmSection
from tuner.launchers.async_command import Question
from tuner.launchers.slurm_queue import SlurmQueue


class Cluster:
    """A folder of commands that answer as SLURM's would, by files that a test writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        self.command("squeue", f"cat {folder}/rows")
        self.command("scontrol", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
        self.command("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
        self.command("scancel", f'echo "$@" >> {folder}/cancelled')
        self.rows()

    def command(self, name: str, script: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{textwrap.dedent(script)}\n")
        path.chmod(0o755)

    def rows(self, *rows: tuple[str, str, str]) -> None:
        """The queue as (name, state, reason); a job's number is its line."""
        lines = [
            f"{name:<64}{number:<24}{state:<24}{0:<12}{reason:<400}"
            for number, (name, state, reason) in enumerate(rows, start=1)
        ]
        temporary = self.folder / "rows.new"
        temporary.write_text("\n".join(lines))
        temporary.replace(self.folder / "rows")

    @property
    def cancelled(self) -> list[str]:
        path = self.folder / "cancelled"
        return path.read_text().splitlines() if path.exists() else []


class Clock:
    """Seconds that pass by leaps alone: how fast commands answer is not what is tested."""

    def __init__(self) -> None:
        self.leapt = 0.0

    def __call__(self) -> float:
        return 1000.0 + self.leapt


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return Cluster(tmp_path)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(cluster: Cluster, clock: Clock) -> SlurmQueue:
    return SlurmQueue(clock=clock)


def is_asking(queue: SlurmQueue) -> bool:
    """Whether an answer is waited for."""
    last_words = (watched.last_words for watched in queue._watched.values())
    return any(question is not None for question in (queue._question, *last_words))


def poll_until(queue: SlurmQueue, clock: Clock, words: str, *, job_id: str = "1") -> JobState:
    """Looks, with time leaping on between questions, until SLURM's view says these words."""

    def says() -> bool:
        clock.leapt += 0.0 if is_asking(queue) else 0.5
        return words in queue.poll("ours", job_id).detail

    wait_until(says, f"the view says {words!r}")
    return queue.poll("ours", job_id).state


@pytest.mark.parametrize(
    ("state", "expected", "words"),
    [
        ("COMPLETED", JobState.SUCCEEDED, "COMPLETED"),
        ("FAILED", JobState.FAILED, "FAILED"),
        ("CANCELLED", JobState.LOST, "another user"),
        ("TIMEOUT", JobState.TIMED_OUT, "time limit"),
        ("DEADLINE", JobState.TIMED_OUT, "deadline"),
        ("OUT_OF_MEMORY", JobState.FAILED, "extra.mem"),
        ("NODE_FAIL", JobState.LOST, "died"),
        ("BOOT_FAIL", JobState.LOST, "booted"),
        ("PREEMPTED", JobState.LOST, "higher priority"),
        ("SUSPENDED", JobState.LOST, "suspended"),
        ("REQUEUED", JobState.LOST, "again"),
        ("RUNNING", JobState.RUNNING, "RUNNING"),
        ("COMPLETING", JobState.PENDING, "submitted"),
        ("CONFIGURING", JobState.PENDING, "CONFIGURING"),
    ],
)
def test_each_state_of_slurm_s_has_its_outcome(
    cluster: Cluster, queue: SlurmQueue, clock: Clock, state: str, expected: JobState, words: str
) -> None:
    cluster.rows(("another", "RUNNING", ""), ("ours", state, "None"))
    assert poll_until(queue, clock, words, job_id="2") is expected
    assert "SLURM job 2" in queue.poll("ours", "2").detail
    assert queue.poll("ours", "2").memory_ran_out == (state == "OUT_OF_MEMORY")
    queue.close()


@pytest.mark.parametrize(
    "reason", ["Resources", "Priority", "ReqNodeNotAvail, UnavailableNodes:n1", "QOSGrpCpuLimit"]
)
def test_a_waiting_job_says_why(cluster: Cluster, queue: SlurmQueue, clock: Clock, reason: str) -> None:
    cluster.rows(("ours", "PENDING", reason))
    for _ in range(3):
        assert poll_until(queue, clock, f"PENDING ({reason})") is JobState.PENDING
        clock.leapt += 60
    queue.close()


@pytest.mark.parametrize(
    "reason",
    [
        "PartitionNodeLimit",
        "PartitionTimeLimit",
        "BadConstraints",
        "InvalidQOS",
        "Job's account not known, so it can't use this partition (main allows lab)",
    ],
)
def test_a_job_that_no_waiting_helps_fails_and_is_cancelled(
    cluster: Cluster, queue: SlurmQueue, clock: Clock, reason: str
) -> None:
    cluster.rows(("ours", "PENDING", reason))
    assert poll_until(queue, clock, f"can never start (PENDING, {reason})") is JobState.FAILED
    queue.cancel("ours", "1")
    queue.close()
    assert cluster.cancelled == ["1"]


def test_a_reason_that_passes_is_none(cluster: Cluster, queue: SlurmQueue, clock: Clock) -> None:
    cluster.rows(("ours", "PENDING", "PartitionConfig"))
    assert poll_until(queue, clock, "PartitionConfig") is JobState.PENDING
    cluster.rows(("ours", "RUNNING", "None"))
    assert poll_until(queue, clock, "RUNNING") is JobState.RUNNING
    queue.close()


def test_last_words_name_reason_and_exit_code(cluster: Cluster, queue: SlurmQueue, clock: Clock) -> None:
    cluster.command(
        "scontrol", "echo 'JobId=1 JobName=ours JobState=FAILED Reason=NonZeroExitCode ExitCode=3:0'"
    )
    cluster.rows(("ours", "FAILED", "NonZeroExitCode"))
    assert poll_until(queue, clock, "FAILED Reason=NonZeroExitCode ExitCode=3:0") is JobState.FAILED
    queue.close()


def test_a_job_that_left_slurm_s_memory_is_asked_of_sacct(
    cluster: Cluster, queue: SlurmQueue, clock: Clock
) -> None:
    cluster.command("sacct", "echo '1|CANCELLED by 1000|0:15'")
    cluster.rows(("ours", "RUNNING", "None"))
    poll_until(queue, clock, "RUNNING")
    cluster.rows()
    assert poll_until(queue, clock, "CANCELLED ExitCode=0:15") is JobState.LOST
    queue.close()


def test_a_job_that_all_have_forgotten_is_lost(cluster: Cluster, queue: SlurmQueue, clock: Clock) -> None:
    cluster.rows(("ours", "RUNNING", "None"))
    poll_until(queue, clock, "RUNNING")
    cluster.rows()
    assert poll_until(queue, clock, "does not remember job 1") is JobState.LOST
    queue.close()


def test_a_job_that_never_came_to_be_is_distinguished_from_one_not_yet_listed(
    cluster: Cluster, queue: SlurmQueue, clock: Clock
) -> None:
    assert queue.poll("ours", "").state is JobState.PENDING
    assert poll_until(queue, clock, "no job with this name", job_id="") is JobState.LOST
    queue.close()


def test_a_job_that_runs_a_second_time_is_lost(cluster: Cluster, queue: SlurmQueue, clock: Clock) -> None:
    (cluster.folder / "rows").write_text(f"{'ours':<64}{1:<24}{'RUNNING':<24}{1:<12}None")
    assert poll_until(queue, clock, "put into the queue again") is JobState.LOST
    queue.cancel("ours", "1")
    queue.close()
    assert cluster.cancelled == ["1"]


def test_silence_for_a_moment_is_no_error_and_for_long_is_one(
    cluster: Cluster, queue: SlurmQueue, clock: Clock
) -> None:
    cluster.rows(("ours", "RUNNING", "None"))
    poll_until(queue, clock, "RUNNING")
    cluster.command(
        "squeue",
        f"touch {cluster.folder}/asked; "
        "echo 'slurm_load_jobs error: Unable to contact slurm controller (connect failure)' >&2; exit 1",
    )

    asked = cluster.folder / "asked"

    def ask() -> None:
        asked.unlink(missing_ok=True)
        clock.leapt += 5
        queue.poll("ours", "1")
        wait_until(lambda: bool(queue.poll("ours", "1")) and not is_asking(queue), "it is answered")
        assert asked.exists()

    def ask_for_long() -> None:
        for _ in range(100):
            ask()

    ask()
    assert queue.poll("ours", "1").state is JobState.RUNNING
    clock.leapt += 3600  # nobody asked for an hour: SLURM may well have answered
    assert queue.poll("ours", "1").state is JobState.RUNNING
    with pytest.raises(ProbeError, match=r"Unable to contact.*sinfo"):
        ask_for_long()
    cluster.command("squeue", f"cat {cluster.folder}/rows")
    wait_until(lambda: answers(queue, clock), "it answers again")
    queue.close()


def answers(queue: SlurmQueue, clock: Clock) -> bool:
    clock.leapt += 0.0 if is_asking(queue) else 0.5
    try:
        return queue.poll("ours", "1").state is JobState.RUNNING
    except ProbeError:
        return False


def test_a_squeue_that_hangs_holds_nobody_up(cluster: Cluster, queue: SlurmQueue, clock: Clock) -> None:
    cluster.command("squeue", "exec sleep 1000")
    for _ in range(200):
        assert queue.poll("ours", "1").state is JobState.PENDING
        clock.leapt += 1

    def poll_for_long() -> None:
        for _ in range(200):
            queue.poll("ours", "1")
            clock.leapt += 1

    with pytest.raises(ProbeError, match="squeue timed out"):
        poll_for_long()
    queue.close()


def test_one_question_serves_all_jobs(cluster: Cluster, queue: SlurmQueue, clock: Clock) -> None:
    # The answer comes when all jobs have been looked at once, however long that takes.
    cluster.command(
        "squeue",
        f"""
        echo asked >> {cluster.folder}/asked
        while [ ! -e {cluster.folder}/go ]; do sleep 0.01; done
        cat {cluster.folder}/rows
        """,
    )
    cluster.rows(*((f"job-{i}", "RUNNING", "None") for i in range(50)))

    def all_run() -> bool:
        states = [queue.poll(f"job-{i}", str(i + 1)).state for i in range(50)]
        return states == [JobState.RUNNING] * 50

    assert not all_run()
    (cluster.folder / "go").touch()
    wait_until(all_run, "all jobs are seen to run")
    assert len((cluster.folder / "asked").read_text().split()) == 1
    queue.close()


def test_a_cancel_that_is_not_heard_is_said_again(cluster: Cluster) -> None:
    queue = SlurmQueue()
    cluster.command(
        "scancel",
        f"""
        [ -e {cluster.folder}/heard ] && {{ echo "$@" >> {cluster.folder}/cancelled; exit 0; }}
        touch {cluster.folder}/heard
        echo 'scancel: error: Unable to contact slurm controller (connect failure)' >&2; exit 1
        """,
    )
    queue.cancel("ours", "")
    queue.close()
    assert [words.split()[1] for words in cluster.cancelled] == ["--name=ours"]


def test_a_job_that_ends_by_itself_is_not_cancelled(
    cluster: Cluster, queue: SlurmQueue, clock: Clock
) -> None:
    cluster.rows(("ours", "COMPLETED", "None"))
    queue.cancel("ours", "1", after_seconds=1000.0)
    wait_until(lambda: queue.poll("ours", "1").state is JobState.SUCCEEDED, "its end")
    queue.close()
    assert cluster.cancelled == []


@pytest.mark.slow  # needs submitit
def test_a_submission_that_was_not_answered_but_taken_is_found_by_its_name(
    cluster: Cluster, tmp_path: Path
) -> None:
    pytest.importorskip("submitit")
    cluster.command("srun", "exit 0")
    cluster.command(
        "sbatch", "echo 'sbatch: error: Batch job submission failed: Socket timed out' >&2; exit 1"
    )
    cluster.rows(("paceline-x", "PENDING", "Resources"))
    job = NodeJob(identity="x", folder=tmp_path, num_nodes=1, devices_per_node=1)
    nodes = SlurmNodes()
    assert nodes.begin(job) == "1"
    nodes.close()


def test_what_is_missing_is_said_with_its_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(JobError, match=r"(?s)launcher = 'slurm'.*sbatch, srun.*slurm-client"):
        SlurmNodes()


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"nodes": 3}, "'nodes' cannot be set in this table"),
        ({"job_name": "mine"}, "found by its name"),
        ({"--qos": "high"}, "without dashes"),
        ({"comment": "a\n#SBATCH --uid=0"}, "line break"),
    ],
)
def test_options_that_are_ours_cannot_be_set(extra: dict[str, str | int | bool], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SlurmSection(extra=extra)


@pytest.mark.parametrize(
    ("limit", "grace", "time_seconds", "minutes", "warning"),
    [
        (None, 30.0, None, None, 40),
        (None, 30.0, 3600.0, 60, 40),
        (None, 30.0, 90.0, 2, 1),
        (100.0, 20.0, 3600.0, 4, 30),
        (3600.0, 600.0, None, 72, 610),
    ],
)
def test_slurm_s_limit_leaves_room_for_the_grace(
    tmp_path: Path,
    limit: float | None,
    grace: float,
    time_seconds: float | None,
    minutes: int | None,
    warning: int,
) -> None:
    job = NodeJob(
        identity="x",
        folder=tmp_path,
        num_nodes=1,
        devices_per_node=1,
        time_limit_seconds=limit,
        grace_seconds=grace,
    )
    request = SlurmSection(time=time_seconds)
    assert (request.limit_minutes(job), request.warning_seconds(job)) == (minutes, warning)


def test_a_question_to_a_command_that_is_not_there_is_answered() -> None:
    answer = Question(["no-such-command"]).wait()
    assert answer.code != 0
    assert "no-such-command" in answer.errors
