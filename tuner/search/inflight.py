"""Slices in flight: start and poll them, renew their leases, and count overlapping time once."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from tuner.domain.errors import LeaseLostError, TunerError
from tuner.domain.ledger import Lease
from tuner.domain.measurement import Measurement, Outcome, Purpose
from tuner.probes import ProbeHandle, Prober, Until
from tuner.probes.probe_folder import take_back_ends
from tuner.search.capacity import Capacity, UnderWay
from tuner.search.checkpoint_transfer import forget_transfer, moved_clock, transferred
from tuner.search.context import SearchContext
from tuner.search.events import SearchEvent
from tuner.search.spans import Span, covered

LEASE_SECONDS = 60.0
#: Seconds between two polls of the slices in flight.
POLL_SECONDS = 0.05


@dataclass(kw_only=True)
class Slice:
    """One slice in flight.

    Args:
        lease: Lease of its probe.
        under_way: The slice at its start, as the state of the search shows it.
        handle: Handle from the prober.
        clock_offset: Seconds by which its run is ahead of the prober's clock, from `transferred`.
        started_at: When it started, in seconds of the prober's clock.
        renew_at: When its lease is due for renewal, in seconds since the epoch.
        pending_seconds: Seconds it has waited for nodes; they count for no budget.
        is_crowded: Whether its ranks had to share cores with ranks of other slices.
        shown: Step and waiting message of the last progress event.
    """

    lease: Lease
    under_way: UnderWay
    handle: ProbeHandle
    clock_offset: float
    started_at: float
    renew_at: float
    pending_seconds: float = 0.0
    is_crowded: bool = False
    shown: tuple[int, str] | None = None

    @property
    def held_since(self) -> float:
        """When it got its nodes, in seconds of the prober's clock."""
        return self.started_at + self.pending_seconds


class SlicesUnderWay:
    """The slices that a search has in flight.

    Args:
        context: Context of the search.
        prober: Runs the slices.
    """

    def __init__(self, context: SearchContext, prober: Prober) -> None:
        self._context = context
        self._prober = prober
        self._slices: list[Slice] = []
        #: Remarks on the user's script that were already shown.
        self._shown_remarks: set[str] = set()
        #: Time spans of ended slices that overlapped with a slice still in flight.
        self._ended: list[Span] = []

    def capacity(self) -> Capacity:
        """Limits on concurrent slices, and the slices in flight."""
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
        self, lease: Lease, under_way: UnderWay, until: Until, folder: Path, stored_samples: Collection[int]
    ) -> None:
        """Starts a slice of a leased probe.

        Args:
            lease: Lease of the probe.
            under_way: The slice as the state of the search shows it.
            until: End of the slice, on the run's clock.
            folder: Folder of the probe.
            stored_samples: Samples at which the ledger has scores of the probe. Other scores in the folder
                were lost with a killed tuner.
        """
        take_back_ends(folder, stored_samples)
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
        )
        self._slices.append(started)
        if len(self._slices) > 1:
            load = self._context.cluster.load([other.under_way.configuration for other in self._slices])
            for other in self._slices:
                other.is_crowded |= load > 1.0

    def next_ended(self) -> tuple[Slice, Measurement] | None:
        """Removes and returns a slice that has ended, with its measurement; None if none has.

        The caller must start the next slice before it calls this again. Otherwise a prober with a simulated
        clock lets other slices run ahead.

        Raises:
            LeaseLostError: Another worker took a slice's probe; the slice was cancelled and dropped.
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
        """Asks all slices to save and end, and waits for those that can, up to their grace periods.

        Args:
            slack_seconds: Seconds to wait beyond the longest grace period.

        Returns:
            The slices that ended in time, in this order; the others are still in flight.
        """
        given = [self._prober.ask_to_end(active.handle) for active in self._slices]
        waits = [seconds for seconds in given if seconds is not None]
        found: list[tuple[Slice, Measurement]] = []
        until = self._prober.now() + max(waits, default=-math.inf) + slack_seconds
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
        """Stops all slices and returns their measurements so far, with outcome STOPPED."""
        found = []
        for active in list(self._slices):
            self._prober.cancel(active.handle)
            measurement = replace(self._prober.poll(active.handle), outcome=Outcome.STOPPED, error=None)
            found.append((active, self._taken_out(active, measurement)))
        return found

    def cancel(self) -> None:
        """Stops all slices and drops their measurements, without releasing their leases."""
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
        """Shows each remark of a slice as a warning, once per search.

        Args:
            probe_id: ID of the probe.
            measurement: Measurement of the slice, in flight or ended.
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
        """Removes a slice from those in flight and returns its measurement as it is stored."""
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
        if measurement.restart_seconds is not None:
            forget_transfer(active.handle.folder)
        return replace(
            moved_clock(measurement, active.clock_offset),
            oversubscribed=measurement.oversubscribed or active.is_crowded,
            shared_seconds=min(max(shared, 0.0), measurement.charged_seconds),
        )
