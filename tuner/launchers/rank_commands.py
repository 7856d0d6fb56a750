"""Shell commands that start ranks on a node: for a function, by torchrun, and with a log file per rank."""

from __future__ import annotations

import os
import shlex
import sys
import sysconfig
from pathlib import Path


def function_command(folder: Path, python: str) -> str:
    """Returns the command that runs the function in `ranks.json` of the job's folder as one rank.

    The rank can import modules from the tuner's import path, which must exist on the nodes, too, and modules
    that are installed for the interpreter.

    Args:
        folder: Folder of the job.
        python: Python interpreter on the nodes.
    """
    path = shlex.quote(os.pathsep.join(_own_import_path()))
    # -P: modules in the working folder must not hide others.
    program = shlex.join([python, "-P", "-m", "tuner.launchers.rank_program", str(folder)])
    return f'PYTHONPATH={path}"${{PYTHONPATH:+:$PYTHONPATH}}" exec {program}'


def _own_import_path() -> list[str]:
    """Returns the import path of this process, without the folders of its interpreter."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    installed = {Path(sysconfig.get_path(name)).resolve() for name in names}
    found = []
    for entry in sys.path:
        path = Path(entry or ".").resolve()
        if path.is_dir() and not any(path == place or place in path.parents for place in installed):
            found.append(str(path))
    return list(dict.fromkeys(found))


def torchrun_command(
    command: str, folder: Path, python: str, *, num_nodes: int, devices_per_node: int
) -> str:
    """Returns a command by which torch's elastic agent starts another command once per device of a node.

    The agent is `python -m torch.distributed.run`. The rendezvous of the agents is at the address and port of
    the first node. They do not restart ranks: if a rank fails, the job ends.

    Args:
        command: Command line that each rank runs by the shell.
        folder: Folder of the job; the log files of the agent are written below it.
        python: Python interpreter on the nodes, with torch.
        num_nodes: Number of nodes of the job.
        devices_per_node: Number of ranks per node.
    """
    agent = [
        python,
        "-m",
        "torch.distributed.run",
        f"--nnodes={num_nodes}",
        f"--nproc-per-node={devices_per_node}",
        "--max-restarts=0",
        f"--log-dir={folder / 'agent'}",
    ]
    place = '--node-rank="$PACELINE_NODE_RANK" --master-addr="$MASTER_ADDR" --master-port="$MASTER_PORT"'
    program = ["--no-python", "/bin/sh", "-c", command]
    return f"exec {shlex.join(agent)} {place} {shlex.join(program)}"


def logged(command: str, folder: Path, *, tolerates_kill: bool = False) -> str:
    """Returns a command that runs a rank's command, and writes its output and exit code to files.

    The output of rank R is written to `rank-R.log`, its exit code to `rank-R.exit`.

    Args:
        command: Command line of the rank, for the shell.
        folder: Folder of the job.
        tolerates_kill: Whether the returned command ends with exit code 0 if the rank was killed.
    """
    note = shlex.quote(f"{folder}/rank-")
    lines = [
        f'exec >>{note}"$RANK".log 2>&1',
        f"/bin/sh -c {shlex.quote(command)}",
        "code=$?",
        f'echo "$code" >{note}"$RANK".code && mv {note}"$RANK".code {note}"$RANK".exit',
        '[ "$code" -le 128 ] || exit 0' if tolerates_kill else "",
        'exit "$code"',
    ]
    return "\n".join(line for line in lines if line)
