"""The tables of step times: by timing probe, and by rank of one."""

from __future__ import annotations

from collections.abc import Sequence

from search_spaces import traits_of
from tuner.domain.format import ABSENT, format_count, format_number, format_seconds, format_strategy
from tuner.domain.measurement import Measurement, Purpose, RankTiming, Spread
from tuner.ledger import ProbeRecord
from tuner.report.tables import Table


def timed_probes(probes: Sequence[ProbeRecord]) -> list[tuple[ProbeRecord, Measurement]]:
    """The timing probes that timed a step, by nodes and batch."""
    timed = [(p, p.measurement) for p in probes if p.purpose is Purpose.TIMING]
    shown = [(p, m) for p, m in timed if m is not None and m.ranks]
    return sorted(shown, key=lambda pair: (pair[0].configuration.nodes, pair[0].configuration.batch_size))


def timing_table(probes: Sequence[ProbeRecord]) -> Table:
    """Step times of the timing probes: medians, as a range where ranks differ.

    The strategy is named where there are several, and how stale what ranks mixed in was, where any was.
    """
    timed = timed_probes(probes)
    named = len({probe.configuration.strategy for probe, _ in timed}) > 1
    stale = any(measurement.staleness_steps is not None for _, measurement in timed)
    rows = []
    for probe, measurement in timed:
        ranks = measurement.ranks
        rows.append(
            (
                *([format_strategy(probe.configuration)] if named else []),
                format_count(probe.configuration.nodes),
                _range([rank.batch_size for rank in ranks]),
                *(_medians(part) for part in _parts(ranks)),
                _samples_per_second(measurement),
                *([_staleness(measurement)] if stale else []),
                "shared" if measurement.oversubscribed else "own",
            )
        )
    columns = (
        *(["strategy"] if named else []),
        *("nodes", "batch a rank", "compute", "sync", "input", "step", "samples/s"),
        *(["steps stale"] if stale else []),
        "cores",
    )
    return Table(columns=columns, rows=tuple(rows), num_words_columns=1 if named else 0)


def _samples_per_second(measurement: Measurement) -> str:
    """By the slowest rank's median step where ranks wait for it, else by all ranks' rates together."""
    configuration = measurement.configuration
    seconds: float | None = max(rank.step.median for rank in measurement.ranks)
    if not traits_of(configuration.strategy).barrier:
        seconds = measurement.batch_seconds
    return format_count(configuration.batch_size / seconds) if seconds else ABSENT


def _staleness(measurement: Measurement) -> str:
    steps = measurement.staleness_steps
    return ABSENT if steps is None else format_number(steps, 2)


def ranks_table(measurement: Measurement) -> Table:
    """Step times of one probe by rank."""
    rows = tuple(
        (
            str(rank.rank),
            format_count(rank.batch_size),
            *(_median_words(s.median) for s in (rank.compute, rank.sync, rank.input, rank.step)),
            f"{format_seconds(rank.step.p10)} to {format_seconds(rank.step.p90)}",
            format_count(rank.step.count),
        )
        for rank in measurement.ranks
    )
    return Table(
        columns=("rank", "batch", "compute", "sync", "input", "step", "step, p10 to p90", "steps"),
        rows=rows,
        num_words_columns=0,
    )


def _parts(ranks: Sequence[RankTiming]) -> list[list[Spread]]:
    return [
        [rank.compute for rank in ranks],
        [rank.sync for rank in ranks],
        [rank.input for rank in ranks],
        [rank.step for rank in ranks],
    ]


def _medians(spreads: Sequence[Spread]) -> str:
    words = [
        _median_words(value) for value in (min(s.median for s in spreads), max(s.median for s in spreads))
    ]
    return words[0] if words[0] == words[1] else " to ".join(words)


def _median_words(seconds: float) -> str:
    return format_seconds(max(seconds, 0.0))


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return format_count(low) if low == high else f"{format_count(low)} to {format_count(high)}"
