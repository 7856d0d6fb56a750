"""The shell commands that start ranks on a node: a function's ranks, torchrun, and what logs them."""

from __future__ import annotations

import os
import shlex
import sys
import sysconfig
from pathlib import Path


def function_command(folder: Path, python: str) -> str:
    """Runs the function that `ranks.json` in the job's folder names.

    The rank imports from the tuner's own import path, which must exist on the nodes too, and from what the
    interpreter there has installed.

    Args:
        folder: The job's folder.
        python: Interpreter on the nodes.
    """
    path = shlex.quote(os.pathsep.join(_own_import_path()))
    # -P: modules in the working folder must not hide others.
    program = shlex.join([python, "-P", "-m", "tuner.launchers.rank_program", str(folder)])
    return f'PYTHONPATH={path}"${{PYTHONPATH:+:$PYTHONPATH}}" exec {program}'


def _own_import_path() -> list[str]:
    """The import path of this process, without what belongs to its interpreter."""
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
    """Has torch's elastic agent (`python -m torch.distributed.run`) start a command once per device of a
    node.

    The agents of all nodes meet at the main address and port. They restart nothing: a rank that fails ends
    the job.

    Args:
        command: For the shell, one process per rank.
        folder: The job's folder; the agent's own logs go below it.
        python: Interpreter on the nodes; it needs torch.
        num_nodes: Nodes of the job.
        devices_per_node: Ranks of each.
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
    """Writes what a rank's command prints to `rank-R.log`, and its exit code to `rank-R.exit`.

    Args:
        command: For the shell.
        folder: The job's folder.
        tolerates_kill: Whether a rank that was killed counts as one that ended well.
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
