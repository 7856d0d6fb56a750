"""A shell script that is started once on each node; with one node, `launch.sh` of the report."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from tuner.launchers import OnePer
from tuner.report.launch.node_script import environment_lines, folder_line, node_lines
from tuner.report.launch.plan import LaunchPlan, head

#: Where torchrun meets by default.
MAIN_PORT = 29500


def torchrun_script(plan: LaunchPlan) -> str:
    """The script; on each of several nodes its arguments are the node's rank and the first's address."""
    script = shlex.quote(plan.file_name)
    if plan.one_per is OnePer.JOB or plan.num_nodes == 1:
        address = "127.0.0.1" if plan.num_nodes == 1 else '"$(hostname)"'
        port = " [MAIN_PORT]" if plan.reads_place else ""
        how = f"Start it on one machine: sh {script}{port}"
        check: list[str] = []
        body = node_lines(plan, node_rank="0", main_address=address, main_port=f'"${{1:-{MAIN_PORT}}}"')
    else:
        last = plan.num_nodes - 1
        how = (
            f"Start it on each of the {plan.num_nodes} nodes: sh {script} RANK MAIN_ADDRESS [MAIN_PORT], "
            f"where RANK is from 0 to {last} and MAIN_ADDRESS that of the node with rank 0"
        )
        if isinstance(hosts := plan.settings.get("hosts"), Sequence):
            how += f" ({', '.join(str(host) for host in hosts[: plan.num_nodes])})"
        check = [
            'if [ "$#" -lt 2 ]; then',
            f'    echo "usage: sh $0 RANK MAIN_ADDRESS [MAIN_PORT]   (RANK: 0 to {last})" >&2',
            "    exit 2",
            "fi",
        ]
        body = node_lines(plan, node_rank='"$1"', main_address='"$2"', main_port=f'"${{3:-{MAIN_PORT}}}"')
    lines = [*check, *environment_lines(plan), folder_line(plan), *body]
    return "\n".join(["#!/bin/sh", *head(plan, how), "", *lines, ""])
