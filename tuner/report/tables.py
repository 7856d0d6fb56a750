"""The tables of a report as rows of words, for HTML, Markdown and the terminal alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from search_spaces import Configuration, traits_of
from tuner.advice.strategy_words import waits_words
from tuner.domain.format import (
    ABSENT,
    UNREACHABLE,
    axis_title,
    format_axis,
    format_chance,
    format_configuration,
    format_count,
    format_dollar_interval,
    format_dollars,
    format_interval,
    format_number,
    format_seconds,
    format_share,
    format_strategy,
    format_value,
)
from tuner.domain.measurement import Measurement, Purpose, RankTiming, Spread
from tuner.domain.recommendation import Alternative, Recommendation
from tuner.ledger import PredictedAgainstMeasured, ProbeRecord
from tuner.report.wording import estimate_of, is_inside, measured_word


@dataclass(frozen=True, kw_only=True)
class Table:
    """Words in rows.

    Args:
        columns: Titles.
        rows: Cells, as many in each row as there are columns.
        num_words_columns: So many columns from the left hold words; the others numbers, set to the right.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    num_words_columns: int = 1

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows)


def choices_table(recommendation: Recommendation) -> Table:
    """Choice, runner-up and present settings side by side, one fact a row."""
    named = (
        ("choice", recommendation.choice),
        ("runner-up", recommendation.runner_up),
        ("present settings", recommendation.baseline),
    )
    shown = [(name, alternative) for name, alternative in named if alternative is not None]
    axes = list(dict.fromkeys(axis for _, a in shown for axis in a.configuration))
    rows = [(axis_title(axis), *(_axis(a, axis) for _, a in shown)) for axis in axes]
    rows.append(("predicted time to target", *(format_seconds(a.seconds.median) for _, a in shown)))
    rows.append(("90% interval of time", *(format_interval(a.seconds) for _, a in shown)))
    word = measured_word(recommendation)
    rows.append((f"{word} time to target", *(_measured(a) for _, a in shown)))
    rows.append((f"{word} of its run", *(_known(a) for _, a in shown)))
    if any(a.dollars is not None for _, a in shown):
        rows.append(("predicted price", *(_dollars(a) for _, a in shown)))
        rows.append(("90% interval of price", *(_dollar_interval(a) for _, a in shown)))
    rows.append(("chance of reaching it", *(_chance(a) for _, a in shown)))
    return Table(columns=("", *(name for name, _ in shown)), rows=tuple(rows))


def _known(alternative: Alternative) -> str:
    """How much of its run was observed; a share of a prediction would be as wrong as the prediction."""
    if not alternative.samples_observed:
        return "nothing"
    samples, seconds = alternative.samples_observed, alternative.seconds_observed
    return f"{format_count(samples)} samples ({format_seconds(seconds)})"


def _chance(alternative: Alternative) -> str:
    if alternative.measured_seconds is not None:
        return "reached"
    return format_chance(alternative.probability_of_reaching)


def _axis(alternative: Alternative, axis: str) -> str:
    value = alternative.configuration.get(axis)
    return ABSENT if value is None else format_axis(value)


def _measured(alternative: Alternative) -> str:
    seconds = alternative.measured_seconds
    return ABSENT if seconds is None else format_seconds(seconds)


def _dollars(alternative: Alternative) -> str:
    return ABSENT if alternative.dollars is None else format_dollars(alternative.dollars.median)


def _dollar_interval(alternative: Alternative) -> str:
    return ABSENT if alternative.dollars is None else format_dollar_interval(alternative.dollars)


def strategies_table(recommendation: Recommendation) -> Table:
    """Every strategy at its best, the chosen one first: what a batch takes, how many samples, how long."""
    rows = [
        (
            f"{format_strategy(outlook.configuration)}: "
            f"{format_configuration(_without_strategy(outlook.configuration))}",
            waits_words(outlook),
            format_seconds(outlook.batch_seconds.median),
            format_count(outlook.samples.median) if math.isfinite(outlook.samples.median) else UNREACHABLE,
            format_seconds(outlook.seconds.median),
            format_interval(outlook.seconds),
            format_share(outlook.share_observed),
        )
        for outlook in recommendation.strategies
    ]
    return Table(
        columns=(
            "strategy at its best",
            "waits for the slowest",
            "a batch",
            "samples to target",
            "time to target",
            "90% interval",
            f"run {measured_word(recommendation)}",
        ),
        rows=tuple(rows),
        num_words_columns=2,
    )


def _without_strategy(configuration: Configuration) -> Configuration:
    return configuration.without("strategy", *traits_of(configuration.strategy).knobs)


def landscape_table(landscape: Sequence[Alternative]) -> Table:
    """The best learning rate and knobs for each number of nodes, batch size and strategy, soonest first."""
    ordered = sorted(landscape, key=lambda a: a.seconds.median)
    rows = [
        (
            format_configuration(a.configuration),
            format_seconds(a.seconds.median),
            format_interval(a.seconds),
            _dollars(a),
            _chance(a),
        )
        for a in ordered
    ]
    return Table(
        columns=("configuration", "time to target", "90% interval", "dollars", "chance of reaching it"),
        rows=tuple(rows),
    )


def checked_table(checked: Sequence[PredictedAgainstMeasured]) -> Table:
    """Every prediction and what was measured later."""
    rows = []
    for check in checked:
        predicted = estimate_of(check.prediction.quantiles)
        inside = is_inside(check)
        rows.append(
            (
                format_configuration(check.prediction.configuration),
                format_share(check.share_observed),
                ABSENT if predicted is None else format_seconds(predicted.median),
                ABSENT if predicted is None else format_interval(predicted),
                format_seconds(check.measured_seconds),
                {True: "inside", False: "outside", None: ABSENT}[inside],
            )
        )
    return Table(
        columns=("configuration", "run known", "predicted", "90% interval", "measured", "verdict"),
        rows=tuple(rows),
    )


def spending_table(seconds_by_name: Mapping[str, float], title: str) -> Table:
    """Seconds by name, the largest first, with their share."""
    total = sum(seconds_by_name.values())
    ordered = sorted(seconds_by_name.items(), key=lambda item: -item[1])
    return Table(
        columns=(title, "seconds", "share"),
        rows=tuple(
            (name, format_seconds(seconds), format_share(seconds / total) if total > 0 else ABSENT)
            for name, seconds in ordered
        ),
    )


def best_value(measurement: Measurement | None, *, maximize: bool) -> float | None:
    """The best finite value of a trained model; None where none was scored."""
    if measurement is None:
        return None
    values = [point.value for point in measurement.trained_curve if math.isfinite(point.value)]
    if not values:
        return None
    return max(values) if maximize else min(values)


def last_value(measurement: Measurement | None) -> float | None:
    """The last finite value of a trained model; None where none was scored."""
    values = [point.value for point in measurement.trained_curve] if measurement is not None else []
    finite = [value for value in values if math.isfinite(value)]
    return finite[-1] if finite else None


PROBES_NOTE = (
    "Samples and training time are those at the end of the probe's last slice. Its last score, which the "
    "terminal shows with its own samples and time, may lie some steps before."
)
"""What the columns of `probes_table` are."""


def probes_table(probes: Sequence[ProbeRecord], *, maximize: bool) -> Table:
    """Every probe, oldest first."""
    rows = []
    for probe in probes:
        seen = probe.measurement
        best, last = best_value(seen, maximize=maximize), last_value(seen)
        rows.append(
            (
                ABSENT if probe.trial_number is None else f"#{probe.trial_number}",
                probe.purpose.value,
                format_configuration(probe.configuration),
                probe.outcome.value.replace("_", " "),
                ABSENT if seen is None else format_count(seen.samples),
                ABSENT if seen is None else format_seconds(seen.training_seconds),
                ABSENT if seen is None else format_count(len(seen.trained_curve)),
                ABSENT if best is None else format_value(best),
                ABSENT if last is None else format_value(last),
                ABSENT if seen is None else format_seconds(seen.charged_seconds),
                ABSENT if seen is None else format_dollars(seen.charged_dollars),
            )
        )
    return Table(
        columns=(
            "trial",
            "purpose",
            "configuration",
            "outcome",
            "samples",
            "training",
            "scores",
            "best value",
            "last value",
            "charged",
            "price",
        ),
        rows=tuple(rows),
        num_words_columns=4,
    )


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
