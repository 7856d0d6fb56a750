"""A whole job, and what follows from it: its cluster, its search space, its fingerprint."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, model_validator

from search_spaces import (
    BatchCoversRanks,
    BatchSplitsEvenly,
    Configuration,
    Feasibility,
    OneOf,
    ProductSpace,
    SearchSpace,
)
from tuner.domain.cluster import Cluster, RankDelay, VirtualCluster
from tuner.job.command_section import CommandSection
from tuner.job.sections import (
    BaselineSection,
    BudgetSection,
    ClusterSection,
    GoalSection,
    MachineSection,
    ProbeSection,
    WorkloadSection,
)
from tuner.job.space_section import SpaceSection
from tuner.job.values import ListedConfiguration, Section
from tuner.recordings.file import load_recording
from tuner.recordings.recording import Recording


def _settings_or_listed(value: Any) -> str:
    return "listed" if isinstance(value, str | Configuration) else "settings"


def _class_or_command(value: Any) -> str:
    states_command = isinstance(value, dict) and "command" in value
    # No names of keys: both kinds report where an error lies.
    return "a command" if states_command or isinstance(value, CommandSection) else "a class"


class Job(Section):
    """A whole job file.

    A job with a recording has neither `workload` nor `space`, and its `cluster` is ignored: the recording
    states the workload, the machines and the configurations to choose from.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = Field(
        default="job",
        description="names the study and the output folder; the file's stem if absent",
    )
    seed: Annotated[int, Field(ge=0)] = Field(
        default=0, description="seed of initial weights, data order and the search's own draws"
    )
    workload: (
        Annotated[
            Annotated[WorkloadSection, Tag("a class")] | Annotated[CommandSection, Tag("a command")],
            Discriminator(_class_or_command),
        ]
        | None
    ) = Field(default=None, description="what is trained: a Workload class, or a command")
    cluster: ClusterSection = Field(default=ClusterSection(), description="nodes and what they cost")
    goal: GoalSection = Field(description="the target, and what to minimize on the way to it")
    space: SpaceSection | None = Field(default=None, description="what may be chosen besides nodes")
    baseline: (
        Annotated[
            Annotated[BaselineSection, Tag("settings")] | Annotated[ListedConfiguration, Tag("listed")],
            Discriminator(_settings_or_listed),
        ]
        | None
    ) = Field(default=None, description="your present settings; probed first, never silently worsened")
    probe: ProbeSection = Field(default=ProbeSection(), description="how configurations are probed")
    budget: BudgetSection = Field(
        default=BudgetSection(), description="what the search may spend; it ends at the first limit reached"
    )

    @model_validator(mode="after")
    def _a_command_is_run(self) -> Job:
        if self.runs_command and "kind" not in self.probe.model_fields_set:
            implied = self.probe.model_copy(update={"kind": "command"})
            # A validator that runs before the fields' would make pydantic forget that they come from JSON.
            object.__setattr__(self, "probe", implied)
        kind = self.probe.kind
        if isinstance(self.workload, CommandSection) and kind != "command":
            raise ValueError(
                f"probe.kind = {kind!r}: a command is run as it is, and workload.command implies 'command'. "
                "Take probe.kind out"
            )
        if kind == "command" and not isinstance(self.workload, CommandSection):
            raise ValueError(
                "probe.kind = 'command' needs workload.command: the command line of your script, such as "
                "'python train.py --lr {learning_rate} --batch-size {batch_size}'"
            )
        if self.runs_command and self.cluster.emulate.delays:
            raise ValueError(
                "cluster.emulate.delay slows ranks that train a Workload; a command's steps are its own. "
                "Take [cluster.emulate] out"
            )
        return self

    @model_validator(mode="after")
    def _sections_are_there(self) -> Job:
        replays = self.probe.recording is not None
        for name in ("workload", "space"):
            stated = getattr(self, name) is not None
            if not stated and not replays:
                raise ValueError(missing_section(name))
            if stated and replays:
                raise ValueError(stated_by_recording(name))
        if replays and self.cluster.model_copy(update={"capacity": None}) != ClusterSection():
            raise ValueError(stated_by_recording("cluster"))
        if isinstance(self.baseline, Configuration) != replays and self.baseline is not None:
            words = "must be one of the recorded configurations" if replays else "must be a table"
            raise ValueError(f"baseline {words}")
        return self

    @model_validator(mode="after")
    def _emulated_machines_are_described(self) -> Job:
        kind, at_hand = self.probe.kind, self.cluster.nodes_at_hand
        emulated = kind in ("emulated", "auto")
        if emulated and self.cluster.machine is None:
            raise ValueError(
                f"probe.kind = '{kind}' needs [cluster.machine]: what nodes and links take "
                "(fixed_seconds, seconds_per_sample, latency, bandwidth, jitter); "
                "`paceline calibrate` measures it"
            )
        if self.cluster.machine is not None and not emulated:
            raise ValueError(
                "[cluster.machine] describes nodes that need not be there, but probe.kind = "
                f"'{kind}' trains on those at hand: set probe.kind = 'emulated' or 'auto', or take it out"
            )
        if kind == "auto" and at_hand is None:
            raise ValueError("probe.kind = 'auto' needs cluster.nodes_at_hand: how many nodes really train")
        if at_hand is not None and kind != "auto":
            raise ValueError(
                f"cluster.nodes_at_hand goes with probe.kind = 'auto', which is '{kind}': change it, or take "
                "nodes_at_hand out"
            )
        if at_hand is not None and at_hand < self.cluster.nodes[0]:
            fewest = self.cluster.nodes[0]
            raise ValueError(
                f"cluster.nodes_at_hand = {at_hand} is below the fewest nodes that may be chosen, {fewest}: "
                f"no rank would train for real; state {fewest} or more, or set probe.kind = 'emulated'"
            )
        return self

    @model_validator(mode="after")
    def _capacity_is_enough(self) -> Job:
        capacity = self.cluster.capacity
        if capacity is None:
            return self
        cluster = self.resolved_cluster()
        most = replace(cluster, capacity=None).nodes_at_once
        there = "of which nodes_at_hand are there" if cluster.at_hand is not None else "that may be chosen"
        if cluster.virtual is not None and cluster.at_hand is None:
            raise ValueError(
                "cluster.capacity counts nodes in use at once, but probe.kind = 'emulated' uses none: "
                "take it out"
            )
        if capacity < most:
            extra = f" and {cluster.extra_nodes} beside them" if cluster.extra_nodes else ""
            raise ValueError(
                f"cluster.capacity = {capacity} is below the largest number of nodes {there}, "
                f"{most - cluster.extra_nodes}{extra}: state {most} or more, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _dollars_have_prices(self) -> Job:
        asked = {
            "goal.minimize = 'dollars'": self.goal.minimize == "dollars",
            "goal.max_dollars": self.goal.max_dollars is not None,
            "budget.dollars": self.budget.dollars is not None,
        }
        for words, is_asked in asked.items():
            if is_asked and not self.resolved_cluster().has_prices:
                needed = "cluster.dollars_per_node_hour above 0"
                if self.probe.recording is not None:
                    needed = f"machines with prices, which {self.probe.recording} does not state"
                raise ValueError(f"{words} needs {needed}")
        return self

    @property
    def trained(self) -> WorkloadSection:
        """`[workload]` of a job that trains a Workload."""
        assert isinstance(self.workload, WorkloadSection), "this job trains no Workload class"
        return self.workload

    @property
    def runs_command(self) -> bool:
        """Whether the user's own script trains."""
        return isinstance(self.workload, CommandSection)

    @property
    def command(self) -> CommandSection:
        """`[workload]` of a job that runs a command."""
        assert isinstance(self.workload, CommandSection), "this job runs no command"
        return self.workload

    @property
    def can_resume(self) -> bool:
        """Whether a run resumes where a slice ended; otherwise each slice starts over."""
        return not isinstance(self.workload, CommandSection) or self.workload.can_resume

    def recording(self) -> Recording | None:
        """What a job of recorded runs replays; None for a job that trains."""
        return None if self.probe.recording is None else load_recording(Path(self.probe.recording))

    def resolved_cluster(self) -> Cluster:
        """The cluster as the models see it; with the local launcher all nodes share this host."""
        recording, section = self.recording(), self.cluster
        if recording is not None:
            return replace(recording.cluster, capacity=section.capacity)
        delays = tuple(
            RankDelay(ranks=delay.ranks, low=delay.low, high=delay.high) for delay in section.emulate.delays
        )
        at_hand = Cluster(
            node_counts=section.nodes,
            devices_per_node=section.devices_per_node,
            dollars_per_node_hour=section.dollars_per_node_hour,
            launcher=section.launcher,
            threads_per_rank=section.threads_per_rank,
            cores_per_host=len(os.sched_getaffinity(0)) if section.launcher == "local" else None,
            nodes_share_host=section.launcher == "local",
            delays=delays,
            capacity=section.capacity or section.nodes_at_hand,
        )
        if section.machine is None:
            return at_hand
        described = replace(
            at_hand,
            cores_per_host=None,
            nodes_share_host=False,
            virtual=_virtual(section.machine, delays),
        )
        if section.nodes_at_hand is None:
            return described
        there = tuple(count for count in section.nodes if count <= section.nodes_at_hand)
        return replace(described, at_hand=replace(at_hand, node_counts=there))

    def search_space(self) -> SearchSpace:
        """The configurations that may be tried."""
        recording = self.recording()
        if recording is not None:
            return recording.space
        assert self.space is not None
        devices = self.cluster.devices_per_node
        condition: Feasibility = BatchCoversRanks(devices_per_node=devices)
        if self.runs_command:
            condition = BatchSplitsEvenly(
                devices_per_node=devices, max_per_rank=self.probe.max_batch_size_per_rank
            )
        return ProductSpace(
            choices={"nodes": OneOf(list(self.cluster.nodes)), **self.space.axes()},
            knobs=self.space.knobs(),
            conditions=(condition,),
        )

    def baseline_configuration(self) -> Configuration | None:
        """The user's present settings, or None where the job states none."""
        if self.baseline is None or isinstance(self.baseline, Configuration):
            return self.baseline
        return self.baseline.configuration()

    def fingerprint(self, workload_code: str, hardware: str) -> str:
        """Names what curves and step times depend on, so that they can be used again.

        Budget, target, space and baseline do not enter: curves measured under one are valid under another.
        What is recorded is valid wherever it is replayed, and with any seed.

        Args:
            workload_code: Digest of the workload's source.
            hardware: What the ranks run on.
        """
        recording = self.recording()
        if recording is not None:
            return _digest({"recording": recording.digest, "metric": self.goal.metric})
        parts: dict[str, Any] = {
            "workload": self._trained_by(),
            "code": workload_code,
            "hardware": hardware,
            "metric": self.goal.metric,
            "devices_per_node": self.cluster.devices_per_node,
            "threads_per_rank": self.cluster.threads_per_rank,
            "launcher": self.cluster.launcher,
            "seed": self.seed,
        }
        if self.runs_command and self.cluster.states_threads:
            # What a command does not state it does not get.
            parts["states_threads"] = True
        if self.cluster.machine is not None:
            parts["machine"] = self.cluster.machine.model_dump(mode="json")
            if self.cluster.nodes_at_hand is None:
                # What is emulated does not depend on what emulates it.
                del parts["hardware"]
            else:
                parts["nodes_at_hand"] = self.cluster.nodes_at_hand
        if self.cluster.emulate.delays:
            parts["emulate"] = self.cluster.emulate.model_dump(mode="json")
        return _digest(parts)

    def _trained_by(self) -> dict[str, Any]:
        """What of `[workload]` curves depend on: neither time to save nor the way to resume."""
        assert self.workload is not None
        excluded = {"grace", "resume"} if self.runs_command else None
        return self.workload.model_dump(mode="json", exclude=excluded)


def _virtual(machine: MachineSection, delays: tuple[RankDelay, ...]) -> VirtualCluster:
    return VirtualCluster(
        fixed_seconds=machine.fixed_seconds,
        seconds_per_sample=machine.seconds_per_sample,
        jitter=machine.jitter,
        persistent=machine.persistent,
        latency=machine.latency,
        bytes_per_second=machine.bandwidth,
        message_latency=machine.message_latency,
        message_bytes_per_second=machine.message_bandwidth,
        overlap=machine.overlap,
        delays=delays,
        seconds_between_failures=machine.time_between_failures,
        restart_seconds=machine.restart,
    )


def missing_section(name: str) -> str:
    """That a job which trains lacks a section."""
    return f"{name} is missing ({Job.model_fields[name].description})"


def stated_by_recording(name: str) -> str:
    """That a job of recorded runs states a section which its recording states."""
    return (
        f"[{name}] is stated, but probe.recording states it already: the runs were measured with what is "
        f"said there. Take [{name}] out"
    )


def _digest(parts: dict[str, Any]) -> str:
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
