"""The sections of a job file about launchers: torchrun hosts, SLURM, Ray."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt, model_validator

from tuner.job.values import Duration, Section

_PLACES = ("{host}", "{command}")


class TorchrunSection(Section):
    """`[cluster.torchrun]`: hosts, reached by ssh or another command."""

    hosts: Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        description="host names or addresses, the first node first"
    )
    connect: str = Field(
        default="ssh -o BatchMode=yes -o ConnectTimeout=15 -o ServerAliveInterval=15 {host} {command}",
        description="command that runs {command}, one quoted word, on {host}",
    )

    @model_validator(mode="after")
    def _has_its_places(self) -> TorchrunSection:
        for place in _PLACES:
            if place not in self.connect:
                raise ValueError(f"connect = {self.connect!r} lacks {place}: add it")
        if len(set(self.hosts)) != len(self.hosts):
            raise ValueError("hosts must not repeat a host; devices_per_node says how many ranks one has")
        return self


class SlurmSection(Section):
    """`[cluster.slurm]`: resources to request from SLURM besides nodes."""

    partition: str | None = Field(default=None, description="partition; SLURM's default if absent")
    account: str | None = Field(default=None, description="account that is charged")
    time: Duration | None = Field(
        default=None, description="longest time of one slice's job; the partition's default if absent"
    )
    gres: str | None = Field(default=None, description="devices of a node, such as 'gpu:4'")
    cpus_per_node: PositiveInt | None = Field(
        default=None, description="CPUs of a node; devices_per_node * threads_per_rank if absent"
    )
    extra: dict[str, str | int | bool] = Field(
        default={}, description="further options of sbatch, such as { constraint = 'a100', exclusive = true }"
    )


class RaySection(Section):
    """`[cluster.ray]`: the Ray cluster, and the resources of a node."""

    address: str = Field(
        default="http://127.0.0.1:8265", description="address of the Ray dashboard, which takes jobs"
    )
    cpus_per_node: PositiveInt | None = Field(
        default=None, description="CPUs of a node's bundle; devices_per_node * threads_per_rank if absent"
    )
    gpus_per_node: Annotated[int, Field(ge=0)] = Field(default=0, description="GPUs of a node's bundle")
    resources: dict[str, float] = Field(
        default={}, description="custom resources of a node's bundle, such as { a100 = 8 }"
    )
    node_timeout: Duration = Field(
        default=600.0,
        description="how long to wait for nodes that the cluster does not have yet; the wait for busy nodes "
        "has no limit",
    )
