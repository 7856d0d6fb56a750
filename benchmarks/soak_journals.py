"""What the processes of a load run did by their own account, held against the database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.soak_record import quantile
from tuner.domain.ledger import ProbeRecord


def _lists() -> defaultdict[Any, list[Any]]:
    return defaultdict(list)


@dataclass(kw_only=True)
class Holding:
    """A lease that a process held, by its own account; seconds since the epoch.

    Args:
        probe_id: The probe.
        attempt: Counts how often the probe was taken.
        owner: The process.
        asked_at: When the lease was asked for.
        since: When the process knew that it has it.
        until: Up to when it was sure to have it: it expired, or was given back.
    """

    probe_id: int
    attempt: int
    owner: str
    asked_at: float
    since: float
    until: float


@dataclass(kw_only=True)
class Journal:
    """What one process did.

    Args:
        holdings: Its leases.
        slices: Probe to the tokens of the slices that the ledger acknowledged, in order.
        num_predictions: Predictions that the ledger acknowledged.
        num_trials: Optuna trials told.
        seconds: Operation to how long each call took.
        refusals: Calls refused with `LeaseLostError`.
        errors: Every other error that reached the caller.
    """

    holdings: list[Holding] = field(default_factory=list)
    slices: dict[int, list[int]] = field(default_factory=_lists)
    num_predictions: int = 0
    num_trials: int = 0
    seconds: dict[str, list[float]] = field(default_factory=_lists)
    refusals: int = 0
    errors: list[str] = field(default_factory=list)


def check_load(
    journals: Sequence[Journal], probes: Sequence[ProbeRecord], num_predictions: int, num_trials: int
) -> list[tuple[str, dict[str, Any]]]:
    """Every broken invariant: its name, and facts.

    Args:
        journals: Of each process.
        probes: All that the database holds.
        num_predictions: Predictions in the database.
        num_trials: Finished Optuna trials in the database.
    """
    broken = [("no error reaches the user", {"error": error}) for j in journals for error in j.errors]
    stored = {probe.probe_id: [m.step for m in probe.slices] for probe in probes}
    for number, journal in enumerate(journals):
        for probe_id, tokens in journal.slices.items():
            found = [token for token in stored.get(probe_id, []) if token // 10**9 == number]
            if found != tokens:
                facts = {"probe": probe_id, "worker": number, "acknowledged": tokens, "stored": found}
                broken.append(("every acknowledged slice is stored once, in order", facts))
    acknowledged = sum(len(tokens) for journal in journals for tokens in journal.slices.values())
    if (total := sum(map(len, stored.values()))) != acknowledged:
        facts = {"stored": total, "acknowledged": acknowledged}
        broken.append(("no slice is stored that was refused", facts))
    for probe in probes:
        for measurement in probe.slices:
            if len(measurement.curve) != measurement.step % 20:
                facts = {"probe": probe.probe_id, "slice": measurement.step, "points": len(measurement.curve)}
                broken.append(("every slice is whole", facts))
    broken += [("no lease is held by two", facts) for facts in shared_leases(journals)]
    reported = sum(journal.num_predictions for journal in journals)
    if reported != num_predictions:
        broken.append(("no prediction is lost", {"acknowledged": reported, "stored": num_predictions}))
    if (reported := sum(journal.num_trials for journal in journals)) != num_trials:
        broken.append(("no trial is lost", {"acknowledged": reported, "stored": num_trials}))
    return broken


def shared_leases(journals: Sequence[Journal]) -> Iterator[dict[str, Any]]:
    """Pairs of holdings of one probe by two processes at one time."""
    by_probe: dict[int, list[Holding]] = defaultdict(list)
    for journal in journals:
        for holding in journal.holdings:
            by_probe[holding.probe_id].append(holding)
    for holdings in by_probe.values():
        owners: dict[int, str] = {}
        holdings.sort(key=lambda holding: holding.since)
        last = holdings[0]
        for holding in holdings:
            first = owners.setdefault(holding.attempt, holding.owner)
            if first != holding.owner:
                named = [first, holding.owner]
                yield {"probe": holding.probe_id, "attempt": holding.attempt, "owners": named}
            # Asked for and granted while somebody else was sure to have it.
            if holding.owner != last.owner and last.since < holding.asked_at and holding.since < last.until:
                yield {"first": vars(last), "second": vars(holding)}
            if holding.until >= last.until:
                last = holding


def figures(journals: Sequence[Journal], probes: Sequence[ProbeRecord], seconds: float) -> dict[str, Any]:
    """Operations per second and latencies."""
    merged: dict[str, list[float]] = defaultdict(list)
    for journal in journals:
        for name, values in journal.seconds.items():
            merged[name] += values
    every = [value for values in merged.values() for value in values]
    return {
        "processes": len(journals),
        "operations": len(every),
        "operations_per_second": round(len(every) / seconds, 1),
        "probes": len(probes),
        "leases": sum(len(journal.holdings) for journal in journals),
        "leases_refused": sum(journal.refusals for journal in journals),
        "seconds": {name: _latency(values) for name, values in sorted({"all": every, **merged}.items())},
    }


def _latency(values: Sequence[float]) -> Mapping[str, float | int | None]:
    return {
        "count": len(values),
        "median": quantile(values, 0.5),
        "p99": quantile(values, 0.99),
        "max": quantile(values, 1.0),
    }
