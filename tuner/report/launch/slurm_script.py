"""A batch script for SLURM's `sbatch`."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping

from tuner.launchers import OnePer
from tuner.report.launch.node_script import node_lines
from tuner.report.launch.plan import LaunchPlan, head

#: Times the longest predicted time that a training is given, where the job file limits the time of jobs.
_PATIENCE = 2.0

#: The first node's name, and a port by which jobs that share a node keep apart.
_MEETING = (
    'MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
    "MASTER_PORT=$((15000 + SLURM_JOB_ID % 15000))",
    "export MASTER_ADDR MASTER_PORT",
)


def slurm_script(plan: LaunchPlan) -> str:
    """The script: one task a node, or one a rank; the first node's name is where they meet."""
    script = shlex.quote(plan.file_name)
    how = f"Start it: sbatch {script} (options before its name, such as --partition, go above those here)"
    lines = ["#!/bin/sh", *(f"#SBATCH {option}" for option in _options(plan)), *head(plan, how), ""]
    if plan.reads_place or plan.one_per is not OnePer.JOB:
        lines += _MEETING
    if plan.one_per is OnePer.JOB:
        return "\n".join([*lines, _task(plan), ""])
    lines += [
        # Since SLURM 22.05 srun no longer takes the cores of a task from sbatch.
        'srun --export=ALL --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=1 \\',
        f"    /bin/sh -c {shlex.quote(_task(plan))}",
        "",
    ]
    return "\n".join(lines)


def _task(plan: LaunchPlan) -> str:
    """What each task of the step runs."""
    lines = node_lines(
        plan, node_rank='"$SLURM_NODEID"', main_address='"$MASTER_ADDR"', main_port='"$MASTER_PORT"'
    )  # fmt: skip
    if plan.one_per is OnePer.RANK:
        place = (
            'export RANK="$SLURM_PROCID" WORLD_SIZE="$SLURM_NTASKS" LOCAL_RANK="$SLURM_LOCALID" '
            f"LOCAL_WORLD_SIZE={plan.devices_per_node}"
        )
        # srun starts the ranks itself.
        lines = [*lines[:-1], place, plan.command]
    return "\n".join(lines)


def _options(plan: LaunchPlan) -> Iterator[str]:
    settings = plan.settings
    tasks = plan.devices_per_node if plan.one_per is OnePer.RANK else 1
    cores = int(str(settings.get("cpus_per_node", plan.cores_per_node)))
    yield f"--job-name={_quoted(plan.name)}"
    yield f"--nodes={plan.num_nodes}"
    yield f"--ntasks-per-node={tasks}"
    yield f"--cpus-per-task={max(1, cores // tasks)}"
    for name in ("partition", "account"):
        if name in settings:
            yield f"--{name}={_quoted(settings[name])}"
    if "time" in settings:
        yield f"--time={_minutes(plan, float(str(settings['time'])))}"
    gres = settings.get("gres") or _devices(plan)
    if gres:
        yield f"--gres={_quoted(gres)}"
    extra = settings.get("extra", {})
    assert isinstance(extra, Mapping)
    for name, value in extra.items():
        option = f"--{name.replace('_', '-')}"
        if value is not False:
            yield option if value is True else f"{option}={_quoted(value)}"


def _minutes(plan: LaunchPlan, stated: float) -> int:
    """Minutes that the whole training is given: what is stated is the limit of a probe's slice."""
    return math.ceil(max(stated, _PATIENCE * (plan.longest_seconds or 0.0)) / 60)


def _devices(plan: LaunchPlan) -> str:
    if plan.accelerator is None:
        return ""
    kind = "" if plan.accelerator.lower() == "gpu" else f":{plan.accelerator.lower()}"
    return f"gpu{kind}:{plan.devices_per_node}"


def _quoted(value: object) -> str:
    """A value as sbatch reads it: as a shell would, on one line."""
    return shlex.quote(" ".join(str(value).split()))
