"""Recordings: measured training runs that probes can replay instead of training.

A recording is a gzipped file of JSON lines. The first line is the header: the metric, the target and the
machine types. Every further line is the run of one configuration with its metric curve. A probe cannot
replay a run beyond the end of its curve.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from search_spaces import Configuration, ListedSpace, declare_recorded_strategy
from tuner.domain.cluster import Cluster, Machine
from tuner.domain.errors import JobError

Array = npt.NDArray[np.float64]

#: Assumed number of samples in the training set, because recordings do not state it. It affects only after
#: how many samples the first evaluations of a probe take place.
NEUTRAL_EPOCH_SAMPLES = 10_000


def samples_at(step: float, configuration: Configuration) -> float:
    """Returns the number of samples processed after `step` steps: steps times the stated batch size.

    If a recording counts the batch size or the steps of one rank only, the result is too small by a factor
    that depends on the configuration. The models of the search have to learn this factor.
    """
    return step * configuration.batch_size


@dataclass(frozen=True, kw_only=True, eq=False)
class RecordedRun:
    """The measured training run of one configuration.

    Args:
        configuration: The configuration that was trained; it may have other axes (parameters) than those that
            Paceline tunes in its own search spaces.
        data_fraction: Share of the training set that was used, in (0, 1].
        step_seconds: Mean duration of a step, in seconds.
        curve: Metric curve of shape `(num_points, 3)`. Each row is one evaluation: seconds since training
            began, step, and metric value. Seconds and steps ascend.
        end: Why the run stopped; None if it reached the target.
        seconds_std: Standard deviation of the run's total seconds over repetitions; None if unknown.
        value_std: Standard deviation of the metric value over repetitions; None if unknown.
    """

    configuration: Configuration
    data_fraction: float = 1.0
    step_seconds: float
    curve: Array
    end: str | None = None
    seconds_std: float | None = None
    value_std: float | None = None

    @property
    def num_steps(self) -> float:
        """Number of steps at the last evaluation of the run; 0 without any evaluation."""
        return float(self.curve[-1, 1]) if len(self.curve) else 0.0

    @property
    def seconds(self) -> float:
        """Training seconds at the last evaluation of the run; 0 without any evaluation."""
        return float(self.curve[-1, 0]) if len(self.curve) else 0.0

    def step_at(self, seconds: float) -> float:
        """Returns the step of the run at a training time, interpolated linearly between evaluations.

        For a time after the last evaluation, it is the step of the last evaluation.
        """
        return float(np.interp(seconds, *self._clock))

    def seconds_at(self, step: float) -> float:
        """Returns the training seconds at a step of the run, interpolated linearly between evaluations.

        For a step after the last evaluation, these are the seconds of the last evaluation.
        """
        seconds, steps = self._clock
        return float(np.interp(step, steps, seconds))

    @cached_property
    def _clock(self) -> tuple[Array, Array]:
        start = np.zeros((1, 2))
        rows = np.concatenate([start, self.curve[:, :2]]) if len(self.curve) else start
        return rows[:, 0], rows[:, 1]


@dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """The measured training runs of several configurations.

    Args:
        name: Name of the recording.
        source: Where the measurements come from, and their licence.
        metric: Name of the metric in the curves.
        maximize: Whether larger metric values are better.
        target: Metric value at which a run has reached the target.
        machines: Cores and price of each machine type, by name; empty if the recording states none.
        batch_size_scope: Whether `batch_size` counts the samples of one rank (`rank`) or of all ranks
            (`global`) in a step.
        extra_nodes: Number of machines whose cost is charged in addition to that of a configuration's nodes.
        startup_seconds: Assumed start-up time in seconds, which is charged once for each new probe.
        runs: The measured runs, in the order of the file.
        digest: Hash of the file's content; empty if the recording was not read from a file.
    """

    name: str
    source: str = ""
    metric: str
    maximize: bool
    target: float
    machines: Mapping[str, Machine] = field(default_factory=dict)
    batch_size_scope: Literal["rank", "global"] = "global"
    extra_nodes: int = 0
    startup_seconds: float = 0.0
    runs: tuple[RecordedRun, ...]
    digest: str = ""

    def __post_init__(self) -> None:
        for strategy in {run.configuration.strategy for run in self.runs}:
            declare_recorded_strategy(strategy)

    def configurations(self, data_fraction: float | None = None) -> list[Configuration]:
        """Returns the recorded configurations in the order of the file, without repetition.

        Args:
            data_fraction: Share of the training set; only configurations that were trained with this share
                are returned. None for all configurations.
        """
        found = (
            run.configuration
            for run in self.runs
            if data_fraction is None or math.isclose(run.data_fraction, data_fraction)
        )
        return list(dict.fromkeys(found))

    def run(self, configuration: Configuration, data_fraction: float | None = None) -> RecordedRun:
        """Returns the measured run of a configuration.

        Args:
            configuration: A recorded configuration.
            data_fraction: Share of the training set that the run used; None for the run with the largest
                recorded share.

        Raises:
            JobError: The recording has no such run. The message states the nearest recorded configuration,
                or the recorded values of `data_fraction`.
        """
        runs = self._by_configuration.get(configuration, [])
        if not runs:
            near = self.space.nearest(configuration)
            raise JobError(f"{configuration} is not in recording {self.name}; the nearest there is {near}")
        if data_fraction is None:
            return max(runs, key=lambda run: run.data_fraction)
        for run in runs:
            if math.isclose(run.data_fraction, data_fraction):
                return run
        known = ", ".join(f"{run.data_fraction:g}" for run in runs)
        raise JobError(f"{configuration} has no run with data_fraction {data_fraction:g}, only with {known}")

    def truth_seconds(self, run: RecordedRun, target: float | None = None) -> float:
        """Returns the seconds until a run first reaches the target; infinite if the run never reaches it.

        The time is interpolated linearly between the evaluations before and after the crossing. If the first
        evaluation is past the target already, its time is returned. The evaluation of the untrained model at
        step 0 is ignored.

        Args:
            run: One of `runs`.
            target: Metric value to reach; None for the recording's own target.
        """
        goal = self.target if target is None else target
        curve = run.curve[run.curve[:, 1] > 0]
        past = curve[:, 2] >= goal if self.maximize else curve[:, 2] <= goal
        if not past.any():
            return math.inf
        i = int(np.argmax(past))
        if i == 0:
            return float(curve[0, 0])
        (before, _, low), (after, _, high) = curve[i - 1], curve[i]
        return float(before + (goal - low) / (high - low) * (after - before))

    @cached_property
    def space(self) -> ListedSpace:
        """Search space that consists of exactly the recorded configurations."""
        return ListedSpace(configurations=tuple(self.configurations()))

    @cached_property
    def cluster(self) -> Cluster:
        """Cluster with the recorded node counts and machine types."""
        return Cluster(
            node_counts=tuple(sorted({c.nodes for c in self.configurations()})),
            launcher="recorded",
            nodes_share_host=False,
            machines=self.machines,
            extra_nodes=self.extra_nodes,
        )

    @cached_property
    def _by_configuration(self) -> dict[Configuration, list[RecordedRun]]:
        found: dict[Configuration, list[RecordedRun]] = {}
        for run in self.runs:
            found.setdefault(run.configuration, []).append(run)
        return found
