"""Builds the tables of the analysis: what would change the answer, and what the models learned."""

from __future__ import annotations

from collections.abc import Sequence

from tuner.domain.analysis import Analysis, Override, WhatIf
from tuner.domain.format import (
    ABSENT,
    format_chance,
    format_configuration,
    format_count,
    format_count_interval,
    format_dollar_interval,
    format_dollars,
    format_interval,
    format_node_hours,
    format_number,
    format_seconds,
    format_value,
)
from tuner.report.tables import Table

#: Maximum number of rows of the table of forecasts.
_MOST_FORECASTS = 30


def what_if_table(analysis: Analysis) -> Table | None:
    """Returns the table of what would change the answer, one row per condition; None without conditions."""
    if not analysis.what_if:
        return None
    rows = tuple(
        (
            f"If {row.change}",
            _best(row),
            row.note.removeprefix("same").lstrip(":; ") if row.is_same else row.note,
            ABSENT if row.seconds is None else format_seconds(row.seconds.median),
            ABSENT if row.seconds is None else format_interval(row.seconds),
            _cost(row),
        )
        for row in analysis.what_if
    )
    columns = ("change", "best configuration", "note", "time to target", "90% interval", "cost")
    return Table(columns=columns, rows=rows, num_words_columns=3)


def _best(row: WhatIf) -> str:
    if row.configuration is None:
        return "not measured"
    return "the same" if row.is_same else format_configuration(row.configuration)


def _cost(row: WhatIf) -> str:
    if row.dollars is not None:
        return format_dollars(row.dollars.median)
    return ABSENT if row.node_hours is None else format_node_hours(row.node_hours.median)


def trade_offs_table(analysis: Analysis) -> Table | None:
    """Returns the table of the Pareto front, soonest first; None without configurations."""
    front = analysis.trade_offs
    if not front:
        return None
    priced = all(item.dollars is not None for item in front)
    rows = []
    for item in front:
        name = format_configuration(item.configuration)
        costs = [format_node_hours(item.node_hours.median)]
        if priced and item.dollars is not None:
            costs = [format_dollars(item.dollars.median), format_dollar_interval(item.dollars)]
        shown = f"{name} (recommended)" if item.is_choice else name
        rows.append((shown, format_seconds(item.seconds.median), format_interval(item.seconds), *costs))
    columns = ("configuration", "time to target", "90% interval")
    more = ("dollars", "90% interval of dollars") if priced else ("cost",)
    return Table(columns=(*columns, *more), rows=tuple(rows))


def step_parts_table(analysis: Analysis) -> Table | None:
    """Returns the table of the parts of a step by number of nodes; None if no steps were timed."""
    parts = analysis.step_parts
    if not parts:
        return None
    has_input = any(item.input_seconds > 0 for item in parts)
    rows = tuple(
        (
            format_count(item.configuration.nodes),
            format_seconds(item.seconds.median),
            format_interval(item.seconds),
            format_seconds(item.compute_seconds),
            *([format_seconds(item.input_seconds)] if has_input else []),
            format_seconds(item.waiting_seconds),
            format_seconds(item.communication_seconds),
            "yes" if item.is_timed else "no",
        )
        for item in parts
    )
    columns = (
        *("nodes", "a step", "90% interval", "compute"),
        *(["input"] if has_input else []),
        *("waiting", "communication", "timed"),
    )
    return Table(columns=columns, rows=rows, num_words_columns=0)


def batches_table(analysis: Analysis) -> Table | None:
    """Returns the table of samples to target by batch size; None without batch sizes."""
    if not analysis.samples_by_batch:
        return None
    rows = tuple(
        (
            format_count(item.configuration.batch_size),
            ABSENT
            if "learning_rate" not in item.configuration
            else format_number(item.configuration.learning_rate),
            format_count(item.samples.median),
            format_count_interval(item.samples),
            ABSENT if item.measured_samples is None else format_count(item.measured_samples),
            format_chance(item.probability_of_reaching),
        )
        for item in analysis.samples_by_batch
    )
    columns = ("batch size", "best rate", "samples to target", "90% interval", "measured", "chance")
    return Table(columns=columns, rows=rows, num_words_columns=0)


def rates_table(analysis: Analysis) -> Table | None:
    """Returns for each batch size which learning rates are likely to reach the target; None without rates."""
    if not analysis.learning_rates:
        return None
    rows = []
    for batch in sorted({cell.batch_size for cell in analysis.learning_rates}):
        own = [cell for cell in analysis.learning_rates if cell.batch_size == batch]
        likely = [cell.learning_rate for cell in own if cell.probability_of_reaching >= 0.5]
        best = next((cell for cell in own if cell.is_best), None)
        runs = [run for run in analysis.rate_runs if run.batch_size == batch]
        reached = sum(run.result == "reached" for run in runs)
        missed = sum(run.result == "missed" for run in runs)
        rows.append(
            (
                format_count(batch),
                _range(likely) if likely else "none",
                ABSENT if best is None else format_number(best.learning_rate),
                ABSENT if best is None else format_chance(best.probability_of_reaching),
                f"{len(runs)} ({reached} reached, {missed} missed)" if runs else "0",
            )
        )
    columns = ("batch size", "rates likely to reach it", "best rate", "chance at the best rate", "runs")
    return Table(columns=columns, rows=tuple(rows), num_words_columns=0)


def _range(rates: Sequence[float]) -> str:
    low, high = format_number(min(rates)), format_number(max(rates))
    return low if low == high else f"{low} to {high}"


def forecasts_table(analysis: Analysis) -> Table | None:
    """Returns the table of the forecasts of measured curves; None without curves."""
    if not analysis.curve_forecasts:
        return None
    rows = []
    for item in analysis.curve_forecasts[:_MOST_FORECASTS]:
        last = item.points[-1].samples if item.points else None
        chance = {"reached": "reached", "missed": "ended or got worse"}.get(item.result)
        rows.append(
            (
                ABSENT if item.trial_number is None else f"#{item.trial_number}",
                format_configuration(item.configuration),
                format_count(item.samples_observed),
                ABSENT if not item.points else format_value(item.points[0].value),
                ABSENT if last is None else format_count(last.median),
                ABSENT if last is None else format_count_interval(last),
                chance or format_chance(item.probability_of_reaching),
            )
        )
    columns = (
        *("trial", "configuration", "samples seen", "best value so far"),
        *("samples to target", "90% interval", "chance of reaching it"),
    )
    return Table(columns=columns, rows=tuple(rows), num_words_columns=2)


def overrides_table(overrides: Sequence[Override]) -> Table | None:
    """Returns the table of what was asked for and what was used instead; None if nothing was replaced."""
    if not overrides:
        return None
    rows = tuple((item.name, item.stated, item.used, item.source) for item in overrides)
    return Table(columns=("what", "asked for", "used", "because of"), rows=rows, num_words_columns=4)
