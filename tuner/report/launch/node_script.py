"""What one node runs, in the shell's words; how it learns its place is the engine's."""

from __future__ import annotations

import re
import shlex

from tuner.launchers import OnePer
from tuner.report.launch.plan import LaunchPlan


def node_lines(
    plan: LaunchPlan,
    *,
    node_rank: str,
    main_address: str,
    main_port: str,
    goes_to_folder: bool = True,
    sets_environment: bool = True,
) -> list[str]:
    """Lines for `/bin/sh` that give the command its variables and run it; its exit code is theirs.

    Args:
        plan: What is launched.
        node_rank: Shell word for this node's rank.
        main_address: Shell word for the first node's address.
        main_port: Shell word for a port that is free there.
        goes_to_folder: Whether the working folder is entered; not where the engine does so.
        sets_environment: Whether the plan's variables are set; not where the engine does so.
    """
    lines = []
    if sets_environment:
        lines += [f"export {name}={shlex.quote(value)}" for name, value in plan.environment.items()]
    if plan.reads_place:
        lines += [
            f"export PACELINE_NUM_NODES={plan.num_nodes} PACELINE_NODE_RANK={node_rank}",
            f"export MASTER_ADDR={main_address} MASTER_PORT={main_port}",
            'export PACELINE_MAIN_ADDRESS="$MASTER_ADDR" PACELINE_MAIN_PORT="$MASTER_PORT"',
        ]
    if goes_to_folder:
        lines.append(f"cd {shlex.quote(plan.working_folder)} || exit")
    return [*lines, _command(plan)]


def _command(plan: LaunchPlan) -> str:
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
