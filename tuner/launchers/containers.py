"""Runs commands of users in containers: shell commands for docker, podman, Apptainer and Pyxis on SLURM."""

from __future__ import annotations

import math
import re
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuner.domain.errors import JobError
from tuner.launchers.node_agent import JOB_VARIABLE

#: Variables that launchers set for each process, besides those of the command.
_LAUNCHER_VARIABLES = (
    *(
        JOB_VARIABLE,
        "PACELINE_NODE_RANK",
        "PACELINE_NUM_NODES",
        "PACELINE_MAIN_ADDRESS",
        "PACELINE_MAIN_PORT",
    ),
    *("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    *("GROUP_RANK", "ROLE_RANK", "TORCHELASTIC_RUN_ID", "CUDA_VISIBLE_DEVICES"),
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: A container of docker or podman ends itself if its node agent has written no status for this long.
_SILENT_SECONDS = 60
_WATCH_SECONDS = 5


@dataclass(frozen=True, kw_only=True)
class Container:
    """The container in which a command runs.

    Args:
        image: The image, in the form that the runtime expects.
        runtime: Name of the program that runs containers, from `RUNTIMES`.
        folders: Folders that the command reads or writes; they have the same paths in the container.
        working_folder: Working folder of the command.
        variables: Names of the environment variables of the command. Their values are on no command line.
        task_folder: Folder of the launched task, in which the node agents write their status; None if no node
            agent starts the container.
        grace_seconds: Seconds between SIGTERM and SIGKILL.
    """

    image: str
    runtime: str
    folders: Sequence[Path]
    working_folder: Path
    variables: Sequence[str]
    task_folder: Path | None
    grace_seconds: float

    @property
    def names(self) -> list[str]:
        """Names of the environment variables that are passed on."""
        return [
            name for name in dict.fromkeys((*self.variables, *_LAUNCHER_VARIABLES)) if _NAME.fullmatch(name)
        ]


def contained(command: str, container: Container) -> str:
    """Returns the shell command that runs another shell command in a container."""
    return RUNTIMES[container.runtime](command, container)


def container_runtime(runtime: str | None, launcher: str) -> str:
    """Returns the program that runs the containers of a job.

    Args:
        runtime: Value of `cluster.container`; None to choose one that is installed on this host.
        launcher: Name of the job's launcher.

    Raises:
        JobError: No program is installed on this host, or the nodes are other hosts and none was named.
    """
    if runtime is not None:
        return runtime
    if launcher == "slurm":
        return "apptainer"
    if launcher != "local":
        raise JobError(
            f"cluster.image with launcher = {launcher!r} needs cluster.container: the program that runs "
            f"containers on the nodes, one of {', '.join(RUNTIMES)}"
        )
    found = next((name for name in ("docker", "podman", "apptainer") if shutil.which(name)), None)
    if found is None:
        raise JobError(
            "cluster.image needs docker, podman or apptainer on this host, and none of them is installed. "
            "Install one, or remove cluster.image"
        )
    return found


def _docker(command: str, container: Container) -> str:
    return _in_own_processes("docker run", "--gpus all", command, container)


def _podman(command: str, container: Container) -> str:
    # As root, there is no other user to keep.
    user = '$([ "$(id -u)" = 0 ] || echo --userns=keep-id)'
    return _in_own_processes(f"podman run {user}", "--device nvidia.com/gpu=all", command, container)


def _in_own_processes(run: str, devices: str, command: str, container: Container) -> str:
    """Returns the command for a runtime whose containers do not end with the process that started them."""
    words = [
        *("--rm", "--network=host", "--ipc=host", f"--workdir={container.working_folder}"),
        *(f"--mount=type=bind,source={folder},target={folder}" for folder in _outermost(container.folders)),
        *(f"--env={name}" for name in container.names),
        *("--entrypoint=/bin/sh", container.image, "-c", _supervised(command, container)),
    ]
    gpus = f"gpus=; [ ! -e /dev/nvidiactl ] || gpus={shlex.quote(devices)}"
    return f'{gpus}\nexec {run} --user="$(id -u):$(id -g)" $gpus {shlex.join(words)}'


def _supervised(command: str, container: Container) -> str:
    """Returns the script that runs a command in a container as its first process.

    The runtime passes SIGTERM on, but not SIGKILL, and its container outlives it. So the script kills the
    processes of the container after the grace period, and when its node agent, if any, writes no status any
    more.
    """
    # The number of the first process is 1. Elsewhere, `kill -1` would reach processes of others.
    watch = [] if container.task_folder is None else _watch(container.task_folder)
    grace = max(1, math.ceil(container.grace_seconds))
    return "\n".join(
        [
            f"/bin/sh -c {shlex.quote(command)} &",
            "child=$!",
            'end() { if [ "$$" = 1 ]; then kill "-$1" -1; else kill "-$1" "$child"; fi; }',
            'pause() { sleep "$1" & sleeper=$!; trap \'kill "$sleeper"; exit\' TERM; wait "$sleeper"; }',
            *watch,
            f"trap 'end TERM; (pause {grace}; end KILL) & killer=$!' TERM",
            'while :; do wait "$child"; code=$?; kill -0 "$child" 2>/dev/null || break; done',
            "kill $watcher $killer 2>/dev/null",
            'exit "$code"',
        ]
    )


def _watch(task_folder: Path) -> list[str]:
    """Returns the lines that kill the processes of a container when the node agent is silent."""
    status = f'{shlex.quote(f"{task_folder}/job-")}"${JOB_VARIABLE}/node-$PACELINE_NODE_RANK.json"'
    return [
        "watch() {",
        f"    last=; silent=0; while pause {_WATCH_SECONDS}; do",
        f"        now=$(cat {status} 2>/dev/null); silent=$((silent + {_WATCH_SECONDS}))",
        '        [ "$now" = "$last" ] || silent=0',
        f'        last=$now; [ "$silent" -lt {_SILENT_SECONDS} ] || end KILL',
        "    done",
        "}",
        "watch & watcher=$!",
    ]


def _apptainer(command: str, container: Container) -> str:
    words = ["--cleanenv", "--no-home", "--pwd", str(container.working_folder)]
    for folder in _outermost(container.folders):
        words += ["--bind", f"{folder}:{folder}"]
    exports = [f'[ -z "${{{n}+x}}" ] || export APPTAINERENV_{n}="${n}"' for n in container.names]
    devices = "nv=; [ ! -e /dev/nvidiactl ] || nv=--nv"
    tail = shlex.join([*words, container.image, "/bin/sh", "-c", command])
    return "\n".join([*exports, devices, f"exec apptainer exec $nv {tail}"])


def _pyxis(command: str, container: Container) -> str:
    mounts = ",".join(f"{folder}:{folder}" for folder in _outermost(container.folders))
    words = [
        *("--overlap", "--nodes=1", "--ntasks=1", "--mpi=none", "--kill-on-bad-exit=1"),
        *(f"--container-image={container.image}", f"--container-mounts={mounts}"),
        *(f"--container-workdir={container.working_folder}", "--no-container-mount-home"),
        f"--container-env={','.join(container.names)}",
    ]
    return f'exec srun --nodelist="$SLURMD_NODENAME" {shlex.join([*words, "/bin/sh", "-c", command])}'


def _outermost(folders: Sequence[Path]) -> list[Path]:
    """Returns the folders that are not below another one of them."""
    found = dict.fromkeys(folders)
    return [folder for folder in found if not any(other in folder.parents for other in found)]


#: Maps each allowed value of `cluster.container` to the function that makes its command.
RUNTIMES: dict[str, Callable[[str, Container], str]] = {
    "docker": _docker,
    "podman": _podman,
    "apptainer": _apptainer,
    "pyxis": _pyxis,
}
