"""Builds the measurement of a running slice from the messages of its ranks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search_spaces import traits_of
from tuner.domain.cluster import Charge, Cluster, charge
from tuner.domain.measurement import CurvePoint, Measurement, NoiseStatistic, Outcome, RankTiming
from tuner.launchers import JobHandle, RankFailure
from tuner.probes.probe_folder import ProbeFolder
from tuner.probes.slice_plan import CHECKPOINTS_FOLDER, SlicePlan


class SliceRecord:
    """Collects the messages of a slice's ranks and builds a measurement from them.

    Args:
        plan: Plan of the slice: job, configuration, purpose and limits.
        job: Handle of the launched job that runs the slice.
        folder: Folder of the probe, to which scores are written.
        cluster: The cluster on which the slice runs.
        started: Time on the prober's clock at which the job was submitted, seconds.
    """

    def __init__(
        self, *, plan: SlicePlan, job: JobHandle, folder: ProbeFolder, cluster: Cluster, started: float
    ) -> None:
        self.plan, self.job, self.folder, self.started = plan, job, folder, started
        self.ended: Measurement | None = None
        self.out_of_memory: dict[int, str] = {}
        self._cluster = cluster
        self._goes_in_step = traits_of(plan.configuration.strategy).barrier
        self._points: dict[int, CurvePoint] = {}
        self._noise: list[NoiseStatistic] = []
        self._last_said: dict[int, dict[str, Any]] = {}
        self._results: Mapping[int, dict[str, Any]] = {}
        self._setup_seconds = math.inf
        self._has_started = False
        self._checkpoint: str | None = None
        self._leader = 0

    def take(self, rank: int, message: Mapping[str, Any]) -> None:
        """Adds one message of a rank.

        Args:
            rank: The rank that sent the message.
            message: The message; `ProgressReporter` describes the kinds of messages.

        Raises:
            StorageError: The curve cannot be written to the folder of the probe.
        """
        kind = message["kind"]
        if kind == "progress":
            self._last_said[rank] = dict(message)
        elif kind == "started":
            # Ranks wait for each other during setup. The last rank to arrive does not wait, and has the
            # shortest time.
            self._setup_seconds = min(self._setup_seconds, message["setup_seconds"])
            if rank != 0 and self._has_started:
                return
            # The first message and that of rank 0 say from where the run resumes.
            self._has_started = True
            for point in self.folder.lost_points(message["samples"]):
                self._add_point(point)
        elif kind == "curve":
            self._add_point(CurvePoint(**message["point"]))
        elif kind == "noise":
            self._noise.append(NoiseStatistic(**message["statistic"]))
        elif kind == "checkpoint":
            self._checkpoint = message["path"]
        elif kind == "out_of_memory":
            self.out_of_memory[rank] = message["words"]

    def finish(self, results: Mapping[int, dict[str, Any]]) -> Outcome:
        """Adds the results of the ranks, and returns the outcome of the slice.

        Args:
            results: Maps each rank to the result of its function. The slice has the outcome of the leader,
                which is the rank whose result has `leads` set, or else the rank with the lowest index.
        """
        self._results = results
        self._leader = min(results, key=lambda rank: (not results[rank].get("leads"), rank))
        return Outcome(results[self._leader]["outcome"])

    def last_words(self) -> str:
        """Describes the last progress message of each rank, as a part of an error message."""
        ranks = range(self.job.num_ranks)
        return "; ".join(f"rank {rank}: {_words(self._last_said.get(rank))}" for rank in ranks)

    def measurement(
        self,
        outcome: Outcome,
        *,
        elapsed_seconds: float,
        startup_seconds: float | None,
        error: str | None = None,
    ) -> Measurement:
        """Builds the measurement of the slice so far.

        Args:
            outcome: Outcome of the slice; RUNNING if it has not ended.
            elapsed_seconds: Seconds since the job was submitted, without the wait for nodes.
            startup_seconds: Seconds from submission until every rank had entered its function; None if some
                rank has not entered yet.
            error: Description of the failure, with the errors of all ranks; None if there is no failure.
        """
        status = self._results.get(self._leader) or self._furthest_said()
        held = elapsed_seconds
        if self._results and startup_seconds is not None:
            # When all ranks have returned, no node is in use: the time until the poll is not charged.
            seconds = max(result["seconds"] for result in self._results.values())
            held = min(held, startup_seconds + seconds)
        charged = charge(held, self.plan.configuration, self._cluster)
        if self.plan.is_emulated:
            # An emulated slice uses this machine, not the nodes.
            charged = Charge(seconds=charged.seconds)
        curve = tuple(self._points[samples] for samples in sorted(self._points))
        last = curve[-1] if curve else None
        return Measurement(
            configuration=self.plan.configuration,
            purpose=self.plan.purpose,
            outcome=outcome,
            curve=curve,
            ranks=tuple(
                RankTiming.from_dict(timing)
                for _, result in sorted(self._results.items())
                for timing in result["timings"]
            ),
            noise=tuple(self._noise),
            step=max(status.get("step", 0), last.step if last else 0),
            samples=max(status.get("samples", 0), last.samples if last else 0),
            training_seconds=status.get("training_seconds", last.training_seconds if last else 0.0),
            scoring_seconds=status.get("scoring_seconds", 0.0),
            startup_seconds=(startup_seconds or 0.0) + (self._setup_seconds if self._has_started else 0.0),
            charged_seconds=charged.seconds,
            charged_dollars=charged.dollars,
            peak_bytes=max((r["peak_bytes"] for r in self._results.values()), default=0),
            parameter_bytes=max((r["parameter_bytes"] for r in self._results.values()), default=0),
            emulated=self.plan.is_emulated,
            oversubscribed=self._cluster.carrier_of(self.plan.configuration).oversubscription(
                self.plan.configuration.nodes
            )
            > 1,
            error=error,
            checkpoint=self._checkpoint or self._older_checkpoint(),
            lost_ranks=self._lost_ranks(),
            staleness_steps=self._mean_reported("staleness_steps"),
            bytes_per_step=self._mean_reported("bytes_per_step"),
        )

    def _furthest_said(self) -> dict[str, Any]:
        """Returns the progress message that is used for the whole slice.

        If ranks wait for each other (strategies with a barrier), it is the last message of rank 0. Otherwise
        it is the last message of the rank whose message has the largest number of samples.
        """
        said = sorted(self._last_said.items(), key=lambda item: (-item[1]["samples"], item[0]))
        return self._last_said.get(0, {}) if not said or self._goes_in_step else said[0][1]

    def _lost_ranks(self) -> tuple[int, ...]:
        """Returns the ranks that did not respond to the leader at the end, or that returned no result."""
        if not self._results or self._goes_in_step:
            return ()
        unheard = set(self._results[self._leader].get("lost_ranks", ()))
        return tuple(sorted(unheard | (set(range(self.job.num_ranks)) - set(self._results))))

    def _mean_reported(self, key: str) -> float | None:
        """Returns the mean of a quantity over all ranks; None if the total count is 0.

        Args:
            key: Key of the quantity in the results of ranks, where each rank reports a sum and a count.
        """
        reported = [result[key] for result in self._results.values() if key in result]
        count = sum(counted for _, counted in reported)
        return float(sum(total for total, _ in reported) / count) if count else None

    def _add_point(self, point: CurvePoint) -> None:
        if point.samples in self.folder.reported_samples:
            return
        self._points[point.samples] = point
        self.folder.add_point(point)

    def _older_checkpoint(self) -> str | None:
        """Returns the path of the newest checkpoint of earlier slices; None if there is none.

        Ranks check that the checkpoint is complete when they load it.
        """
        if self.plan.is_timing:
            return None
        folder = Path(self.folder.folder) / CHECKPOINTS_FOLDER
        names = sorted(folder.glob("checkpoint-*.json"))
        return str(names[-1].with_suffix(".pt")) if names else None


def failure_words(failures: tuple[RankFailure, ...]) -> str:
    """Joins the error messages of all failed ranks, one per line, in the order in which the ranks failed."""
    if not failures:
        return "the ranks ended without an error message"
    return "\n".join(f"rank {failure.rank}: {failure.reason.strip()}" for failure in failures)


def _words(said: Mapping[str, Any] | None) -> str:
    if said is None:
        return "never reported"
    return f"{said['phase']} at step {said['step']}, {said['samples']} samples"
