from __future__ import annotations

import pytest

from tuner.domain.leases import LeaseState
from tuner.domain.ledger import Lease
from tuner.domain.measurement import Outcome


def state(
    *,
    outcome: Outcome = Outcome.PAUSED,
    owner: str | None = "a",
    attempt: int = 2,
    expires_at: float | None = 100.0,
) -> LeaseState:
    return LeaseState(probe_id=1, outcome=outcome, owner=owner, attempt=attempt, expires_at=expires_at)


def lease(owner: str = "a", attempt: int = 2) -> Lease:
    return Lease(probe_id=1, owner=owner, attempt=attempt, expires_at=100.0)


def test_a_lease_runs_out_at_its_expiry_not_after_it() -> None:
    assert state().held(99.9) == lease()
    assert state().held(100.0) is None


@pytest.mark.parametrize(("owner", "expires_at"), [(None, None), (None, 100.0), ("a", None)])
def test_nobody_holds_a_probe_whose_lease_lacks_an_owner_or_an_expiry(
    owner: str | None, expires_at: float | None
) -> None:
    free = state(owner=owner, expires_at=expires_at)
    assert free.held(0.0) is None
    assert free.why_not_taken("b", 0.0) is None


def test_a_running_probe_is_leased_like_a_paused_one() -> None:
    running = state(outcome=Outcome.RUNNING)
    assert running.held(0.0) == lease()
    assert running.why_lost(lease()) is None
    assert running.why_not_taken("b", 0.0) is not None


def test_a_lease_that_ran_out_gives_a_right_until_somebody_else_takes_the_probe() -> None:
    assert state().held(1000.0) is None
    assert state().why_lost(lease()) is None
    assert state(owner="b", attempt=3).why_lost(lease()) == (
        "probe 1 was taken by b (attempt 3); attempt 2 of a is no longer valid"
    )


def test_only_its_owner_may_take_a_held_probe() -> None:
    assert state().why_not_taken("a", 0.0) is None
    assert state().why_not_taken("b", 40.0) == (
        "probe 1 is leased to a (attempt 2) for another 60 s; take another probe, or wait"
    )


def test_anybody_may_take_a_probe_that_nobody_holds() -> None:
    assert state(owner=None, expires_at=None).why_not_taken("b", 0.0) is None
    assert state().why_not_taken("b", 100.0) is None


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if not outcome.can_continue])
def test_an_ended_probe_is_nobodys(outcome: Outcome) -> None:
    ended = state(outcome=outcome, owner=None, expires_at=None)
    assert ended.why_not_taken("a", 0.0) == f"probe 1 has ended ({outcome}) and cannot be taken"
    assert ended.why_lost(lease()) == f"probe 1 has ended ({outcome}); no more measurements of it are stored"


def test_a_lease_is_lost_to_a_later_attempt_even_of_the_same_owner() -> None:
    assert state().why_lost(lease()) is None
    assert state(attempt=3).why_lost(lease()) == (
        "probe 1 was taken by a (attempt 3); attempt 2 of a is no longer valid"
    )
    assert "taken by another worker" in (state(attempt=3, owner=None).why_lost(lease()) or "")


def test_a_lease_of_another_owner_gives_no_right() -> None:
    assert "taken by a (attempt 2)" in (state().why_lost(lease(owner="b")) or "")


def test_a_lease_given_back_gives_no_right() -> None:
    assert state(owner=None, expires_at=None).why_lost(lease()) == (
        "the lease on probe 1 was released; take the probe again before you use it"
    )
