"""A whole job, and what follows from it: its cluster, its search space, its fingerprint."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Annotated

from pydantic import Field, model_validator

from search_spaces import BatchCoversRanks, Configuration, OneOf, SearchSpace
from tuner.cluster import Cluster, RankDelay
from tuner.job.sections import (
    BaselineSection,
    BudgetSection,
    ClusterSection,
    GoalSection,
    ProbeSection,
    WorkloadSection,
)
from tuner.job.space_section import SpaceSection
from tuner.job.values import Section


class Job(Section):
    """A whole job file."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = Field(
        default="job",
        description="names the study and the output folder; the file's stem if absent",
    )
    seed: Annotated[int, Field(ge=0)] = Field(
        default=0, description="of initial weights, data order and the search's own draws"
    )
    workload: WorkloadSection = Field(description="what is trained")
    cluster: ClusterSection = Field(default=ClusterSection(), description="nodes and what they cost")
    goal: GoalSection = Field(description="what must be reached, and what is made small")
    space: SpaceSection = Field(description="what may be chosen besides nodes")
    baseline: BaselineSection | None = Field(
        default=None, description="your present settings; probed first, never silently worsened"
    )
    probe: ProbeSection = Field(default=ProbeSection(), description="how configurations are looked at")
    budget: BudgetSection = Field(
        default=BudgetSection(), description="what the search may spend; whichever runs out first"
    )

    @model_validator(mode="after")
    def _sections_agree(self) -> Job:
        if self.goal.minimize == "dollars" and self.cluster.dollars_per_node_hour == 0:
            raise ValueError("goal.minimize = 'dollars' needs cluster.dollars_per_node_hour above 0")
        for key, limit in (
            ("goal.max_dollars", self.goal.max_dollars),
            ("budget.dollars", self.budget.dollars),
        ):
            if limit is not None and self.cluster.dollars_per_node_hour == 0:
                raise ValueError(f"{key} needs cluster.dollars_per_node_hour above 0")
        return self

    def resolved_cluster(self) -> Cluster:
        """The cluster as the models see it; with the local launcher all nodes share this host."""
        section = self.cluster
        return Cluster(
            node_counts=section.nodes,
            devices_per_node=section.devices_per_node,
            dollars_per_node_hour=section.dollars_per_node_hour,
            launcher=section.launcher,
            threads_per_rank=section.threads_per_rank,
            cores_per_host=len(os.sched_getaffinity(0)),
            nodes_share_host=section.launcher == "local",
            delays=tuple(
                RankDelay(ranks=delay.ranks, low=delay.low, high=delay.high)
                for delay in section.emulate.delays
            ),
        )

    def search_space(self) -> SearchSpace:
        """The configurations that may be tried."""
        return SearchSpace(
            axes={"nodes": OneOf(list(self.cluster.nodes)), **self.space.axes()},
            knobs=self.space.knobs(),
            conditions=(BatchCoversRanks(devices_per_node=self.cluster.devices_per_node),),
        )

    def baseline_configuration(self) -> Configuration | None:
        """The user's present settings, or None where the job states none."""
        return None if self.baseline is None else self.baseline.configuration()

    def fingerprint(self, workload_code: str, hardware: str) -> str:
        """Names what curves and step times depend on, so that they can be used again.

        Budget, target, space and baseline do not enter: curves measured under one hold under another.

        Args:
            workload_code: Digest of the workload's source.
            hardware: What the ranks run on.
        """
        parts = {
            "workload": self.workload.model_dump(mode="json"),
            "code": workload_code,
            "hardware": hardware,
            "metric": self.goal.metric,
            "devices_per_node": self.cluster.devices_per_node,
            "threads_per_rank": self.cluster.threads_per_rank,
            "launcher": self.cluster.launcher,
            "seed": self.seed,
        }
        if self.cluster.emulate.delays:
            parts["emulate"] = self.cluster.emulate.model_dump(mode="json")
        text = json.dumps(parts, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
