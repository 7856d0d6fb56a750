"""A real SLURM of several nodes on this machine, for tests: no munge, no systemd, no root needed.

The daemons are Debian's (`apt-get install slurmctld slurmd slurm-client`); they live in a folder and on ports
of their own, so that several sessions on one machine do not meet, and end with the session. The fixture
`slurm_cluster` is known to every test, through `tests/conftest.py`.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

NUM_NODES = 4
USER = pwd.getpwuid(os.getuid()).pw_name
#: Debian's daemons lie where an ordinary user's PATH does not look.
SEARCHED = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
NEEDED = ("slurmctld", "slurmd", "sinfo", "sbatch", "srun", "scancel", "scontrol")
#: Tells the daemons of one node from those of another; tasks have SLURMD_NODENAME.
NODE_VARIABLE = "PACELINE_TEST_NODE"

CONFIGURATION = """
ClusterName=paceline
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
GresTypes=tile
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=5
MessageTimeout=3
SchedulerParameters=batch_sched_delay=0
MailProg=/bin/true
KillWait=8
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=60 OverSubscribe=EXCLUSIVE State=UP
PartitionName=other Nodes=ALL MaxTime=60 OverSubscribe=EXCLUSIVE State=UP
PartitionName=urgent Nodes=ALL MaxTime=60 OverSubscribe=EXCLUSIVE PriorityTier=10 State=UP
"""


class SlurmCluster:
    """A running SLURM.

    Args:
        folder: Where its configuration, state and logs go; a short path without spaces.
        num_nodes: How many nodes it has, all on this machine.
    """

    def __init__(self, folder: Path, num_nodes: int = NUM_NODES) -> None:
        self.folder = folder
        self.conf = folder / "slurm.conf"
        # Names that resolve without an entry in /etc/hosts: jobs make their main address of them.
        self.nodes = tuple(f"127.0.0.{i + 1}" for i in range(num_nodes))
        #: For whatever talks to this SLURM: that of this process, SLURM_CONF, a PATH with its commands.
        self.environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("SLURM_", "SBATCH_"))
            },
            "PATH": SEARCHED,
            "SLURM_CONF": str(self.conf),
        }
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._write_configuration()
        try:
            self.start_controller()
            for node in self.nodes:
                self.start_node(node)
            self.wait_until_idle()
        except BaseException:
            self.close()
            raise

    def run(self, *command: str, seconds: float = 30) -> str:
        """What one of SLURM's commands prints."""
        answer = subprocess.run(
            command, env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=seconds
        )
        if answer.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {answer.returncode}: {answer.stderr.strip()}")
        return answer.stdout

    def job_state(self, job: str) -> str:
        """A job's state, such as PENDING, RUNNING, COMPLETED, FAILED, NODE_FAIL."""
        words = self.run("scontrol", "show", "job", "-o", job).split()
        return next(word.removeprefix("JobState=") for word in words if word.startswith("JobState="))

    def wait_for_job(self, job: str, seconds: float = 120) -> str:
        """The state a job ends with."""
        living = {"PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED"}
        self.wait_until(lambda: self.job_state(job) not in living, f"an end of job {job}", seconds)
        return self.job_state(job)

    def stop_node(self, node: str) -> None:
        """Kills a node with all that runs on it, as a power cut would."""
        daemon = self._daemons.pop(node)
        daemon.kill()
        daemon.wait()
        for process in self._processes({f"{NODE_VARIABLE}={node}", f"SLURMD_NODENAME={node}"}):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def stop_daemon(self, node: str) -> None:
        """Kills a node's daemon alone: SLURM takes the node for dead, and what runs there goes on."""
        daemon = self._daemons.pop(node)
        daemon.kill()
        daemon.wait()

    def stop_controller(self) -> None:
        """Ends the controller; it keeps its state, and jobs go on."""
        daemon = self._daemons["slurmctld"]
        daemon.terminate()
        daemon.wait(30)

    def start_controller(self) -> None:
        """Starts the controller, for the first time or again with the state it kept."""
        self._start("slurmctld", "slurmctld", "-D", "-i", "-f", str(self.conf))

    def start_node(self, node: str) -> None:
        """Starts a node, for the first time or again; `wait_until_idle` says when it is ready."""
        self._start(node, "slurmd", "-D", "-N", node, "-f", str(self.conf))

    def wait_until_idle(self) -> None:
        """Waits until every node is idle, so that the next test finds them so."""
        self.wait_until(lambda: self._states() == dict.fromkeys(self.nodes, "idle"), "all nodes idle")

    def wait_until(self, condition: Callable[[], bool], wanted: str, seconds: float = 60) -> None:
        """Waits for a condition; the daemons' logs say why where it does not come.

        A SLURM that does not answer in a condition has not come to it yet.
        """
        end = time.monotonic() + seconds

        def has_come() -> bool:
            try:
                return condition()
            except (RuntimeError, subprocess.TimeoutExpired):
                return False

        while not has_come():
            if time.monotonic() > end:
                logs = "\n".join(
                    f"--- {path.name}\n{path.read_text(errors='replace')[-2000:]}"
                    for path in sorted(self.folder.glob("*.log"))
                )
                raise TimeoutError(f"SLURM did not come to {wanted} in {seconds:g} s\n{logs}")
            time.sleep(0.1)

    def close(self) -> None:
        """Ends all jobs, all daemons, and what they left."""
        if self._daemons["slurmctld"].poll() is None:
            with suppress(RuntimeError, subprocess.TimeoutExpired):
                self.run("scancel", "--user", USER)
                self.wait_until(lambda: not self.run("squeue", "--noheader").strip(), "an empty queue", 10)
        for daemon in reversed(self._daemons.values()):
            daemon.terminate()
        for daemon in self._daemons.values():
            try:
                daemon.wait(5)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for process in self._processes({f"SLURM_CONF={self.conf}"}):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def _write_configuration(self) -> None:
        with ExitStack() as stack:
            ports = [_free_port(stack) for _ in range(len(self.nodes) + 1)]
        host = socket.gethostname().partition(".")[0]
        lines = [
            f"NodeName={node} NodeHostname={host} NodeAddr={node} Port={port} CPUs=4 RealMemory=8000 "
            "Gres=tile:2 State=UNKNOWN"
            for node, port in zip(self.nodes, ports[1:], strict=True)
        ]
        (self.folder / "state").mkdir()
        self.conf.write_text(
            CONFIGURATION.format(
                host=host,
                controller_port=ports[0],
                user=USER,
                folder=self.folder,
                nodes="\n".join(lines),
            )
        )
        (self.folder / "gres.conf").write_text("Name=tile Count=2\n")

    def _start(self, name: str, *command: str) -> None:
        # Where pytest itself is killed, its daemons get SIGTERM.
        guard = ["setpriv", "--pdeathsig", "TERM"] if shutil.which("setpriv") else []
        with (self.folder / f"{name}.out").open("ab") as output:
            self._daemons[name] = subprocess.Popen(
                [*guard, *command],
                env={**self.environment, NODE_VARIABLE: name},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _states(self) -> dict[str, str]:
        try:
            lines = self.run(
                "sinfo", "--noheader", "--Node", "--partition=main", "--format=%N %T"
            ).splitlines()
        except RuntimeError:  # the controller does not answer yet
            return {}
        return dict(line.split() for line in lines)

    def _processes(self, variables: set[str]) -> Iterator[int]:
        """Processes of this SLURM whose environment holds one of these variables."""
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit() or int(folder.name) == os.getpid():
                continue
            try:
                found = set((folder / "environ").read_bytes().decode(errors="replace").split("\0"))
            except OSError:
                continue
            if f"SLURM_CONF={self.conf}" in found and found & variables:
                yield int(folder.name)


def _free_port(stack: ExitStack) -> int:
    """A port nobody listens on; held until the stack closes, so that no two are the same."""
    listener = stack.enter_context(socket.socket())
    listener.bind(("127.0.0.1", 0))
    return int(listener.getsockname()[1])


def missing_slurm() -> str | None:
    """Why no SLURM can be started here; None where one can."""
    missing = [name for name in NEEDED if shutil.which(name, path=SEARCHED) is None]
    if missing:
        return f"SLURM is not installed ({', '.join(missing)}): apt-get install slurmctld slurmd slurm-client"
    return None


@pytest.fixture(scope="session")
def slurm_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """One SLURM of four nodes for the session."""
    reason = missing_slurm()
    if reason:
        pytest.skip(reason)
    cluster = SlurmCluster(tmp_path_factory.mktemp("slurm"))
    try:
        yield cluster
    finally:
        cluster.close()
