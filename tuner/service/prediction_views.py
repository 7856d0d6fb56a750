"""Makes the rows and the JSON data that `paceline predict` and `paceline compare` print."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from search_spaces import AxisValue
from tuner.advice.comparison import Comparison, Side
from tuner.advice.prediction import Prediction
from tuner.domain.format import (
    axis_title,
    format_chance,
    format_count,
    format_dollar_interval,
    format_dollars,
    format_interval,
    format_ratio,
    format_seconds,
)
from tuner.domain.recommendation import Alternative, Estimate

Row = dict[str, Any]


def prediction_rows(prediction: Prediction, following: str) -> list[Row]:
    """Returns the rows of `paceline predict`.

    Args:
        prediction: The prediction.
        following: The next sensible command.
    """
    forecast = prediction.forecast
    rows: list[tuple[str, Any]] = [("study", prediction.study_name), ("goal", prediction.goal)]
    rows += [(axis_title(axis), value) for axis, value in forecast.configuration.items()]
    if forecast.measured_seconds is not None:
        rows.append(("measured time to target", format_seconds(forecast.measured_seconds)))
    rows.append(("predicted time to target", seconds_words(forecast.seconds)))
    if forecast.dollars is not None:
        dollars = f"{format_dollars(forecast.dollars.median)} ({format_dollar_interval(forecast.dollars)})"
        rows.append(("predicted price", dollars))
    if prediction.startup_seconds is not None:
        rows.append(("start-up before it", _startup_words(prediction.startup_seconds, forecast)))
    rows.append(("chance of reaching the target", format_chance(forecast.probability_of_reaching)))
    rows += [
        (f"chance within {words}", format_chance(chance)) for words, chance in prediction.chances.items()
    ]
    rows += [("rests on", sentence) for sentence in prediction.evidence]
    rows += [("note", sentence) for sentence in prediction.remarks]
    rows.append(("next", following))
    return [{"name": what, "value": value} for what, value in rows]


def _startup_words(seconds: float, forecast: Alternative) -> str:
    """Formats the start-up time of a script, with its price: 8 s ($0.01)."""
    dollars = seconds * forecast.dollars_per_second
    return format_seconds(seconds) + (f" ({format_dollars(dollars)})" if math.isfinite(dollars) else "")


def seconds_words(seconds: Estimate) -> str:
    """Formats a time with its 90% interval: 12 s (90% interval 8 s to 20 s)."""
    return f"{format_seconds(seconds.median)} (90% interval {format_interval(seconds)})"


def prediction_data(prediction: Prediction, following: str) -> dict[str, Any]:
    """Returns the JSON data of `paceline predict`; numbers that are not finite are None.

    Args:
        prediction: The prediction.
        following: The next sensible command.
    """
    return {
        "study": prediction.study_name,
        "goal": prediction.goal,
        **forecast_data(prediction.forecast),
        "startup_seconds": prediction.startup_seconds,
        "probability_within": dict(prediction.chances),
        "evidence": list(prediction.evidence),
        "remarks": list(prediction.remarks),
        "next": following,
    }


def forecast_data(forecast: Alternative) -> dict[str, Any]:
    """Returns the JSON data of the forecast of a configuration."""
    return {
        "configuration": forecast.configuration.as_dict(),
        "seconds": estimate_data(forecast.seconds),
        "dollars": None if forecast.dollars is None else estimate_data(forecast.dollars),
        "probability_of_reaching": forecast.probability_of_reaching,
        "measured_seconds": forecast.measured_seconds,
        "seconds_observed": forecast.seconds_observed,
        "samples_observed": forecast.samples_observed,
    }


def estimate_data(estimate: Estimate) -> dict[str, float | None]:
    """Returns a median with its 90% interval as JSON data."""
    values = {"lower": estimate.lower, "median": estimate.median, "upper": estimate.upper}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def comparison_rows(comparison: Comparison) -> list[Row]:
    """Returns the rows of `paceline compare`: one for each quantity, with columns for A, B and B / A."""
    a, b = comparison.sides
    rows: list[Row] = []

    def add(name: str, shown: Callable[[Side], Any], ratio: Estimate | None = None) -> None:
        relative = None if ratio is None else _with_interval(ratio, format_ratio)
        values = {"A": shown(a), "B": shown(b)}
        if set(values.values()) != {None}:
            rows.append({"name": name, **values, "B / A": relative})

    if a.study_name != b.study_name:
        add("study", lambda side: side.study_name)
    for axis in dict.fromkeys([*a.forecast.configuration, *b.forecast.configuration]):
        add(axis_title(axis), partial(_value_of, axis))
    add("measured time to target", lambda side: measured_words(side.forecast))
    add("measured training", lambda side: known_words(side.forecast))
    add("predicted time to target", _seconds_of, comparison.training_ratio)
    add("predicted price", _dollars_of, comparison.training_dollars_ratio)
    add("chance of reaching the target", lambda side: format_chance(side.forecast.probability_of_reaching))
    add(
        "samples to target",
        lambda side: _with_interval(side.samples, format_short_samples),
        comparison.samples_ratio,
    )
    add(
        "time per sample",
        lambda side: _with_interval(side.sample_seconds, format_seconds),
        comparison.speed_ratio,
    )
    add("time per step", lambda side: format_seconds(side.step_seconds))
    if a.startup_seconds or b.startup_seconds:
        add("start-up", lambda side: format_seconds(side.startup_seconds))
        add("time with start-up", _total_of, comparison.seconds_ratio)
        add("price with start-up", _price_with_startup, comparison.dollars_ratio)
    chances = {side.label: chance for side, chance in zip((a, b), comparison.probabilities, strict=True)}
    add("probability of being sooner", lambda side: format_chance(chances[side.label]))
    return rows


def _value_of(axis: str, side: Side) -> AxisValue | None:
    return side.forecast.configuration.get(axis)


def _seconds_of(side: Side) -> str:
    return _with_interval(side.forecast.seconds, format_seconds)


def _total_of(side: Side) -> str:
    return format_seconds(side.forecast.seconds.median + side.startup_seconds)


def _price_with_startup(side: Side) -> str | None:
    dollars = side.forecast.dollars
    if dollars is None:
        return None
    startup = side.startup_seconds * side.forecast.dollars_per_second
    return format_dollars(dollars.median + (startup if math.isfinite(startup) else 0.0))


def _dollars_of(side: Side) -> str | None:
    dollars = side.forecast.dollars
    return None if dollars is None else _with_interval(dollars, format_dollars)


def measured_words(forecast: Alternative) -> str | None:
    """Formats the measured time to target; None if no training has reached the target."""
    return None if forecast.measured_seconds is None else format_seconds(forecast.measured_seconds)


def known_words(forecast: Alternative) -> str:
    """Formats how much of the training of a configuration was measured."""
    if not forecast.is_observed:
        return "none"
    return f"{format_seconds(forecast.seconds_observed)}, {format_count(forecast.samples_observed)} samples"


def format_short_samples(samples: float) -> str:
    """Formats a predicted number of samples with three significant digits."""
    return format_count(float(f"{samples:.3g}"))


def _with_interval(estimate: Estimate, shown: Callable[[float], str]) -> str:
    return f"{shown(estimate.median)} ({shown(estimate.lower)} to {shown(estimate.upper)})"


def comparison_data(comparison: Comparison, following: str) -> dict[str, Any]:
    """Returns the JSON data of `paceline compare`; numbers that are not finite are None.

    Args:
        comparison: The comparison.
        following: The next sensible command.
    """
    ratios = {
        "seconds": comparison.seconds_ratio,
        "training_seconds": comparison.training_ratio,
        "dollars": comparison.dollars_ratio,
        "training_dollars": comparison.training_dollars_ratio,
        "samples": comparison.samples_ratio,
        "sample_seconds": comparison.speed_ratio,
    }
    return {
        **{
            side.label.lower(): {
                "study": side.study_name,
                "goal": side.goal,
                **forecast_data(side.forecast),
                "samples": estimate_data(side.samples),
                "sample_seconds": estimate_data(side.sample_seconds),
                "startup_seconds": side.startup_seconds,
                "probability_of_being_sooner": probability,
            }
            for side, probability in zip(comparison.sides, comparison.probabilities, strict=True)
        },
        "b_over_a": {name: None if one is None else estimate_data(one) for name, one in ratios.items()},
        "answer": comparison.answer,
        "decides": comparison.decides,
        "remarks": list(comparison.remarks),
        "next": following,
    }
