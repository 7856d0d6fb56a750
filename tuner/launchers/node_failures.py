"""Describes how processes on nodes failed: exit code or signal, and the last lines of their logs."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping

from tuner.launchers.job_folder import JobFolder, NodeStatus
from tuner.launchers.launcher import RankFailure

_LAST_LINES = 20
#: Matches torchrun's report of its first rank that failed; torchrun itself ends with exit code 1.
_TORCHRUN_CAUSE = re.compile(
    r"Root Cause \(first observed failure\):.*?\bexitcode *: (-\d+) \(pid", re.DOTALL
)
_TORCHRUN_TAIL = 2**16


def node_failures(
    folder: JobFolder, nodes: Mapping[int, NodeStatus], devices_per_node: int
) -> tuple[RankFailure, ...]:
    """Returns the failures of a job's processes, the first one first, with the ends of their log files.

    Args:
        folder: Folder of the job.
        nodes: Maps the number of each node to its last report.
        devices_per_node: Number of ranks per node.
    """
    by_rank = _rank_failures(folder, nodes, devices_per_node)
    if by_rank:
        return by_rank
    logs, first = folder.logs(), folder.first_failed()
    if folder.rank_exits():
        logs = folder.node_logs()
    ordered = sorted(nodes.values(), key=lambda n: (n.node != first, n.ended_at or 0.0, n.node))
    failures = []
    for node in ordered:
        for copy, code in sorted(node.exits.items(), key=lambda end: end[1] in (0, -signal.SIGTERM)):
            if code != 0:
                log = logs.get(copy, "")
                printed = last_lines(log)
                own = node.reason if node.node == first and node.reason else ""
                words = f"{own or _code_words(code)}{': it printed nothing' if not printed else ''}"
                reason = f"{words} on {node.host}" + (f"; its last lines:\n{printed}" if printed else "")
                failures.append(RankFailure(rank=copy, reason=reason, exit_code=_cause(code, log)))
    return tuple(failures)


def last_lines(text: str) -> str:
    """Returns the last lines of a log."""
    return "\n".join(text.strip().splitlines()[-_LAST_LINES:])


def _rank_failures(
    folder: JobFolder, nodes: Mapping[int, NodeStatus], devices_per_node: int
) -> tuple[RankFailure, ...]:
    """Returns the failures of ranks, the first failure first; ranks that were ended by SIGTERM come last."""
    exits = {rank: code for rank, code in folder.rank_exits().items() if code != 0}
    logs, failures = folder.logs(), []
    for rank, code in sorted(exits.items(), key=lambda end: end[1] == -signal.SIGTERM):
        printed = last_lines(logs.get(rank, ""))
        node = nodes.get(rank // devices_per_node)
        words = f"rank {rank} ended with {_code_words(code)}{f' on {node.host}' if node else ''}"
        reason = f"{words}; its last lines:\n{printed}" if printed else f"{words}: it printed nothing"
        failures.append(RankFailure(rank=rank, reason=reason, exit_code=code))
    return tuple(failures)


def _cause(code: int, log: str) -> int:
    """Returns the exit code of a process; for torchrun, the exit code of the rank that failed first."""
    found = _TORCHRUN_CAUSE.findall(log[-_TORCHRUN_TAIL:]) if code == 1 else []
    return int(found[-1]) if found else code


def _code_words(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}"
