"""Submits a job's node agents to SLURM: submitit writes the sbatch file and submits it."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, PositiveInt, field_validator

from tuner.domain.section import Duration
from tuner.launchers.registry import LauncherSection
from tuner.launchers.scheduler_backend import NodeJob

if TYPE_CHECKING:
    from submitit.slurm.slurm import SlurmExecutor

#: The commands of SLURM that this package runs.
COMMANDS = ("sbatch", "srun", "squeue", "scancel", "scontrol")

_OURS: Mapping[str, str] = {
    "nodes": "cluster.nodes sets the number of nodes",
    "ntasks": "Paceline starts one task on each node",
    "ntasks-per-node": "Paceline starts one task on each node",
    "job-name": "Paceline sets the name, since the job is found by its name",
    "output": "Paceline writes the output to the job's folder",
    "error": "Paceline writes the output to the job's folder",
    "chdir": "workload.folder sets the working folder of the command",
    "signal": "Paceline sets the signal that comes before the time limit",
    "requeue": "Paceline submits a preempted job again, from its checkpoint",
    "no-requeue": "Paceline submits a preempted job again, from its checkpoint",
    "array": "Paceline submits one job for each slice of a training",
    "wrap": "the job runs Paceline's node agent, which starts the command",
    "parsable": "submitit has to read the usual output of sbatch",
    "wait": "Paceline asks for the state of the job instead of waiting for its end",
    "partition": "set cluster.slurm.partition instead",
    "account": "set cluster.slurm.account instead",
    "time": "set cluster.slurm.time instead",
    "gres": "set cluster.slurm.gres instead",
    "cpus-per-task": "set cluster.slurm.cpus_per_node instead",
}
_OPTION = re.compile(r"[a-z][a-z0-9-]*")
_SUBMIT_SECONDS = 60
#: Seconds that are added to a job's time limit and grace period, since SLURM counts from the allocation of
#: nodes and may send its signal up to 60 s early.
_MARGIN_SECONDS = 120.0
#: SLURM sends its signal this many seconds and the grace period before the time limit.
_WARN_SECONDS = 10.0


class SlurmSection(LauncherSection):
    """Keys of `[cluster.slurm]`: resources to request from SLURM, except the number of nodes."""

    partition: str | None = Field(default=None, description="partition; SLURM's default if absent")
    account: str | None = Field(default=None, description="account that is charged")
    time: Duration | None = Field(
        default=None,
        description="time limit of a slice's SLURM job; the partition's default if absent",
    )
    gres: str | None = Field(default=None, description="devices to request on each node, such as 'gpu:4'")
    cpus_per_node: PositiveInt | None = Field(
        default=None,
        description="CPUs to request on each node; devices_per_node * threads_per_rank if absent",
    )
    extra: dict[str, str | int | bool] = Field(
        default={}, description="further options of sbatch, such as { constraint = 'a100', exclusive = true }"
    )

    @field_validator("extra")
    @classmethod
    def _check_extra(cls, extra: dict[str, str | int | bool]) -> dict[str, str | int | bool]:
        for name, value in extra.items():
            option = name.replace("_", "-")
            if not _OPTION.fullmatch(option):
                raise ValueError(
                    f"{name!r} is not an option of sbatch; write its long name without dashes, such as "
                    "constraint = 'a100'"
                )
            if option in _OURS:
                raise ValueError(f"{name!r} cannot be set in this table ({_OURS[option]}); remove it")
            if "\n" in str(value):
                raise ValueError(f"the value of {name!r} has a line break; write it in one line")
        return extra

    def options(self) -> dict[str, Any]:
        """Returns the options of sbatch for submitit, without options that are None or False."""
        stated: dict[str, Any] = {
            "partition": self.partition,
            "account": self.account,
            "gres": self.gres,
            "cpus-per-task": self.cpus_per_node,
            **{name.replace("_", "-"): value for name, value in self.extra.items()},
        }
        return {name: value for name, value in stated.items() if value is not None and value is not False}

    def limit_minutes(self, job: NodeJob) -> int | None:
        """Returns the time limit for SLURM in whole minutes; None for the default of the partition."""
        if job.time_limit_seconds is not None:
            return ceil((job.time_limit_seconds + job.grace_seconds + _MARGIN_SECONDS) / 60)
        return None if self.time is None else ceil(self.time / 60)

    def warning_seconds(self, job: NodeJob) -> int:
        """Returns the seconds between SLURM's signal and its time limit.

        SLURM rounds times to minutes. If the time limit is short, the signal is sent later, since it would
        otherwise come at the start of the job.
        """
        minutes = self.limit_minutes(job)
        wanted = job.grace_seconds + _WARN_SECONDS
        return max(1, ceil(min(wanted, 60.0 if minutes is None else 60.0 * minutes - 120.0)))


def missing_parts() -> list[tuple[str, str]]:
    """Returns the packages and commands that are missing on this host for SLURM, as (name, remedy)."""
    missing = []
    if importlib.util.find_spec("submitit") is None:
        missing.append(("submitit", "pip install 'paceline[slurm]'"))
    absent = [command for command in COMMANDS if shutil.which(command) is None]
    if absent:
        missing.append(
            (
                ", ".join(absent),
                "start Paceline on a login node of the cluster, or apt-get install slurm-client",
            )
        )
    return missing


def submit(job: NodeJob, name: str, request: SlurmSection, python: str) -> str:
    """Makes submitit write the sbatch file into the job's folder and submit it.

    Args:
        job: The job.
        name: Unique name of the job in SLURM.
        request: Resources to request.
        python: Python interpreter on the nodes.

    Returns:
        The number of the job in SLURM.

    Raises:
        SubmissionError: sbatch refuses the job or does not respond; the message is the output of sbatch.
    """
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    executor = _executor(job, python)
    executor.update_parameters(
        job_name=name,
        nodes=job.num_nodes,
        ntasks_per_node=1,
        time=request.limit_minutes(job),
        wckey=None,
        stderr_to_stdout=True,
        setup=_before(job.folder),
        teardown=_after(job.folder),
        srun_args=[
            f"--output={_pattern(job.folder)}/starter-%t.err",
            "--kill-on-bad-exit=1",
            "--wait=0",
            "--mpi=none",
        ],
        additional_parameters={
            **request.options(),
            "chdir": str(job.folder),
            "output": f"{_pattern(job.folder)}/starter-batch.err",
            "no-requeue": True,
            "signal": f"B:USR1@{request.warning_seconds(job)}",
        },
    )
    try:
        return str(executor._submit_command(executor._submitit_command_str).job_id)
    except (FailedJobError, FailedSubmissionError) as error:
        cause = error.__cause__
        words = str(error).strip()
        if not words and getattr(cause, "returncode", None) == 124:
            words = f"sbatch timed out: no answer within {_SUBMIT_SECONDS} s"
        raise SubmissionError(words or str(cause)) from error


class SubmissionError(Exception):
    """The command sbatch did not accept a job; the message is the output of sbatch."""


def _executor(job: NodeJob, python: str) -> SlurmExecutor:
    """Creates an executor of submitit that runs the node agent instead of a pickled function.

    submitit is imported in this function, since it is an optional dependency.
    """
    from submitit.slurm.slurm import SlurmExecutor

    class AgentExecutor(SlurmExecutor):
        """Executor whose jobs run the script of the node agent, so that nodes need not have submitit."""

        @property
        def _submitit_command_str(self) -> str:
            agent = shlex.join((python, "-I", str(job.agent), str(job.folder)))
            on_node = shlex.quote(f'exec {agent} "$SLURM_PROCID" --own-exit')
            # In the background, so that the batch shell can handle signals.
            return f"/bin/sh -c {on_node} &"

        def _make_submission_command(self, submission_file_path: Path) -> list[str]:
            # If the tuner itself runs in a SLURM job, the variables of that job must not be passed on.
            foreign = [word for variable in _own_job_variables() for word in ("-u", variable)]
            return ["env", *foreign, "timeout", str(_SUBMIT_SECONDS), "sbatch", str(submission_file_path)]

    return AgentExecutor(folder=job.folder)


def _own_job_variables() -> list[str]:
    if "SLURM_JOB_ID" not in os.environ:
        return []
    return [
        name
        for name in os.environ
        if name.startswith(("SLURM_", "SLURMD_", "SRUN_")) and name not in ("SLURM_CONF", "SLURM_CLUSTERS")
    ]


def _pattern(folder: Path) -> str:
    """Converts a folder to a part of a file name pattern of SLURM, with % escaped."""
    return str(folder).replace("%", "%%")


def _before(folder: Path) -> list[str]:
    """Returns the lines of the batch script before the start of the node agents."""
    end = shlex.quote(str(folder / "end"))
    return [
        "# If SLURM starts the job again, end it: it would read the files of its first start as its own.",
        '[ "${SLURM_RESTART_COUNT:-0}" = 0 ] || exit 1',
        "# Ignore SIGTERM: the node agents are asked to end, and this shell then reports how they ended.",
        "trap : TERM",
        f"time_limit() {{ [ -e {end} ] || echo 'time limit' > {end}; }}",
        "trap time_limit USR1",
        "# Without this, srun would bind the single task of a node to one core.",
        "if scontrol show config | grep -q '^TaskPlugin .*\\(affinity\\|cgroup\\)'; then",
        "    export SLURM_CPU_BIND=none",
        "fi",
        "# Use the address of the node if its name cannot be resolved, as in a cluster without DNS.",
        'if ! getent hosts "$SLURMD_NODENAME" > /dev/null; then',
        '    PACELINE_FIRST_ADDRESS=$(scontrol show node -o "$SLURMD_NODENAME"'
        " | sed -n 's/.* NodeAddr=\\([^ ]*\\).*/\\1/p')",
        "    export PACELINE_FIRST_ADDRESS",
        "fi",
    ]


def _after(folder: Path) -> list[str]:
    """Returns the lines of the batch script after the start of the node agents."""
    return [
        "step=$!",
        "while :; do",
        '    wait "$step"; code=$?',
        '    kill -0 "$step" 2> /dev/null || break',
        "done",
        "# Node agents end with code 0 even if a process failed; then the file `failed` exists.",
        f"[ ! -e {shlex.quote(str(folder / 'failed'))} ] || exit 1",
        'exit "$code"',
    ]
