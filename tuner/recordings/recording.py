"""Recordings: measured training runs of some configurations, as a file that can be probed again.

A recording is a gzipped file of JSON lines. The first is the header: what was measured, towards which
target, on which machines. Every further line is one measured configuration with its curve. Past the end of
a curve nothing is known.
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

#: Stands for the size of the training set, which a recording does not state: no result uses it except
#: the first evaluation points.
NEUTRAL_EPOCH_SAMPLES = 10_000


def samples_at(step: float, configuration: Configuration) -> float:
    """Samples of a recording: steps times the stated batch size.

    If the source's batch size or step is that of one rank, the samples of
    different configurations differ by factors that a model has to learn.
    """
    return step * configuration.batch_size


@dataclass(frozen=True, kw_only=True, eq=False)
class RecordedRun:
    """One measured configuration.

    Args:
        configuration: What was run; its axes are the source's own.
        data_fraction: Share of the training set that was used, in (0, 1].
        step_seconds: Mean seconds of a step.
        curve: Seconds since training began, step and value of each evaluation, `(num_points, 3)`; seconds and
            steps ascend.
        end: Why the recording stops; None if the target was reached.
        seconds_std: Standard deviation of the seconds of the whole run between repetitions; None if unknown.
        value_std: Standard deviation of the value between repetitions; None if unknown.
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
        """Steps at the recording's end; 0 without any evaluation."""
        return float(self.curve[-1, 1]) if len(self.curve) else 0.0

    @property
    def seconds(self) -> float:
        """Seconds at the recording's end; 0 without any evaluation."""
        return float(self.curve[-1, 0]) if len(self.curve) else 0.0

    def step_at(self, seconds: float) -> float:
        """Steps done at a time, linear between evaluations; none past the recording's end."""
        return float(np.interp(seconds, *self._clock))

    def seconds_at(self, step: float) -> float:
        """When a step was done, linear between evaluations; not past the recording's end."""
        seconds, steps = self._clock
        return float(np.interp(step, steps, seconds))

    @cached_property
    def _clock(self) -> tuple[Array, Array]:
        start = np.zeros((1, 2))
        rows = np.concatenate([start, self.curve[:, :2]]) if len(self.curve) else start
        return rows[:, 0], rows[:, 1]


@dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """A grid of measured runs.

    Args:
        name: Its name.
        source: Where it comes from, and its licence.
        metric: What the curves' values are.
        maximize: Whether larger values are better.
        target: The value that counts as reached.
        machines: Types of machine by name; empty where none is named and nothing is priced.
        batch_size_scope: What `batch_size` counts: one rank's samples of a step, or all ranks'.
        extra_nodes: Machines charged besides a configuration's nodes.
        startup_seconds: Charged once for each new probe.
        runs: The runs, in the order of the file.
        digest: Names the content of the file it was read from; empty where it was not read from one.
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
        """The recorded configurations in the order of the file.

        Args:
            data_fraction: Only those that were run with this share of the data; None for all.
        """
        found = (
            run.configuration
            for run in self.runs
            if data_fraction is None or math.isclose(run.data_fraction, data_fraction)
        )
        return list(dict.fromkeys(found))

    def run(self, configuration: Configuration, data_fraction: float | None = None) -> RecordedRun:
        """The run of a configuration.

        Args:
            configuration: One that was recorded.
            data_fraction: Share of the data it used; None for the largest that was recorded.

        Raises:
            JobError: There is no such run; the message names the nearest configuration.
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
        raise JobError(f"{configuration} was not recorded with data_fraction {data_fraction:g}, but {known}")

    def truth_seconds(self, run: RecordedRun, target: float | None = None) -> float:
        """Seconds until a run first crosses the target; infinite where it never does.

        Linear between the evaluations around the crossing; a first one already past the target counts as
        it is. The untrained model, evaluated at step 0, does not count.

        Args:
            run: One of the runs.
            target: Another target than the recording's own; None for that.
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
        """Exactly the recorded configurations."""
        return ListedSpace(configurations=tuple(self.configurations()))

    @cached_property
    def cluster(self) -> Cluster:
        """The machines it was measured on."""
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
