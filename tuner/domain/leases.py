"""Rules for leases: which process may work on a probe, and the messages if it may not.

A probe is a trial training. A lease is the time-limited right of one worker (a process of Paceline) to work
on a probe. To take a probe is to get its next lease.
"""

from __future__ import annotations

from dataclasses import dataclass

from tuner.domain.ledger import Lease
from tuner.domain.measurement import Outcome


@dataclass(frozen=True, kw_only=True)
class LeaseState:
    """The newest lease of a probe, with the rules for which worker may take the probe.

    A probe is a trial training. A lease is the time-limited right of one worker (a process) to work on it.

    Args:
        probe_id: Number of the probe.
        outcome: State of the probe; an ended probe cannot be taken.
        owner: Name of the worker that has the newest lease; None if the lease was released or the probe has
            ended.
        attempt: Number of leases that the probe has had so far.
        expires_at: Time at which the newest lease expires, in seconds since the Unix epoch; None without an
            owner.
    """

    probe_id: int
    outcome: Outcome
    owner: str | None
    attempt: int
    expires_at: float | None

    def held(self, now: float) -> Lease | None:
        """Returns the newest lease of the probe if it is still valid at time `now`; None otherwise."""
        newest = self._newest()
        return None if newest is None or newest.expires_at <= now else newest

    def expired(self, now: float) -> Lease | None:
        """Returns the newest lease of the probe if it has expired at time `now`; None otherwise.

        A lease that its worker released does not count as expired.
        """
        newest = self._newest()
        return None if newest is None or newest.expires_at > now else newest

    def _newest(self) -> Lease | None:
        if self.owner is None or self.expires_at is None:
            return None
        return Lease(
            probe_id=self.probe_id, owner=self.owner, attempt=self.attempt, expires_at=self.expires_at
        )

    def why_not_taken(self, owner: str, now: float) -> str | None:
        """Returns the reason why a worker may not take the probe (get its next lease); None if it may."""
        if not self.outcome.can_continue:
            return f"probe {self.probe_id} has ended ({self.outcome}) and cannot be taken"
        holder = self.held(now)
        if holder is not None and holder.owner != owner:
            remaining = holder.expires_at - now
            return (
                f"probe {self.probe_id} is leased to {holder.owner} (attempt {holder.attempt}) "
                f"for another {remaining:.0f} s; take another probe, or wait"
            )
        return None

    def why_lost(self, lease: Lease) -> str | None:
        """Returns the reason why a worker may no longer work on the probe with a lease; None if it may.

        An expired lease stays valid until another worker takes the probe.
        """
        if not self.outcome.can_continue:
            return f"probe {self.probe_id} has ended ({self.outcome}); no more measurements of it are stored"
        if self.attempt != lease.attempt or self.owner not in (None, lease.owner):
            return (
                f"probe {self.probe_id} was taken by {self.owner or 'another worker'} (attempt "
                f"{self.attempt}); attempt {lease.attempt} of {lease.owner} is no longer valid"
            )
        if self.owner is None:
            return f"the lease on probe {self.probe_id} was released; take the probe again before you use it"
        return None
