"""Ranks by torch's elastic agent: the node agent of each node starts one, which starts the ranks there."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class ElasticAgent:
    """How torch's agent is started on a node: `python -m torch.distributed.run`.

    The agents meet at the main address and port. Nothing is restarted: a rank that fails ends the job, and
    whoever submitted it decides.

    Args:
        python: Interpreter there; it needs torch, as what it starts does.
    """

    python: str = sys.executable

    def command(self, rank_command: str, folder: Path, *, num_nodes: int, devices_per_node: int) -> str:
        """What each node runs, so that its agent starts a command once a device.

        Args:
            rank_command: For the shell, one process per rank.
            folder: Where the agent's own notes go.
            num_nodes: Nodes of the job.
            devices_per_node: Ranks of each.
        """
        agent = [
            self.python,
            "-m",
            "torch.distributed.run",
            f"--nnodes={num_nodes}",
            f"--nproc-per-node={devices_per_node}",
            "--max-restarts=0",
            f"--log-dir={folder / 'agent'}",
        ]
        place = '--node-rank="$PACELINE_NODE_RANK" --master-addr="$MASTER_ADDR" --master-port="$MASTER_PORT"'
        program = ["--no-python", "/bin/sh", "-c", rank_command]
        return f"exec {shlex.join(agent)} {place} {shlex.join(program)}"


def noted(rank_command: str, folder: Path, *, tolerated: bool = False) -> str:
    """A rank's command that leaves what it prints in `rank-R.log` and how it ended in `rank-R.exit`.

    Args:
        rank_command: For the shell.
        folder: The job's.
        tolerated: Whether the job goes on without ranks that were killed.
    """
    note = shlex.quote(f"{folder}/rank-")
    lines = [
        f'exec >>{note}"$RANK".log 2>&1',
        f"/bin/sh -c {shlex.quote(rank_command)}",
        "code=$?",
        f'echo "$code" >{note}"$RANK".code && mv {note}"$RANK".code {note}"$RANK".exit',
        '[ "$code" -le 128 ] || exit 0' if tolerated else "",
        'exit "$code"',
    ]
    return "\n".join(line for line in lines if line)
