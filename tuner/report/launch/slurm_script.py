"""A batch script for SLURM's `sbatch`."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping

from tuner.launchers import OnePer
from tuner.report.launch.node_script import environment_lines, folder_line, meeting_lines, rank_line
from tuner.report.launch.plan import LaunchPlan, head

#: Times the longest predicted time that a training is given, where the job file limits the time of jobs.
_TIME_FACTOR = 2.0

#: The first node's name, and a port by which jobs that share a node keep apart.
_MAIN_ADDRESS = '"$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"'
_MAIN_PORT = "$((15000 + SLURM_JOB_ID % 15000))"


def slurm_script(plan: LaunchPlan) -> str:
    """The script: one task a node, or one a rank; the first node's name is where they meet."""
    script = shlex.quote(plan.file_name)
    how = f"Start it: sbatch {script} (options before its name, such as --partition, go above those here)"
    lines = ["#!/bin/sh", *(f"#SBATCH {option}" for option in _options(plan)), *head(plan, how), ""]
    lines += [*environment_lines(plan), folder_line(plan)]
    if plan.reads_place:
        lines += meeting_lines(plan, main_address=_MAIN_ADDRESS, main_port=_MAIN_PORT)
    if plan.one_per is OnePer.JOB:
        return "\n".join([*lines, *([rank_line("0")] if plan.reads_place else []), plan.command, ""])
    lines += [
        # Since SLURM 22.05 srun no longer takes the cores of a task from sbatch.
        'srun --export=ALL --cpus-per-task="$SLURM_CPUS_PER_TASK" --kill-on-bad-exit=1 \\',
        f"    /bin/sh -c {shlex.quote(_task(plan))}",
        "",
    ]
    return "\n".join(lines)


def _task(plan: LaunchPlan) -> str:
    """What each task of the step runs; srun starts the ranks itself where one copy each is wanted."""
    lines = [rank_line('"$SLURM_NODEID"')]
    if plan.one_per is OnePer.RANK:
        lines.append(
            'export RANK="$SLURM_PROCID" WORLD_SIZE="$SLURM_NTASKS" LOCAL_RANK="$SLURM_LOCALID" '
            f"LOCAL_WORLD_SIZE={plan.devices_per_node}"
        )
    return "\n".join([*lines, plan.command])


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
    return math.ceil(max(stated, _TIME_FACTOR * (plan.longest_seconds or 0.0)) / 60)


def _devices(plan: LaunchPlan) -> str:
    if plan.accelerator is None:
        return ""
    kind = "" if plan.accelerator.lower() == "gpu" else f":{plan.accelerator.lower()}"
    return f"gpu{kind}:{plan.devices_per_node}"


def _quoted(value: object) -> str:
    """A value as sbatch reads it: as a shell would, on one line."""
    return shlex.quote(" ".join(str(value).split()))
