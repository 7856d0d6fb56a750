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
    format_seconds,
    format_share,
    format_strategy,
    format_value,
)
from tuner.domain.measurement import Measurement
from tuner.domain.recommendation import Alternative, Recommendation
from tuner.ledger import PredictedAgainstMeasured, ProbeRecord
from tuner.report.findings import estimate_of, is_inside, measured_word


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
    if not alternative.samples_known:
        return "nothing"
    return f"{format_count(alternative.samples_known)} samples ({format_seconds(alternative.seconds_known)})"


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
            format_share(outlook.share_known),
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
                format_share(check.share_known),
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
