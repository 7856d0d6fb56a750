"""The job file as a pydantic model, with the cluster, search space and fingerprint that it defines."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
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
from tuner.domain.section import Section
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
from tuner.job.values import ListedConfiguration
from tuner.recordings.file import load_recording
from tuner.recordings.recording import Recording

#: Maximum number of characters in the name of a job, which is part of the names of files and folders.
LONGEST_NAME = 200


def _settings_or_listed(value: Any) -> str:
    return "listed" if isinstance(value, str | Configuration) else "settings"


def _class_or_command(value: Any) -> str:
    states_command = isinstance(value, dict) and "command" in value
    # These tags must not be names of keys, since both appear in the paths of errors.
    return "a command" if states_command or isinstance(value, CommandSection) else "a class"


class Job(Section):
    """The content of a job file.

    A job with a recording replays measured runs instead of training. It has neither `workload` nor `space`,
    and `cluster` may contain only `capacity`, because the recording contains the workload, machines and
    configurations.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=LONGEST_NAME)] = Field(
        default="job",
        description="name of the study and of the output folder; the file name without .toml if absent",
    )
    seed: Annotated[int, Field(ge=0)] = Field(
        default=0, description="seed of initial weights, data order and the random numbers of the search"
    )
    workload: (
        Annotated[
            Annotated[WorkloadSection, Tag("a class")] | Annotated[CommandSection, Tag("a command")],
            Discriminator(_class_or_command),
        ]
        | None
    ) = Field(default=None, description="the training: a Workload class, or a command")
    cluster: ClusterSection = Field(default=ClusterSection(), description="the nodes and their price")
    goal: GoalSection = Field(description="the target, and whether to minimize seconds or dollars to target")
    space: SpaceSection | None = Field(
        default=None, description="the values that the search may choose, except the number of nodes"
    )
    baseline: (
        Annotated[
            Annotated[BaselineSection, Tag("settings")] | Annotated[ListedConfiguration, Tag("listed")],
            Discriminator(_settings_or_listed),
        ]
        | None
    ) = Field(
        default=None, description="your present settings; probed first, and compared with the recommendation"
    )
    probe: ProbeSection = Field(default=ProbeSection(), description="how configurations are probed")
    budget: BudgetSection = Field(
        default=BudgetSection(),
        description="limits of the search, which ends at the first limit that it reaches",
    )

    @model_validator(mode="after")
    def _sections_agree(self) -> Job:
        if self.runs_command and "kind" not in self.probe.model_fields_set:
            implied = self.probe.model_copy(update={"kind": "command"})
            # A validator with mode="before" would turn off pydantic's rules for JSON input.
            object.__setattr__(self, "probe", implied)
        for conflicts in (self._section_conflicts, self._machine_conflicts, self._limit_conflicts):
            if conflict := next(conflicts(), None):
                raise ValueError(conflict)
        return self

    def _section_conflicts(self) -> Iterator[str]:
        """Yields messages on sections that are missing or forbidden for the kind of probe (`probe.kind`)."""
        kind, replays = self.probe.kind, self.probe.recording is not None
        if self.runs_command and kind != "command":
            yield f"probe.kind = {kind!r}: workload.command implies 'command'. Remove probe.kind"
        if kind == "command" and not self.runs_command:
            yield (
                "probe.kind = 'command' needs workload.command: the command line of your script, such as "
                "'python train.py --lr {learning_rate} --batch-size {batch_size}'"
            )
        if self.runs_command and self.cluster.emulate.delays:
            yield (
                "cluster.emulate.delay slows ranks that train a Workload, not those of a command. "
                "Remove [cluster.emulate]"
            )
        if self.cluster.image is not None and (self.is_remote or not self.runs_command):
            which = "a trainer elsewhere" if self.is_remote else "the ranks of a Workload"
            yield (
                f"cluster.image is for commands that Paceline starts, not for {which}. Remove it; to train a "
                "Workload in a container, start Paceline in the container"
            )
        if self.is_remote and not replays:
            if not self.runs_command:
                yield (
                    "cluster.launcher = 'remote' needs workload.command: the command of your trainer, which "
                    "the report shows and Paceline does not start"
                )
            elif self.command.metrics.source != "json" or self.command.metrics.path is not None:
                yield (
                    "workload.metrics: with cluster.launcher = 'remote', trainers report over HTTP. Remove "
                    "source and path"
                )
        for name in ("workload", "space"):
            is_stated = getattr(self, name) is not None
            if not is_stated and not replays:
                yield missing_section(name)
            if is_stated and replays:
                yield stated_by_recording(name)
        if replays and self.cluster.model_copy(update={"capacity": None}) != ClusterSection():
            yield stated_by_recording("cluster")
        if self.baseline is not None and isinstance(self.baseline, Configuration) != replays:
            yield f"baseline must be {'one of the recorded configurations' if replays else 'a table'}"

    def _machine_conflicts(self) -> Iterator[str]:
        """Yields messages on invalid combinations of keys for emulated nodes."""
        kind, at_hand, machine = self.probe.kind, self.cluster.nodes_at_hand, self.cluster.machine
        if kind in ("emulated", "auto") and machine is None:
            yield (
                f"probe.kind = '{kind}' needs [cluster.machine], the speed of nodes and links "
                "(fixed_seconds, seconds_per_sample, latency, bandwidth, jitter); "
                "`paceline calibrate` measures it"
            )
        if machine is not None and kind not in ("emulated", "auto"):
            yield (
                f"[cluster.machine] describes emulated nodes, but probe.kind = '{kind}' trains on real ones: "
                "set probe.kind = 'emulated' or 'auto', or remove [cluster.machine]"
            )
        if kind == "auto" and at_hand is None:
            yield "probe.kind = 'auto' needs cluster.nodes_at_hand, the number of real nodes"
        if at_hand is not None and kind != "auto":
            yield (
                f"cluster.nodes_at_hand needs probe.kind = 'auto', which is '{kind}': change it, or remove "
                "nodes_at_hand"
            )
        fewest = self.cluster.nodes[0]
        if at_hand is not None and at_hand < fewest:
            yield (
                f"cluster.nodes_at_hand = {at_hand} is below the smallest number of nodes, {fewest}: no rank "
                f"would train for real; set {fewest} or more, or probe.kind = 'emulated'"
            )

    def _limit_conflicts(self) -> Iterator[str]:
        """Yields messages on invalid combinations of keys for the capacity, the prices and the limits."""
        capacity = self.cluster.capacity
        if capacity is not None:
            cluster = self.resolved_cluster()
            if cluster.virtual is not None and cluster.at_hand is None:
                yield (
                    "cluster.capacity counts nodes in use at once, but probe.kind = 'emulated' uses none: "
                    "remove it"
                )
            most = replace(cluster, capacity=None).nodes_at_once
            extra = f" and {cluster.extra_nodes} extra ones" if cluster.extra_nodes else ""
            which = "real nodes" if cluster.at_hand is not None else "nodes of a configuration"
            if capacity < most:
                yield (
                    f"cluster.capacity = {capacity} is below the largest number of {which}, "
                    f"{most - cluster.extra_nodes}{extra}: set {most} or more, or remove it"
                )
        asked = {
            "goal.minimize = 'dollars'": self.goal.minimize == "dollars",
            "goal.max_dollars": self.goal.max_dollars is not None,
            "budget.dollars": self.budget.dollars is not None,
        }
        needed = "cluster.dollars_per_node_hour above 0"
        if self.probe.recording is not None:
            needed = f"machines with prices, which {self.probe.recording} does not state"
        for words, is_asked in asked.items():
            if is_asked and not self.resolved_cluster().has_prices:
                yield f"{words} needs {needed}"
        free = [name for name, m in self.resolved_cluster().machines.items() if m.dollars_per_hour <= 0]
        if free and self.goal.minimize == "dollars" and self.resolved_cluster().has_prices:
            yield (
                "goal.minimize = 'dollars' needs a price above 0 for each machine, but "
                f"{', '.join(free)} costs nothing in {self.probe.recording}: state what it "
                "costs, or leave out its runs"
            )

    @property
    def trained(self) -> WorkloadSection:
        """The `[workload]` section of a job that trains a Workload."""
        assert isinstance(self.workload, WorkloadSection), "this job trains no Workload class"
        return self.workload

    @property
    def runs_command(self) -> bool:
        """Whether the job runs a command instead of a Workload."""
        return isinstance(self.workload, CommandSection)

    @property
    def command(self) -> CommandSection:
        """The `[workload]` section of a job that runs a command."""
        assert isinstance(self.workload, CommandSection), "this job runs no command"
        return self.workload

    @property
    def is_remote(self) -> bool:
        """Whether trainers that Paceline cannot start ask the server for slices of this job."""
        return self.cluster.launcher == "remote"

    @property
    def can_resume(self) -> bool:
        """Whether a run can resume from its checkpoint; if not, each slice starts from the beginning."""
        return not isinstance(self.workload, CommandSection) or self.workload.can_resume

    def recording(self) -> Recording | None:
        """Reads the recording that the job replays; None if the job trains."""
        return None if self.probe.recording is None else load_recording(Path(self.probe.recording))

    def resolved_cluster(self) -> Cluster:
        """Returns the cluster that the job describes; with the local launcher, all nodes share this host."""
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
            cores_per_host=len(os.sched_getaffinity(0)) if section.nodes_share_host else None,
            nodes_share_host=section.nodes_share_host,
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
        """Returns the configurations that the search may choose."""
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
        """Returns the configuration that the user trains with at present; None without [baseline]."""
        if self.baseline is None or isinstance(self.baseline, Configuration):
            return self.baseline
        return self.baseline.configuration()

    def fingerprint(self, workload_code: str, hardware: str) -> str:
        """Returns a digest of everything that learning curves and step times depend on.

        Probes of an earlier job with the same fingerprint can be used again. The fingerprint does not depend
        on budget, target, space and baseline. If the job replays a recording, the fingerprint depends only on
        the recording and the metric.

        Args:
            workload_code: Digest of the source code of the Workload or script.
            hardware: Description of this host's hardware, such as the processor and the number of cores.
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
            # Paceline limits the threads of a command only if the job file sets a number of threads.
            parts["states_threads"] = True
        if self.is_remote:
            # The trainers run on other hosts than the worker, which another worker may replace.
            del parts["hardware"]
        if self.cluster.image is not None:
            parts["image"] = self.cluster.image
        if self.cluster.machine is not None:
            parts["machine"] = self.cluster.machine.model_dump(mode="json")
            if self.cluster.nodes_at_hand is None:
                # Step times under the virtual clock do not depend on the hardware of this host.
                del parts["hardware"]
            else:
                parts["nodes_at_hand"] = self.cluster.nodes_at_hand
        if self.cluster.emulate.delays:
            parts["emulate"] = self.cluster.emulate.model_dump(mode="json")
        return _digest(parts)

    def published(self) -> dict[str, Any]:
        """Returns the job as JSON data for the database and files, without unpublished values.

        `fingerprint` depends on these values, so a study is resumed only with the same values.
        """
        data = self.model_dump(mode="json")
        if self.runs_command:
            hidden = dict.fromkeys(self.command.private_variables, "(not published)")
            data["workload"]["environment"] |= hidden
        return data

    def _trained_by(self) -> dict[str, Any]:
        """Returns the keys of `[workload]` on which learning curves depend, with their values."""
        assert self.workload is not None
        excluded = {"grace", "resume", "publish_environment"} if self.runs_command else None
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
    """Returns the error message for a missing section."""
    return f"{name} is missing ({Job.model_fields[name].description})"


def stated_by_recording(name: str) -> str:
    """Returns the error message for a section that a job with a recording must not have.

    The recording contains the values of this section.
    """
    return f"[{name}] is stated, but probe.recording states it already. Remove [{name}]"


def _digest(parts: dict[str, Any]) -> str:
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def job_schema() -> dict[str, Any]:
    """Returns the JSON Schema (draft 2020-12) of a job file, with a description for every key.

    A job that replays a recording has fewer required keys than other jobs.
    """
    schema = Job.model_json_schema(mode="validation")
    del schema["required"]
    schema["$defs"]["GoalSection"]["required"].remove("target")
    # A table can match both types of baseline, since probe.kind decides which type applies.
    kinds, nothing = schema["properties"]["baseline"]["anyOf"]
    schema["properties"]["baseline"]["anyOf"] = [*kinds["oneOf"], nothing]
    settings = {"anyOf": [kinds["oneOf"][0], nothing]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "Paceline job file",
        "if": {
            "required": ["probe"],
            "properties": {"probe": {"required": ["kind"], "properties": {"kind": {"const": "recorded"}}}},
        },
        "then": {
            "properties": {
                **dict.fromkeys(("workload", "cluster", "space"), False),
                "probe": {"required": ["recording"]},
            }
        },
        "else": {
            "required": ["workload", "goal", "space"],
            "properties": {"goal": {"required": ["target"]}, "baseline": settings},
        },
    }
