"""Builds the tables of the report as rows of text, for HTML, Markdown and the terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from search_spaces import Configuration, traits_of
from tuner.advice.interval_check import estimate_of, is_inside
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
from tuner.domain.ledger import PredictedAgainstMeasured, ProbeRecord
from tuner.domain.measurement import Measurement, Purpose
from tuner.domain.recommendation import Alternative, Recommendation
from tuner.report.wording import known_words, measured_word

T = TypeVar("T")

#: Names of the times that are measured on each rank: for parts of a training step, and for the whole step.
_PARTS = ("compute", "sync", "input", "step")


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of text.

    Args:
        columns: Titles of the columns.
        rows: Rows of cells; every row has one cell per column.
        num_words_columns: Number of leftmost columns, which contain words. The other columns contain numbers
            and are aligned to the right.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    num_words_columns: int = 1

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows)


def choices_table(recommendation: Recommendation) -> Table:
    """Returns a table that compares the recommended configuration, the runner-up and the present settings.

    Each of these alternatives has a column; each axis, time and price has a row.
    """
    named = {
        "choice": recommendation.choice,
        "runner-up": recommendation.runner_up,
        "present settings": recommendation.baseline,
    }
    shown = {name: alternative for name, alternative in named.items() if alternative is not None}
    alternatives = list(shown.values())
    axes = list(dict.fromkeys(axis for a in alternatives for axis in a.configuration))
    word = measured_word(recommendation)
    rows: list[tuple[str, list[str]]] = [
        *((axis_title(axis), [_axis(a, axis) for a in alternatives]) for axis in axes),
        ("predicted time to target", [format_seconds(a.seconds.median) for a in alternatives]),
        ("90% interval of time", [format_interval(a.seconds) for a in alternatives]),
        (f"{word} time to target", [_or_absent(a.measured_seconds, format_seconds) for a in alternatives]),
        (f"{word} of its run", [_known(a) for a in alternatives]),
    ]
    if any(a.dollars is not None for a in alternatives):
        rows += [
            ("predicted price", [_price(a) for a in alternatives]),
            ("90% interval of price", [_or_absent(a.dollars, format_dollar_interval) for a in alternatives]),
        ]
    rows.append(("chance of reaching it", [_chance(a) for a in alternatives]))
    return Table(columns=("", *shown), rows=tuple((title, *cells) for title, cells in rows))


def _or_absent(value: T | None, shown: Callable[[T], str]) -> str:
    return ABSENT if value is None else shown(value)


def _axis(alternative: Alternative, axis: str) -> str:
    what = alternative.configuration
    return format_axis(what[axis]) if axis in what else ABSENT


def _known(alternative: Alternative) -> str:
    # Absolute numbers, because a share of the predicted run would be as uncertain as the prediction.
    return known_words(alternative) if alternative.samples_observed else "nothing"


def _chance(alternative: Alternative) -> str:
    reached = alternative.measured_seconds is not None
    return "reached" if reached else format_chance(alternative.probability_of_reaching)


def _price(alternative: Alternative) -> str:
    return _or_absent(alternative.dollars, lambda dollars: format_dollars(dollars.median))


def strategies_table(recommendation: Recommendation) -> Table:
    """Returns a table of the strategies, each at its best configuration, the recommended one first.

    The table shows the predicted seconds per batch, the number of samples to the target, and the time to it.
    """
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
    """Returns a table of the predictions for each number of nodes, batch size and strategy, fastest first.

    Each prediction is for the best learning rate and the best knobs (parameters of the strategy).
    """
    ordered = sorted(landscape, key=lambda a: a.seconds.median)
    priced = any(a.dollars is not None for a in landscape)
    rows = [
        (
            format_configuration(a.configuration),
            format_seconds(a.seconds.median),
            format_interval(a.seconds),
            *([_price(a)] if priced else []),
            _chance(a),
        )
        for a in ordered
    ]
    prices = ("dollars",) if priced else ()
    return Table(
        columns=("configuration", "time to target", "90% interval", *prices, "chance of reaching it"),
        rows=tuple(rows),
    )


def checked_table(checked: Sequence[PredictedAgainstMeasured]) -> Table:
    """Returns a table of the predicted times to target and the times measured later."""
    rows = []
    for check in checked:
        predicted = estimate_of(check.prediction.quantiles)
        rows.append(
            (
                format_configuration(check.prediction.configuration),
                format_share(check.share_observed),
                _or_absent(predicted, lambda estimate: format_seconds(estimate.median)),
                _or_absent(predicted, format_interval),
                format_seconds(check.measured_seconds),
                _or_absent(is_inside(check), lambda inside: "inside" if inside else "outside"),
            )
        )
    return Table(
        columns=("configuration", "run known", "predicted", "90% interval", "measured", "verdict"),
        rows=tuple(rows),
    )


def spending_table(seconds_by_name: Mapping[str, float], title: str) -> Table:
    """Returns a table of the seconds spent and their share of the total, the largest number first.

    Args:
        seconds_by_name: Maps a purpose or a part of the search to its seconds.
        title: Title of the column of names.
    """
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
    """Returns the best finite score of a run, without that of the untrained model; None if there is none."""
    values = () if measurement is None else measurement.finite_values
    return (max if maximize else min)(values, default=None)


def last_value(measurement: Measurement | None) -> float | None:
    """Returns the last finite score of a run, without that of the untrained model; None if there is none."""
    values = () if measurement is None else measurement.finite_values
    return values[-1] if values else None


PROBES_NOTE = (
    "Samples and training time are totals at the end of the probe's last slice. The probe's last score "
    "may be from some steps earlier; the terminal shows the samples and time of that score."
)
"""Explains the columns of `probes_table`."""


def probes_table(probes: Sequence[ProbeRecord], *, maximize: bool) -> Table:
    """Returns a table of all probes, oldest first; the prices are left out if all are 0."""
    priced = any(probe.measurement is not None and probe.measurement.charged_dollars > 0 for probe in probes)
    num_measured = 5 if priced else 4
    rows = []
    for probe in probes:
        seen = probe.measurement
        measured: tuple[str, ...] = (ABSENT,) * 5
        if seen is not None:
            measured = (
                format_count(seen.samples),
                format_seconds(seen.training_seconds),
                format_count(len(seen.trained_curve)),
                format_seconds(seen.charged_seconds),
                format_dollars(seen.charged_dollars),
            )
        rows.append(
            (
                _or_absent(probe.trial_number, lambda number: f"#{number}"),
                probe.purpose.value,
                format_configuration(probe.configuration),
                probe.outcome.value.replace("_", " "),
                *measured[:3],
                _or_absent(best_value(seen, maximize=maximize), format_value),
                _or_absent(last_value(seen), format_value),
                *measured[3:num_measured],
            )
        )
    return Table(
        columns=(
            *("trial", "purpose", "configuration", "outcome", "samples", "training", "scores"),
            *("best value", "last value", "charged"),
            *(["price"] if priced else []),
        ),
        rows=tuple(rows),
        num_words_columns=4,
    )


def timed_probes(probes: Sequence[ProbeRecord]) -> list[tuple[ProbeRecord, Measurement]]:
    """Returns the probes that only measured step times, ordered by number of nodes and batch size."""
    timed = [(p, p.measurement) for p in probes if p.purpose is Purpose.TIMING]
    shown = [(p, m) for p, m in timed if m is not None and m.ranks]
    return sorted(shown, key=lambda pair: (pair[0].configuration.nodes, pair[0].configuration.batch_size))


def timing_table(probes: Sequence[ProbeRecord]) -> Table:
    """Returns a table of the median step times of the probes that only measured step times.

    If the medians of ranks differ, the table shows their range. There is a column for the strategy if there
    are several strategies, and a column for the staleness of parameters (in steps) if it was measured.
    """
    timed = timed_probes(probes)
    named = len({probe.configuration.strategy for probe, _ in timed}) > 1
    stale = any(measurement.staleness_steps is not None for _, measurement in timed)
    rows = []
    for probe, seen in timed:
        spreads = ([getattr(rank, part) for rank in seen.ranks] for part in _PARTS)
        rows.append(
            (
                *([format_strategy(probe.configuration)] if named else []),
                format_count(probe.configuration.nodes),
                _range([rank.batch_size for rank in seen.ranks], format_count),
                *(_range([spread.median for spread in part], _nonnegative_seconds) for part in spreads),
                _samples_per_second(seen),
                *([_or_absent(seen.staleness_steps, lambda steps: format_number(steps, 2))] if stale else []),
                "shared" if seen.oversubscribed else "own",
            )
        )
    columns = (
        *(["strategy"] if named else []),
        *("nodes", "batch a rank", *_PARTS, "samples/s"),
        *(["steps stale"] if stale else []),
        "cores",
    )
    return Table(columns=columns, rows=tuple(rows), num_words_columns=1 if named else 0)


def _samples_per_second(measurement: Measurement) -> str:
    """Returns the throughput of all ranks together, in samples per second.

    If ranks wait for the slowest rank, the median step time of the slowest rank determines the throughput.
    """
    configuration = measurement.configuration
    seconds: float | None = max(rank.step.median for rank in measurement.ranks)
    if not traits_of(configuration.strategy).barrier:
        seconds = measurement.batch_seconds
    return format_count(configuration.batch_size / seconds) if seconds else ABSENT


def ranks_table(measurement: Measurement) -> Table:
    """Returns a table of the step times of one probe, one row per rank."""
    rows = tuple(
        (
            str(rank.rank),
            format_count(rank.batch_size),
            *(_nonnegative_seconds(getattr(rank, part).median) for part in _PARTS),
            f"{format_seconds(rank.step.p10)} to {format_seconds(rank.step.p90)}",
            format_count(rank.step.count),
        )
        for rank in measurement.ranks
    )
    columns = ("rank", "batch", *_PARTS, "step, p10 to p90", "steps")
    return Table(columns=columns, rows=rows, num_words_columns=0)


def _nonnegative_seconds(seconds: float) -> str:
    return format_seconds(max(seconds, 0.0))


def _range(values: Sequence[float], shown: Callable[[float], str]) -> str:
    low, high = shown(min(values)), shown(max(values))
    return low if low == high else f"{low} to {high}"
