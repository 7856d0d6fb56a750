"""Base class of the probers that start a launcher's job for each slice (part of a probe, see `prober`)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Generic, TypeVar

from search_spaces import Configuration
from tuner.domain.errors import ProbeError
from tuner.domain.measurement import Purpose
from tuner.job import Job
from tuner.launchers import Launcher
from tuner.probes.probe_folder import ProbeFolder
from tuner.probes.prober import ProbeHandle, Prober, Until
from tuner.probes.slice_plan import SlicePlan

Slice = TypeVar("Slice")


class LaunchedProber(Prober, Generic[Slice]):
    """Base class of probers that plan slices, start a launcher's job for each, and store the state of each.

    The key under which the state of a slice is stored is `ProbeHandle.identity`.

    Args:
        job: The job whose configurations are probed.
        job_folder: Folder of the job file, in which the workload's module is searched first.
        launcher: Starts the processes of a slice; `close` of the prober closes it.
        clock: Returns the seconds on a monotonic clock.
    """

    def __init__(
        self, job: Job, job_folder: Path, launcher: Launcher, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._job, self._job_folder, self._launcher, self._clock = job, job_folder, launcher, clock
        self._cluster = job.resolved_cluster()
        self._slices: dict[str, Slice] = {}

    def now(self) -> float:
        return self._clock()

    def _plan(
        self,
        configuration: Configuration,
        purpose: Purpose,
        until: Until,
        folder: Path,
        *,
        score_untrained: bool = True,
    ) -> tuple[SlicePlan, ProbeFolder]:
        """Plans a slice, and writes the plan to the probe's folder; returns the plan and the folder.

        Args:
            configuration: The configuration that the slice trains.
            purpose: Whether the slice times steps or trains. A timing probe without a limit of steps gets
                the limit `probe.timing_steps`.
            until: Limits of the slice.
            folder: Folder of the probe.
            score_untrained: Whether a new run is scored before its first step.
        """
        if purpose is Purpose.TIMING and until.steps is None:
            until = replace(until, steps=self._job.probe.timing_steps)
        probe_folder = ProbeFolder(folder.resolve())
        plan = SlicePlan(
            job=self._job,
            job_folder=self._job_folder.resolve(),
            configuration=configuration,
            purpose=purpose,
            until=until,
            folder=probe_folder.folder,
            score_untrained=score_untrained,
            scored_samples=max(probe_folder.reported_samples, default=0),
        )
        probe_folder.describe(plan, num_ranks=self._cluster.num_ranks(configuration.nodes))
        return plan, probe_folder

    def _add(self, record: Slice, plan: SlicePlan) -> ProbeHandle:
        """Stores the state of a slice that was started, and returns its handle."""
        identity = str(len(self._slices) + 1)
        self._slices[identity] = record
        return ProbeHandle(
            identity=identity,
            configuration=plan.configuration,
            purpose=plan.purpose,
            folder=plan.folder,
        )

    def _record(self, handle: ProbeHandle) -> Slice:
        try:
            return self._slices[handle.identity]
        except KeyError:
            raise ProbeError(
                f"slice {handle.identity!r} does not belong to this prober, which started "
                f"{len(self._slices)} slices; pass the handle that its start() returned"
            ) from None
