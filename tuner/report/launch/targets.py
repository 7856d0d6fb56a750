"""Export targets of a recommendation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tuner.domain.errors import JobError
from tuner.report.launch.environment_file import environment_file
from tuner.report.launch.plan import LaunchPlan
from tuner.report.launch.ray_driver import ray_driver
from tuner.report.launch.sky_task import sky_task
from tuner.report.launch.slurm_script import slurm_script
from tuner.report.launch.torchrun_script import torchrun_script
from tuner.report.launch.train_job import train_job


@dataclass(frozen=True, kw_only=True)
class Target:
    """One thing to export to.

    Args:
        render: Makes its file's text.
        executable: Whether the file may be executed.
        needs_command: Whether there is nothing to write without a command.
    """

    render: Callable[[LaunchPlan], str]
    executable: bool = False
    needs_command: bool = True


TARGETS: Mapping[str, Target] = {
    "torchrun": Target(render=torchrun_script, executable=True),
    "slurm": Target(render=slurm_script, executable=True),
    "ray": Target(render=ray_driver, executable=True),
    "k8s": Target(render=train_job),
    "skypilot": Target(render=sky_task),
    "env": Target(render=environment_file, needs_command=False),
}


def launch_text(plan: LaunchPlan, target: str) -> str:
    """The text of a target's file.

    Raises:
        JobError: The target cannot run what is planned.
    """
    if TARGETS[target].needs_command and not plan.command:
        raise JobError(
            f"{plan.name} cannot be exported to {target}: what is recommended was emulated or replayed, so "
            "there is no command here that trains it. `--target env` writes its values, to be trained with "
            "what the recording was made with, or by a job whose nodes exist"
        )
    try:
        return TARGETS[target].render(plan)
    except ValueError as error:
        raise JobError(f"{plan.name} cannot be exported to {target}: {error}") from error
