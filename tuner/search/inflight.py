"""Starts the slices of a search, polls them while they run, and keeps their leases valid.

A slice is an uninterrupted part of a training. A lease is the time-limited right of this process to work on a
probe, the trial training that the slice belongs to. If several slices run at the same time, the elapsed time
counts once (`Measurement.shared_seconds`).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tuner.domain.errors import LeaseLostError, TunerError
from tuner.domain.ledger import Lease
from tuner.domain.measurement import Measurement, Outcome, Purpose, merged
from tuner.probes import ProbeHandle, Prober, Until
from tuner.probes.probe_folder import take_back_ends
from tuner.search.capacity import Capacity, UnderWay
from tuner.search.checkpoint_transfer import forget_transfer, moved_clock, transferred
from tuner.search.context import SearchContext
from tuner.search.events import SearchEvent
from tuner.search.interrupts import FINISH_SECONDS, finish_event
from tuner.search.lost_checkpoints import is_lost, restarted
from tuner.search.spans import Span, covered

LEASE_SECONDS = 60.0
#: Seconds between two polls of the running slices.
POLL_SECONDS = 0.05


@dataclass(kw_only=True)
class Slice:
    """A running slice: an uninterrupted part of a training.

    Args:
        lease: The time-limited right of this process to work on the probe that the slice belongs to.
        under_way: Configuration, purpose and number of nodes of the slice.
        handle: Object with which the running slice is polled and stopped.
        clock_offset: Seconds to add to the measured training seconds to get those of the whole run, from
            `transferred`. It is 0 unless the run came from other nodes.
        started_at: Time at which the slice started, in seconds of the clock `Prober.now`.
        renew_at: Time at which to renew the lease, in seconds since the Unix epoch.
        pending_seconds: Seconds during which the slice waited for nodes. No budget is charged for them.
        repeats: All measurements of the run before, if the slice starts it from the beginning because its
            checkpoint was lost; else None.
        is_crowded: Whether the ranks of the slice had to share CPU cores with the ranks of concurrent slices.
        shown: Step and waiting message that were last sent to the user.
    """

    lease: Lease
    under_way: UnderWay
    handle: ProbeHandle
    clock_offset: float
    started_at: float
    renew_at: float
    repeats: Measurement | None = None
    pending_seconds: float = 0.0
    is_crowded: bool = False
    shown: tuple[int, str] | None = None

    @property
    def held_since(self) -> float:
        """Time at which the slice got its nodes, in seconds of the clock `Prober.now`."""
        return self.started_at + self.pending_seconds


class SlicesUnderWay:
    """Manages the slices (parts of trainings) of a search that are running now.

    Args:
        context: Job, cluster, ledger and other objects of the search.
        prober: Starts, polls and stops the slices.
    """

    def __init__(self, context: SearchContext, prober: Prober) -> None:
        self._context = context
        self._prober = prober
        self._slices: list[Slice] = []
        #: Remarks on the user's script that were already sent to the listener.
        self._shown_remarks: set[str] = set()
        #: Time spans of ended slices, as far as a running slice overlaps with them.
        self._ended: list[Span] = []

    def capacity(self) -> Capacity:
        """Returns how many slices and nodes may be in use at once, and which slices are running now."""
        now = self._prober.now() if self._slices else 0.0
        spans = [(min(active.held_since, now), now) for active in self._slices]
        return Capacity(
            num_slots=self._context.parallel,
            num_nodes=self._context.cluster.nodes_at_once,
            under_way=tuple(
                replace(active.under_way, elapsed_seconds=max(now - active.held_since, 0.0))
                for active in self._slices
            ),
            elapsed_seconds=covered([*spans, *self._ended]) - covered(self._ended),
        )

    def start(
        self, lease: Lease, under_way: UnderWay, until: Until, folder: Path, earlier: Sequence[Measurement]
    ) -> None:
        """Starts a slice of a probe (a trial training) on which this process has a lease.

        Args:
            lease: The time-limited right to work on the probe.
            under_way: Configuration, purpose and number of nodes of the slice.
            until: Limits that end the slice, in training seconds of the whole run.
            folder: Folder with the files of the probe.
            earlier: Measurements of the earlier slices of the probe in the database. Evaluations in the
                folder at other numbers of samples are new: an earlier process made them and was killed before
                it stored them.
        """
        take_back_ends(folder, {point.samples for measurement in earlier for point in measurement.curve})
        before = merged(earlier) if earlier else None
        repeats = before if before is not None and is_lost(before, folder) else None
        self._prober.forget_after(folder, before.samples if before is not None else 0)
        offset = transferred(folder)
        if until.training_seconds is not None:
            until = replace(until, training_seconds=until.training_seconds - offset)
        started_at = self._prober.now()
        handle = self._prober.start(under_way.configuration, under_way.purpose, until, folder)
        started = Slice(
            lease=lease,
            under_way=under_way,
            handle=handle,
            clock_offset=offset,
            started_at=started_at,
            renew_at=self._context.clock() + LEASE_SECONDS / 3,
            repeats=repeats,
        )
        self._slices.append(started)
        if len(self._slices) > 1:
            load = self._context.cluster.load([other.under_way.configuration for other in self._slices])
            for other in self._slices:
                other.is_crowded |= load > 1.0

    def next_ended(self) -> tuple[Slice, Measurement] | None:
        """Returns one slice that has ended, with its measurement; None if no slice has ended.

        The slice is removed from the running slices. The caller must start the slice that replaces it before
        the next call. Otherwise, a prober with a simulated clock would continue the other slices to a later
        time than the start of the new slice.

        Raises:
            LeaseLostError: Another Paceline process has taken over the probe (the trial training) of a slice.
                This slice is cancelled, and its measurement is dropped.
        """
        for active in self._slices:
            measurement = self._prober.poll(active.handle)
            if measurement.outcome is not Outcome.RUNNING:
                return active, self._taken_out(active, measurement)
            if measurement.waiting:
                held = measurement.charged_seconds
                active.pending_seconds = max(self._prober.now() - active.started_at - held, 0.0)
            self._show(active, measurement)
            self._renew(active)
        return None

    def end_all(self, slack_seconds: float) -> list[tuple[Slice, Measurement]]:
        """Asks all running slices to save a checkpoint and end, and waits until they have ended.

        Each slice has a grace period in which it may save a checkpoint. This method waits at most for the
        longest grace period plus `slack_seconds`.

        Args:
            slack_seconds: Seconds to wait after the longest grace period.

        Returns:
            The slices that ended in time, with their measurements, in the order in which they ended. Slices
            that did not end in time are still running.
        """
        given = [self._prober.ask_to_end(active.handle) for active in self._slices]
        waits = [seconds for seconds in given if seconds is not None]
        return self._ended_until(self._prober.now() + max(waits, default=-math.inf) + slack_seconds)

    def finish(self) -> list[tuple[Slice, Measurement]]:
        """Waits until the running slices have ended, after the user interrupted the search.

        A slice that would run for more than `FINISH_SECONDS`, or that waits for nodes, is asked to save and
        end now. A slice that runs longer than expected is asked at the end of this time.

        Returns:
            The slices that ended in time, with their measurements. Slices that did not end are still running.
        """
        now = self._prober.now()
        remaining = [_remaining_seconds(active, now) for active in self._slices]
        job = self._context.job
        grace = job.command.grace if job.runs_command else 0.0
        is_short = any(math.isfinite(seconds) for seconds in remaining)
        most = grace + (FINISH_SECONDS if is_short else 0.0)
        if self._slices:
            self._context.say(finish_event(remaining, most))
        for active, seconds in zip(self._slices, remaining, strict=True):
            if not math.isfinite(seconds):
                self._prober.ask_to_end(active.handle)
        found = self._ended_until(now + FINISH_SECONDS) if is_short else []
        return found + self.end_all(0.0)

    def _ended_until(self, until: float) -> list[tuple[Slice, Measurement]]:
        """Waits until all slices have ended, at most until a time of the clock `Prober.now`."""
        found: list[tuple[Slice, Measurement]] = []
        while self._slices and self._prober.now() < until:
            try:
                ended = self.next_ended()
            except LeaseLostError:
                continue
            if ended is None:
                self._context.sleep(POLL_SECONDS)
            else:
                found.append(ended)
        return found

    def stop_all(self) -> list[tuple[Slice, Measurement]]:
        """Stops all slices immediately and returns their measurements so far, with outcome STOPPED."""
        found = []
        for active in list(self._slices):
            self._prober.cancel(active.handle)
            measurement = replace(self._prober.poll(active.handle), outcome=Outcome.STOPPED, error=None)
            found.append((active, self._taken_out(active, measurement)))
        return found

    def cancel(self) -> None:
        """Stops all running slices and drops their measurements.

        The leases, which allow this process to work on the trainings, are not released.
        """
        while self._slices:
            active = self._slices.pop()
            # An error in one slice, such as a full disk, must not prevent the others from being stopped.
            with contextlib.suppress(TunerError):
                self._prober.cancel(active.handle)

    def _renew(self, active: Slice) -> None:
        context = self._context
        if context.clock() < active.renew_at:
            return
        try:
            active.lease = context.ledger.renew(active.lease, lease_seconds=LEASE_SECONDS)
        except LeaseLostError:
            self._prober.cancel(active.handle)
            self._slices.remove(active)
            raise
        active.renew_at = context.clock() + LEASE_SECONDS / 3

    def warn(self, probe_id: int, measurement: Measurement) -> None:
        """Shows the remarks of a slice on the user's script as warnings, each only once in a search.

        Args:
            probe_id: ID of the probe (the trial training) that the slice belongs to.
            measurement: Measurement of the slice so far; it contains the remarks.
        """
        for remark in measurement.remarks:
            if remark not in self._shown_remarks:
                self._shown_remarks.add(remark)
                self._context.say(SearchEvent(kind="warning", text=remark, probe_id=probe_id))

    def _show(self, active: Slice, measurement: Measurement) -> None:
        self.warn(active.lease.probe_id, measurement)
        if (measurement.step, measurement.waiting) == active.shown:
            return
        active.shown = (measurement.step, measurement.waiting)
        probe_id = active.lease.probe_id
        self._context.say(SearchEvent(kind="progress", measurement=measurement, probe_id=probe_id))

    def _taken_out(self, active: Slice, measurement: Measurement) -> Measurement:
        """Removes an ended slice from the running slices, and completes its measurement for the database.

        Args:
            active: The slice, which has ended.
            measurement: Measurement as the prober returned it.

        Returns:
            The measurement, with training seconds of the whole run, and with the seconds in which other
            slices ran too (`shared_seconds`).
        """
        self._slices.remove(active)
        now = self._prober.now()
        span = (min(active.held_since, now), now)
        shared = covered([span]) + covered(self._ended) - covered([span, *self._ended])
        if self._slices:
            since = min(other.started_at for other in self._slices)
            self._ended = [other for other in [*self._ended, span] if other[1] > since]
        else:
            self._ended = []
        if active.under_way.purpose is Purpose.TIMING and measurement.outcome is Outcome.PAUSED:
            measurement = replace(measurement, outcome=Outcome.STOPPED)
        if active.repeats is not None:
            measurement = restarted(measurement, active.repeats)
        if measurement.restart_seconds is not None:
            forget_transfer(active.handle.folder)
        return replace(
            moved_clock(measurement, active.clock_offset),
            oversubscribed=measurement.oversubscribed or active.is_crowded,
            shared_seconds=min(max(shared, 0.0), measurement.charged_seconds),
        )


def _remaining_seconds(active: Slice, now: float) -> float:
    """Returns the seconds to the expected end of a slice; 0 if unknown, infinite if it takes too long."""
    if active.shown is not None and active.shown[1]:
        return math.inf  # It waits for nodes.
    elapsed = now - active.held_since
    left = replace(active.under_way, elapsed_seconds=max(elapsed, 0.0)).left_seconds
    return left if left <= FINISH_SECONDS else math.inf
