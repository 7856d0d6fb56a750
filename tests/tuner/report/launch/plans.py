"""Plans by hand, whose commands tell what they were told."""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path

from tuner.launchers import OnePer
from tuner.report.launch_plan import LaunchPlan

#: What shells, YAML and Kubernetes each have a meaning for.
AWKWARD = 'two words, it\'s "quoted" $HOME $(pwd) $$ `id` \\ # {x}: - 100%'

#: Sums over all ranks, by gloo, and tells what it was started with.
SUMMING = """
import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

dist.init_process_group("gloo")
total = torch.tensor([float(dist.get_rank() + 1)])
dist.all_reduce(total)
told = {
    "rank": dist.get_rank(),
    "num_ranks": dist.get_world_size(),
    "total": total.item(),
    "node": int(os.environ["PACELINE_NODE_RANK"]),
    "arguments": sys.argv[1:],
    "greeting": os.environ["GREETING"],
    "folder": os.getcwd(),
}
Path(f"rank {dist.get_rank()}.json").write_text(json.dumps(told))
dist.destroy_process_group()
"""


def plan(folder: Path, **changes: object) -> LaunchPlan:
    """Each of two nodes tells its place, in a file of the working folder."""
    reported = (
        r"""printf '%s\n' "$PACELINE_NODE_RANK of $PACELINE_NUM_NODES" "$MASTER_ADDR $MASTER_PORT" """
        r""""$PACELINE_MAIN_ADDRESS $PACELINE_MAIN_PORT" "$GREETING" "$PWD" """
        r"""> "${OUT:-.}/node $PACELINE_NODE_RANK.txt" """
    )
    made = LaunchPlan(
        name="digits",
        command=reported.strip(),
        num_nodes=2,
        devices_per_node=1,
        cores_per_node=1,
        environment={"GREETING": AWKWARD},
        values={"nodes": "2", "batch_size": "64", "learning_rate": "0.05"},
        working_folder=str(folder),
        facts=("Trains digits\nrm -rf x", "Goal: accuracy >= 0.95, soonest"),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def observed_by(folder: Path, node: int) -> list[str]:
    """The lines a node wrote."""
    return (folder / f"node {node}.txt").read_text().splitlines()


def summing_plan(folder: Path, *, one_per: OnePer = OnePer.NODE, **changes: object) -> LaunchPlan:
    """Two nodes of as many ranks as they have devices sum over all, started by torchrun or one a rank."""
    script = folder / "it's a sum.py"
    script.write_text(SUMMING)
    made = plan(folder, one_per=one_per, **changes)
    program = f"{shlex.quote(script.name)} --note"
    if one_per is OnePer.RANK:
        return replace(made, command=f"{shlex.quote(sys.executable)} {program} {shlex.quote(AWKWARD)}")
    # Who calls torchrun writes a doubled dollar twice.
    program += f" {shlex.quote(AWKWARD.replace('$$', '$$$$'))}"
    place = '--node-rank "$PACELINE_NODE_RANK" --master-addr "$MASTER_ADDR" --master-port "$MASTER_PORT"'
    shape = f"--nnodes {made.num_nodes} --nproc-per-node {made.devices_per_node}"
    return replace(made, command=f"torchrun {shape} {place} {program}")


def environment(**more: str) -> dict[str, str]:
    """This process's, with the commands of its interpreter on the path."""
    stored = {name: value for name, value in os.environ.items() if not name.startswith(("PET_", "MASTER_"))}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**stored, "PATH": path, "OMP_NUM_THREADS": "1", **more}


def check_sums(folder: Path, num_ranks: int, num_nodes: int) -> None:
    """Every rank was there, on its node, and was given the words it should have been."""
    reported = [json.loads((folder / f"rank {rank}.json").read_text()) for rank in range(num_ranks)]
    for rank, words in enumerate(reported):
        assert words == {
            "rank": rank,
            "num_ranks": num_ranks,
            "total": num_ranks * (num_ranks + 1) / 2,
            "node": rank * num_nodes // num_ranks,
            "arguments": ["--note", AWKWARD],
            "greeting": AWKWARD,
            "folder": str(folder),
        }
