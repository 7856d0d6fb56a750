"""Compares the recommendation with the user's present settings, by time or, for the cheapest, by price."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tuner.advice.script_warnings import differing_axes
from tuner.domain.format import (
    format_chance,
    format_dollar_interval,
    format_dollars,
    format_interval,
    format_ratio,
    format_seconds,
)
from tuner.domain.recommendation import Alternative, Estimate, Recommendation
from tuner.report.wording import Finding, known_words, measured_word, narrow_words

#: Two values are described as equal if their ratio is below this factor.
_EQUAL_RATIO = 1.05
#: If the study's own intervals were too narrow, both are widened by this power before they are compared: an
#: interval from 1/2 to 2 times its center becomes 1/4 to 4 times.
_WIDENING = 2.0


@dataclass(frozen=True, kw_only=True)
class _Quantity:
    """What the goal minimizes, and its words.

    Args:
        shown: Formats a value.
        interval: Formats a 90% interval.
        took: Verb for a value of the present settings that was measured.
        better: Word for the smaller of two values, such as `sooner`.
        worse: Word for the larger of two values.
        equal: Words for two values that are about the same.
    """

    shown: Callable[[float], str]
    interval: Callable[[Estimate], str]
    took: str
    better: str
    worse: str
    equal: str


_SECONDS = _Quantity(
    shown=format_seconds,
    interval=format_interval,
    took="took",
    better="sooner",
    worse="later",
    equal="as fast",
)
_DOLLARS = _Quantity(
    shown=format_dollars,
    interval=format_dollar_interval,
    took="cost",
    better="cheaper",
    worse="more expensive",
    equal="as expensive",
)


@dataclass(frozen=True, kw_only=True)
class _Side:
    """One of the two configurations.

    Args:
        alternative: The configuration with its predictions.
        value: Its time or price to target: measured, else the median prediction.
        estimate: Prediction of the same quantity.
        is_measured: Whether a training of it reached the target.
    """

    alternative: Alternative
    value: float
    estimate: Estimate
    is_measured: bool

    @property
    def span(self) -> tuple[float, float]:
        """The 90% interval; a measured value is both of its ends."""
        return (self.value, self.value) if self.is_measured else (self.estimate.lower, self.estimate.upper)


def comparison(recommendation: Recommendation) -> Finding:
    """Compares the recommendation with the user's present settings, and states the evidence for both."""
    choice, baseline = recommendation.choice, recommendation.baseline
    if baseline is None:
        return Finding(
            headline="no baseline",
            detail="There are no present settings to compare with: the job file has no [baseline], or its "
            "values cannot run.",
        )
    if baseline.configuration == choice.configuration:
        return Finding(headline="keep them", detail=_why_no_change(recommendation))
    differs = differing_axes(choice.configuration, baseline.configuration)
    if differs <= set(recommendation.axes_without_effect):
        named = " or ".join(sorted(differs))
        return Finding(headline="no difference", detail=f"They differ in {named}, which had no effect.")
    verified = recommendation.verified
    trained = verified.training_seconds if verified is not None and verified.reached else None
    by_price = recommendation.is_cheapest and choice.dollars is not None and baseline.dollars is not None
    ours, theirs = _side(choice, by_price, trained), _side(baseline, by_price)
    may_miss = not theirs.is_measured and baseline.probability_of_reaching < 0.5
    if may_miss or not math.isfinite(theirs.value):
        chance = format_chance(baseline.probability_of_reaching)
        return Finding(
            headline="they may never reach it",
            detail=f"The present settings are not expected to reach the target (chance {chance}).",
        )
    if not math.isfinite(ours.value) or ours.value <= 0:
        return Finding(
            headline="unclear",
            detail="The median predicted time of the recommendation is infinite, so there is no comparison.",
        )
    quantity = _DOLLARS if by_price else _SECONDS
    other = _other_quantity(choice, baseline, by_price)
    if ours.is_measured and theirs.is_measured:
        headline, word = _times(theirs.value / ours.value, quantity), measured_word(recommendation)
        return Finding(
            headline=f"{headline}, {word} once",
            detail=f"The present settings {quantity.took} {quantity.shown(theirs.value)}, {word}. With "
            f"another order of the data, the ratio may differ.{other}",
        )
    # Show both values with their evidence: the ratio of two predictions would look like a measurement.
    check = recommendation.interval_check
    widening = _WIDENING if check is not None and check.too_narrow else 1.0
    overlap = not _are_distinct(ours.span, theirs.span)
    distinct = not overlap and _are_distinct(_widened(ours.span, widening), _widened(theirs.span, widening))
    caution = "" if distinct else " The intervals overlap."
    if not overlap and not distinct:
        caution = narrow_words(recommendation)
    likely = f"{quantity.better if ours.value < theirs.value else quantity.worse} by prediction"
    return Finding(
        headline=likely if distinct else f"not known which is {quantity.better}",
        detail=f"{_span_words(ours, quantity)}, against {_span_words(theirs, quantity)} of the present "
        f"settings. {_basis('The recommendation', ours)} {_basis('The present settings', theirs)}"
        f"{caution}{other}",
    )


def _why_no_change(recommendation: Recommendation) -> str:
    """Says why the present settings stay, and whether the runner-up has a better prediction."""
    words, second, choice = (
        "The search found nothing that is clearly better.",
        recommendation.runner_up,
        recommendation.choice,
    )
    if second is None or second.measured_seconds is not None:
        return words
    ours, theirs, quantity = choice.seconds, second.seconds, _SECONDS
    if recommendation.is_cheapest and choice.dollars is not None and second.dollars is not None:
        ours, theirs, quantity = choice.dollars, second.dollars, _DOLLARS
    if not theirs.median < ours.median:
        return words
    return f"{words} The runner-up is predicted to be {quantity.better}, but no run of it reached the target."


def _side(alternative: Alternative, by_price: bool, trained_seconds: float | None = None) -> _Side:
    """Describes a configuration by its price or its time to target.

    Args:
        alternative: The configuration with its predictions.
        by_price: Whether its price counts. Otherwise, its time does.
        trained_seconds: Measured seconds of the training that verified it; None if there is none.
    """
    seconds = alternative.measured_seconds if trained_seconds is None else trained_seconds
    estimate, rate = alternative.seconds, 1.0
    if by_price and alternative.dollars is not None:
        estimate, rate = alternative.dollars, alternative.dollars_per_second
    value = estimate.median if seconds is None else seconds * rate
    return _Side(alternative=alternative, value=value, estimate=estimate, is_measured=seconds is not None)


def _span_words(side: _Side, quantity: _Quantity) -> str:
    """Describes the value of a configuration, and whether it was measured or predicted."""
    if side.is_measured:
        word = "emulated" if side.alternative.emulated else "measured"
        return f"{quantity.shown(side.value)} ({word})"
    word = "predicted" if side.alternative.is_observed else "not measured"
    return f"{quantity.interval(side.estimate)} ({word})"


def _basis(name: str, side: _Side) -> str:
    has = "have" if name.endswith("s") else "has"
    if side.is_measured:
        return f"{name} {has} reached the target."
    if not side.alternative.is_observed:
        return f"{name} {has} not been measured."
    own = "their" if has == "have" else "its"
    return f"{name} {has} been predicted from {known_words(side.alternative)} of {own} own run."


def _are_distinct(ours: tuple[float, float], theirs: tuple[float, float]) -> bool:
    return ours[1] < theirs[0] or theirs[1] < ours[0] or ours == theirs


def _widened(span: tuple[float, float], power: float) -> tuple[float, float]:
    """Widens an interval on the logarithmic scale around its center; an open interval stays as it is."""
    low, high = span
    if not (0 < low < high < math.inf):
        return span
    center, half = math.sqrt(low * high), math.sqrt(high / low)
    return center / half**power, center * half**power


def _other_quantity(choice: Alternative, baseline: Alternative, by_price: bool) -> str:
    """Returns a sentence, with a leading space, on what the goal does not minimize; empty without prices."""
    if by_price:
        ours, theirs = (format_seconds(side.seconds.median) for side in (choice, baseline))
        return f" Predicted time {ours} against {theirs}."
    if choice.dollars is None or baseline.dollars is None:
        return ""
    ours, theirs = format_dollars(choice.dollars.median), format_dollars(baseline.dollars.median)
    return f" Predicted price {ours} against {theirs}."


def _times(ratio: float, quantity: _Quantity) -> str:
    if max(ratio, 1 / ratio) < _EQUAL_RATIO:
        return f"about {quantity.equal}"
    return f"{format_ratio(max(ratio, 1 / ratio))} {quantity.better if ratio > 1 else quantity.worse}"
