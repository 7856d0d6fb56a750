"""Makes launch plans: command, nodes and environment that train a recommendation, for any launcher."""

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
from tuner.launchers.containers import Container
from tuner.report.wording import prediction, trust_in

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_CLIENT = (
    "The script imports paceline_client: install Paceline on the nodes, or copy the single file "
    "paceline_client.py beside the script"
)


@dataclass(frozen=True, kw_only=True)
class LaunchPlan:
    """A training to be launched, independent of the launcher.

    The launcher runs the command in a shell, with the environment variables of a `CommandTask`.

    Args:
        name: Name of the job.
        command: Shell command that trains; empty if only the recommended values are exported.
        one_per: Whether one copy of the command is started per job, per node or per rank.
        reads_place: Whether the command needs its node rank and the address of the main node, in
            `PACELINE_NODE_RANK`, `PACELINE_NUM_NODES`, `PACELINE_MAIN_ADDRESS`, `PACELINE_MAIN_PORT`,
            `MASTER_ADDR` and `MASTER_PORT`.
        num_nodes: Number of machines.
        devices_per_node: Number of devices used on each machine.
        cores_per_node: Number of CPU cores used on each machine.
        accelerator: Type of a device, such as A100; None for CPU cores.
        image: Container image, for schedulers that run containers.
        container: Container in which the command runs, of the job's `cluster.image`; None without one. Its
            variables and working folder are those of the plan.
        environment: Maps the name of each further environment variable to its value.
        private: Maps the name of each environment variable whose value must not be published to this value.
            The launch file reads these values from `secret_file`.
        preparation: Shell lines at the start of the command, such as those that create folders.
        values: Maps the name of each recommended value, and of values derived from them, to the value as
            text.
        working_folder: Folder in which the command runs. Schedulers that copy files to the nodes copy this
            folder.
        facts: Sentences on the configuration and its predicted time, written as comments at the top of every
            launch file.
        longest_seconds: Upper end of the 90% interval of the predicted training time; None if it is infinite.
        settings: Maps each key in the launcher's section of the job file to its value.
        file_name: Name of the launch file, for the comment that explains how to start it.
        secret_file: Absolute path of the file with the values of `private`; None if there is no such file, so
            that these variables must be set before the training is launched.
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
    container: Container | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    private: Mapping[str, str] = field(default_factory=dict)
    preparation: tuple[str, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)
    working_folder: str
    facts: tuple[str, ...] = ()
    longest_seconds: float | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    file_name: str = "FILE"
    secret_file: Path | None = None

    @property
    def variables(self) -> dict[str, str]:
        """All environment variables of the command; each recommended value is in `PACELINE_NAME`."""
        chosen = {f"PACELINE_{axis.upper()}": value for axis, value in self.values.items()}
        return {**chosen, **self.environment}

    def written_to(self, path: Path, target: str) -> LaunchPlan:
        """Returns a copy of the plan for a launch file at a path.

        If there are private variables, the plan names a secret file for their values in the same folder.

        Args:
            path: Path of the launch file.
            target: Kind of launch file, a key of `TARGETS`; it determines the format of the secret file.
        """
        # The whole name, so that job.sh and job.sbatch do not share a secret file.
        secret = path.resolve().with_name(f"{path.name}.secret.{'yaml' if target == 'k8s' else 'env'}")
        return replace(self, file_name=path.name, secret_file=secret if self.private else None)

    def __post_init__(self) -> None:
        if min(self.num_nodes, self.devices_per_node, self.cores_per_node) < 1:
            raise ValueError("a launch plan needs at least one node, one device and one core")
        for name in (*self.environment, *self.private):
            if not _VARIABLE.fullmatch(name):
                raise ValueError(f"{name!r} is not a variable name; use only letters, digits and _")


def launch_plan(recommendation: Recommendation, job: Job, job_path: Path) -> LaunchPlan:
    """Creates the launch plan of a recommendation.

    The plan runs the user's own training command if the job has one, and otherwise `paceline train`.

    Args:
        recommendation: The recommendation to train. If it has no command, the plan has no command.
        job: The job of the recommendation.
        job_path: Path of the job file.
    """
    if job.runs_command:
        return command_plan(recommendation, job, job_path.resolve().parent)
    if recommendation.command:
        # The search may have been started from another folder, with another path to the job file.
        command = train_command(job_path, recommendation.choice.configuration)
        recommendation = replace(recommendation, command=command)
    return training_plan(recommendation, job.resolved_cluster(), working_folder=str(Path.cwd()))


def training_plan(recommendation: Recommendation, cluster: Cluster, *, working_folder: str) -> LaunchPlan:
    """Creates the launch plan for `paceline train`, which is started once and starts all ranks itself.

    Args:
        recommendation: The recommendation to train.
        cluster: Cluster of the job, which defines the number of ranks per node.
        working_folder: Folder in which the command runs.
    """
    nodes = recommendation.choice.configuration.nodes
    ranks = cluster.num_ranks(nodes)
    facts = facts_of(recommendation)
    if not cluster.nodes_share_host:
        facts += (f"The command starts all nodes itself, with the job file's launcher ({cluster.launcher}).",)
    elif nodes > 1:
        facts += (f"It runs on one machine: the {nodes} nodes are groups of processes there.",)
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
    """Creates the launch plan for the user's own training command on the recommended number of nodes.

    Args:
        recommendation: The recommendation to train.
        job: A job with a training command.
        job_folder: Folder of the job file, to which paths in the job are relative.
    """
    configuration, cluster = recommendation.choice.configuration, job.cluster
    launch = own_launch(job, job_folder, configuration, num_samples=recommendation.training_samples)
    needed: tuple[str, ...] = (_CLIENT,) if launch.imports_client else ()
    container = None
    if cluster.image is not None:
        container = Container(
            image=cluster.image,
            # The nodes may have other programs than this host, which does not start the command.
            runtime=cluster.container or ("apptainer" if cluster.launcher == "slurm" else "docker"),
            folders=(job_folder, launch.folder),
            working_folder=launch.folder,
            variables=(),
            task_folder=None,
            grace_seconds=job.command.grace,
        )
        needed += (f"It runs in the image {cluster.image}",)
    return LaunchPlan(
        name=recommendation.job_name,
        command="\n".join([*launch.preparation, launch.command]),
        one_per=OnePer(job.command.one_per),
        num_nodes=configuration.nodes,
        devices_per_node=cluster.devices_per_node,
        cores_per_node=cluster.devices_per_node * cluster.threads_per_rank,
        container=container,
        environment=launch.environment,
        private=launch.private,
        preparation=launch.preparation,
        values={
            name: str(value)
            for name, value in stated_values(job, configuration).items()
            # The path of the Python interpreter is not a recommended value.
            if name != "python"
        },
        working_folder=str(launch.folder),
        facts=(*facts_of(recommendation), *needed),
        longest_seconds=_longest_seconds(recommendation),
    )


def facts_of(recommendation: Recommendation) -> tuple[str, ...]:
    """Returns sentences that state a recommendation's configuration, goal, predicted time and evidence."""
    trust, expected = trust_in(recommendation), prediction(recommendation)
    # A weak prediction says so before the time, such as `provisional: 12 s`.
    qualifier, _, time = expected.headline.rpartition(": ")
    facts = (
        f"Trains {recommendation.job_name} as Paceline recommends: "
        f"{format_configuration(recommendation.choice.configuration)}",
        f"Goal: {recommendation.goal}",
        f"Predicted{f' ({qualifier})' if qualifier else ''}: {time}. {expected.detail}",
        f"Trust: {trust.headline}. {trust.detail}",
    )
    if recommendation.checkpoint is None:
        return facts
    return (*facts, f"The search trained it already; the trained model is {recommendation.checkpoint}")


def _longest_seconds(recommendation: Recommendation) -> float | None:
    upper = recommendation.choice.seconds.upper
    return upper if math.isfinite(upper) else None
