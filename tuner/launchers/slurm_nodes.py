"""The scheduler backend for SLURM: one SLURM job per slice, submitted through submitit."""

from __future__ import annotations

import sys
import time

from tuner.domain.errors import JobError, ProbeError
from tuner.launchers.command_launcher import CommandLauncher
from tuner.launchers.job_folder import JobFolder
from tuner.launchers.launcher import Launcher
from tuner.launchers.registry import ClusterSettings, LauncherEntry
from tuner.launchers.scheduler_backend import BackendView, NodeJob, SchedulerBackend
from tuner.launchers.slurm_queue import SlurmQueue, is_momentary
from tuner.launchers.slurm_submission import SlurmSection, SubmissionError, missing_parts, submit

#: Seconds for which a submission is repeated while SLURM's controller does not respond.
_SUBMIT_TIMEOUT_SECONDS = 90.0
_AGAIN_SECONDS = 3.0
#: Seconds that a job whose node agents have all ended may take to end by itself; then SLURM records its real
#: end instead of a cancellation.
_ENDS_BY_ITSELF_SECONDS = 10.0


class SlurmNodes(SchedulerBackend):
    """Starts the node agents of a job as one SLURM job with one task per node.

    - submitit writes the sbatch file and submits it. The tasks run the script of the node agent in the job's
      folder, instead of a pickled function. So nodes need only Python 3.8 or newer, without submitit and
      Paceline.
    - The signal handlers of submitit are not installed. The node agent handles SIGTERM, and gives its
      processes their grace period.
    - Before SLURM's time limit, the batch shell gets a signal (`--signal=B:USR1`) and asks the node agents to
      end, by a file in the job's folder.
    - SLURM never requeues a job. Paceline submits another job, which resumes from the checkpoint.
    - The commands of SLURM run with all environment variables of this process, including SLURM_CONF and PATH.

    Args:
        request: Partition, account, limits, devices and further options for sbatch.
        python: Python interpreter on the nodes; None for the interpreter of this process.
        queue: Polls the states of jobs; None for a new `SlurmQueue`.

    Raises:
        JobError: submitit or a command of SLURM is not installed on this host.
    """

    name = "slurm"

    def __init__(
        self,
        request: SlurmSection = SlurmSection(),
        *,
        python: str | None = None,
        queue: SlurmQueue | None = None,
    ) -> None:
        missing = missing_parts()
        if missing:
            words = "; ".join(f"{what} (remedy: {remedy})" for what, remedy in missing)
            raise JobError(f"cluster.launcher = 'slurm' needs programs that this host does not have: {words}")
        self._request = request
        self._python = python or sys.executable
        self._queue = SlurmQueue() if queue is None else queue

    def begin(self, job: NodeJob) -> str:
        name = job_name(job)
        until = time.monotonic() + _SUBMIT_TIMEOUT_SECONDS
        while True:
            try:
                return submit(job, name, self._request, self._python)
            except SubmissionError as error:
                words = str(error)
                if not is_momentary(words):
                    raise ProbeError(self._refused(job, words)) from error
                # SLURM may have accepted the job nevertheless; two jobs must not have the same name.
                found = self._queue.find(name)
                if found is not None:
                    return found
                if time.monotonic() > until:
                    self._queue.cancel(name, "")
                    raise ProbeError(
                        f"SLURM accepted no job for {_SUBMIT_TIMEOUT_SECONDS:g} s: {words}; see by "
                        "`sinfo` whether its controller runs"
                    ) from error
                time.sleep(_AGAIN_SECONDS)
            except OSError as error:
                raise ProbeError(f"no sbatch file can be written in {job.folder}: {error}") from error

    def poll(self, job: NodeJob, backend_id: str) -> BackendView:
        return self._queue.poll(job_name(job), backend_id)

    def end(self, job: NodeJob, backend_id: str) -> None:
        nodes = JobFolder(job.folder).statuses(job.num_nodes)
        reported = len(nodes) == job.num_nodes and all(node.has_ended for node in nodes.values())
        after = _ENDS_BY_ITSELF_SECONDS if reported else 0.0
        self._queue.cancel(job_name(job), backend_id, after_seconds=after)

    def close(self) -> None:
        self._queue.close()

    def _refused(self, job: NodeJob, words: str) -> str:
        asked = ", ".join(
            f"{name}={value}" for name, value in sorted(self._request.options().items()) if value != ""
        )
        limit = self._request.limit_minutes(job)
        time_words = "" if limit is None else f", time={limit} minutes"
        return (
            f"SLURM refuses the job: {words}\n"
            f"It was asked for {job.num_nodes} nodes with {asked}{time_words}: see [cluster] nodes and "
            "[cluster.slurm] in the job file; `sinfo` lists partitions, `sbatch --help` options"
        )


def job_name(job: NodeJob) -> str:
    """Returns the name under which SLURM lists a job, to find the job if its number is unknown."""
    return f"paceline-{job.identity}"


def _create(section: SlurmSection, settings: ClusterSettings) -> Launcher:
    python = settings.python or sys.executable
    cpus_per_node = section.cpus_per_node or settings.devices_per_node * settings.threads_per_rank
    nodes = SlurmNodes(section.model_copy(update={"cpus_per_node": cpus_per_node}), python=python)
    return CommandLauncher(nodes, python=python, threads_per_rank=settings.threads_per_rank)


SLURM = LauncherEntry(
    nodes_are="nodes that sbatch gives",
    create=_create,
    section=SlurmSection,
    section_holds="partition, account, limits",
)
