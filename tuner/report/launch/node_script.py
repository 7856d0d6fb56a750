"""Shell script lines that one node runs; the scheduler backend supplies its rank."""

from __future__ import annotations

import re
import shlex

from tuner.launchers import OnePer
from tuner.report.launch.plan import LaunchPlan


def node_lines(plan: LaunchPlan, *, node_rank: str, main_address: str, main_port: str) -> list[str]:
    """Lines that set the command's place and run it; their exit code is the command's.

    Args:
        plan: What is launched.
        node_rank: Shell word for this node's rank.
        main_address: Shell word for the first node's address.
        main_port: Shell word for a port that is free there.
    """
    if not plan.reads_place:
        return [command_line(plan)]
    meeting = meeting_lines(plan, main_address=main_address, main_port=main_port)
    return [*meeting, rank_line(node_rank), command_line(plan)]


def environment_lines(plan: LaunchPlan) -> list[str]:
    """Lines that set the plan's variables."""
    return [f"export {name}={shlex.quote(value)}" for name, value in plan.environment.items()]


def folder_line(plan: LaunchPlan) -> str:
    """A line that enters the working folder, or ends the script."""
    return f"cd {shlex.quote(plan.working_folder)} || exit"


def meeting_lines(plan: LaunchPlan, *, main_address: str, main_port: str) -> list[str]:
    """Lines that say how many nodes there are, and where they meet."""
    return [
        f"export MASTER_ADDR={main_address} MASTER_PORT={main_port}",
        f'export PACELINE_NUM_NODES={plan.num_nodes} PACELINE_MAIN_ADDRESS="$MASTER_ADDR" '
        'PACELINE_MAIN_PORT="$MASTER_PORT"',
    ]


def rank_line(node_rank: str) -> str:
    """A line that says which node this is."""
    return f"export PACELINE_NODE_RANK={node_rank}"


def command_line(plan: LaunchPlan) -> str:
    """The command; where a copy a rank is wanted, torchrun starts them and ends all when one fails."""
    if plan.one_per is not OnePer.RANK:
        return plan.command
    return (
        f"torchrun --no-python --nnodes {plan.num_nodes} --nproc-per-node {plan.devices_per_node} "
        '--node-rank "$PACELINE_NODE_RANK" --master-addr "$MASTER_ADDR" --master-port "$MASTER_PORT" '
        f"/bin/sh -c {shlex.quote(_unreplaced(plan.command))}"
    )


def _unreplaced(text: str) -> str:
    """A text as torchrun has to be given it: in arguments it replaces `$local_rank`, and `$$` by a dollar."""
    return re.sub(r"\$(?=\$|\{?local_rank)", "$$", text)
