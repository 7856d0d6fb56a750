"""Launch plan: a recommendation as a command on some nodes, whatever launches it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tuner.domain.cluster import Cluster
from tuner.domain.format import format_configuration
from tuner.domain.recommendation import Recommendation, train_command
from tuner.job import Job, own_launch, stated_values
from tuner.launchers import OnePer
from tuner.report.wording import prediction, trust_in

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_CLIENT = (
    "Needs paceline_client, a single file, where it runs: install Paceline, or copy its file "
    "paceline_client.py beside the script"
)


@dataclass(frozen=True, kw_only=True)
class LaunchPlan:
    """A training to be launched.

    A shell runs its command, with the environment variables that a launcher gives to a `CommandTask`.

    Args:
        name: Name of the job.
        command: Shell command; empty if only the chosen values are exported.
        one_per: How many copies of the command are started.
        reads_place: Whether the command receives its rank and the main node's address, in
            `PACELINE_NODE_RANK`, `PACELINE_NUM_NODES`, `PACELINE_MAIN_ADDRESS`, `PACELINE_MAIN_PORT`,
            `MASTER_ADDR` and `MASTER_PORT`.
        num_nodes: Machines it runs on.
        devices_per_node: Devices it uses on each machine.
        cores_per_node: CPU cores it uses on each machine.
        accelerator: Type of a device, such as A100; None for CPU cores.
        image: Container image it runs in, if the scheduler backend runs containers.
        environment: Further environment variables.
        preparation: Shell lines that the command begins with.
        values: The chosen values and those that follow from them, by name, as text.
        working_folder: Where it runs; a scheduler that copies files to its nodes copies this folder.
        facts: Sentences on what is trained and what to expect, for the comments at the top of every file.
        longest_seconds: Upper end of the predicted training time; None if there is no bound.
        settings: The job file's settings of the scheduler backend, by key.
        file_name: Name of the launch file, for the comment that says how to start it.
    """

    name: str
    command: str
    one_per: OnePer = OnePer.NODE
    reads_place: bool = True
    num_nodes: int = 1
    devices_per_node: int = 1
    cores_per_node: int = 1
    accelerator: str | None = None
    image: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    preparation: tuple[str, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)
    working_folder: str
    facts: tuple[str, ...] = ()
    longest_seconds: float | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    file_name: str = "FILE"

    @property
    def variables(self) -> dict[str, str]:
        """The chosen values as `PACELINE_...`, and what the command is given besides."""
        chosen = {f"PACELINE_{axis.upper()}": value for axis, value in self.values.items()}
        return {**chosen, **self.environment}

    def __post_init__(self) -> None:
        if min(self.num_nodes, self.devices_per_node, self.cores_per_node) < 1:
            raise ValueError("a launch needs at least one node, one device and one core")
        for name in self.environment:
            if not _VARIABLE.fullmatch(name):
                raise ValueError(f"{name!r} cannot be the name of a variable: letters, digits and _ are")


def launch_plan(recommendation: Recommendation, job: Job, job_path: Path) -> LaunchPlan:
    """The plan of a recommendation: runs the user's own command, or else `paceline train`.

    Args:
        recommendation: The answer. If it has no command, the plan has none.
        job: The job.
        job_path: The job file.
    """
    if job.runs_command:
        return command_plan(recommendation, job, job_path.resolve().parent)
    if recommendation.command:
        # The search may have been started from another folder, with another path to the job file.
        command = train_command(job_path, recommendation.choice.configuration)
        recommendation = replace(recommendation, command=command)
    return training_plan(recommendation, job.resolved_cluster(), working_folder=str(Path.cwd()))


def training_plan(recommendation: Recommendation, cluster: Cluster, *, working_folder: str) -> LaunchPlan:
    """The plan of a recommendation whose command, `paceline train`, starts all its ranks itself.

    Args:
        recommendation: The answer.
        cluster: The cluster of the job.
        working_folder: The folder in which the command runs.
    """
    nodes = recommendation.choice.configuration.nodes
    ranks = cluster.num_ranks(nodes)
    facts = facts_of(recommendation)
    if not cluster.nodes_share_host:
        facts += (f"It starts its nodes itself, as the job file says ({cluster.launcher}).",)
    elif nodes > 1:
        facts += (f"All on one machine: its {nodes} nodes are groups of processes there.",)
    return LaunchPlan(
        name=recommendation.job_name,
        command=recommendation.command.strip(),
        one_per=OnePer.JOB,
        reads_place=False,
        devices_per_node=ranks,
        cores_per_node=ranks * cluster.threads_per_rank,
        values={
            **{axis: str(value) for axis, value in recommendation.choice.configuration.items()},
            "devices_per_node": str(cluster.devices_per_node),
        },
        working_folder=working_folder,
        facts=facts,
        longest_seconds=_longest_seconds(recommendation),
    )


def command_plan(recommendation: Recommendation, job: Job, job_folder: Path) -> LaunchPlan:
    """The plan of the user's own command on the recommended nodes.

    Args:
        recommendation: The answer.
        job: A job with a command.
        job_folder: The folder of the job file.
    """
    configuration, cluster = recommendation.choice.configuration, job.cluster
    launch = own_launch(job, job_folder, configuration, num_samples=recommendation.training_samples)
    needed = (_CLIENT,) if launch.imports_client else ()
    return LaunchPlan(
        name=recommendation.job_name,
        command="\n".join([*launch.preparation, launch.command]),
        one_per=OnePer(job.command.one_per),
        num_nodes=configuration.nodes,
        devices_per_node=cluster.devices_per_node,
        cores_per_node=cluster.devices_per_node * cluster.threads_per_rank,
        environment=launch.environment,
        preparation=launch.preparation,
        values={
            name: str(value)
            for name, value in stated_values(job, configuration).items()
            # The path of an interpreter is not a value that was chosen.
            if name != "python"
        },
        working_folder=str(launch.folder),
        facts=(*facts_of(recommendation), *needed),
        longest_seconds=_longest_seconds(recommendation),
    )


def facts_of(recommendation: Recommendation) -> tuple[str, ...]:
    """What is trained, for which goal, what to expect, and how far to trust it."""
    trust, expected = trust_in(recommendation), prediction(recommendation)
    facts = (
        f"Trains {recommendation.job_name} as Paceline recommends: "
        f"{format_configuration(recommendation.choice.configuration)}",
        f"Goal: {recommendation.goal}",
        f"Predicted: {expected.headline}. {expected.detail}",
        f"Trust: {trust.headline}. {trust.detail}",
    )
    if recommendation.checkpoint is None:
        return facts
    return (*facts, f"Trained already where it was recommended: {recommendation.checkpoint}")


def _longest_seconds(recommendation: Recommendation) -> float | None:
    upper = recommendation.choice.seconds.upper
    return upper if math.isfinite(upper) else None
