"""Sentences of a report, shared by all renderers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuner.domain.format import (
    format_dollars,
    format_interval,
    format_ratio,
    format_seconds,
    format_share,
    format_value,
)
from tuner.domain.recommendation import Alternative, Estimate, Recommendation
from tuner.ledger.records import EARLY_SHARE, PredictedAgainstMeasured

#: Times closer than this ratio are called equal.
_EQUAL_RATIO = 1.05


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A headline, and a sentence with its details.

    Args:
        headline: The few words.
        detail: The sentence.
    """

    headline: str
    detail: str


def trust_in(recommendation: Recommendation) -> Finding:
    """How far the recommendation can be trusted: verified, emulated, measured, predicted or provisional."""
    verified = recommendation.verified
    if verified is not None and not verified.reached:
        return Finding(
            headline="not confirmed",
            detail="Training it did not reach the target; see what was measured before relying on it.",
        )
    if verified is not None and recommendation.choice.emulated:
        return Finding(
            headline="emulated", detail="It was emulated to the target, not trained on real nodes."
        )
    if verified is not None:
        return Finding(headline="verified", detail="It was trained to the target.")
    if recommendation.provisional:
        return Finding(
            headline="provisional",
            detail="It rests on less evidence than it should: "
            "give the search more budget before relying on it.",
        )
    if recommendation.choice.measured_seconds is not None:
        return Finding(headline="measured", detail="A probe of it reached the target.")
    return Finding(
        headline="not verified",
        detail="It was not trained to the target; its time is a prediction from shorter probes.",
    )


def prediction(recommendation: Recommendation) -> Finding:
    """The predicted time to target with its interval and the chance of reaching it."""
    choice = recommendation.choice
    chance = format_share(choice.probability_of_reaching)
    if choice.measured_seconds is not None:
        return Finding(
            headline=f"about {format_seconds(choice.seconds.median)} again",
            detail=f"With another order of the data: 90% interval {format_interval(choice.seconds)}.",
        )
    return Finding(
        headline=format_seconds(choice.seconds.median),
        detail=f"90% interval {format_interval(choice.seconds)}; chance of reaching the target {chance}.",
    )


def measured_word(recommendation: Recommendation) -> str:
    """What happened to the choice's run: it was measured on real ranks, or emulated."""
    return "emulated" if recommendation.choice.emulated else "measured"


def measured(recommendation: Recommendation) -> Finding:
    """What training the recommendation took, compared with the prediction."""
    verified, word = recommendation.verified, measured_word(recommendation)
    if verified is None:
        seconds = recommendation.choice.measured_seconds
        if seconds is None:
            share = recommendation.choice.share_known
            if share:
                return Finding(headline="not yet", detail=f"{format_share(share)} of its run was {word}.")
            return Finding(headline=f"not {word}", detail=f"No run of it was {word}.")
        return Finding(headline=format_seconds(seconds), detail="Training seconds of its probe.")
    best = f"best value {format_value(verified.value)}"
    if not verified.reached:
        return Finding(
            headline="target not reached",
            detail=f"Trained for {format_seconds(verified.training_seconds)}; {best}.",
        )
    return Finding(
        headline=format_seconds(verified.training_seconds),
        detail=f"{_held_against(verified.training_seconds, verified.predicted, verified.share_known)} "
        f"{best[0].upper()}{best[1:]}.",
    )


def _held_against(seconds: float, predicted: Estimate | None, share_known: float | None) -> str:
    if predicted is None:
        return "There is no prediction from before the run to compare it with."
    place = "inside" if predicted.lower <= seconds <= predicted.upper else "outside"
    known = "" if share_known is None else f", made with {format_share(share_known)} of the run known"
    return (
        f"{place.capitalize()} the 90% interval {format_interval(predicted)} "
        f"(median {format_seconds(predicted.median)}{known})."
    )


def comparison(recommendation: Recommendation) -> Finding:
    """The recommendation against the user's present settings, with what the comparison rests on."""
    choice, baseline = recommendation.choice, recommendation.baseline
    if baseline is None:
        return Finding(
            headline="no baseline",
            detail="There are no present settings to compare with: the job states none, or they cannot run.",
        )
    if baseline.configuration == choice.configuration:
        return Finding(headline="keep them", detail="The present settings are the best that was found.")
    ours, ours_measured = _time_of_choice(recommendation)
    theirs, theirs_measured = _known_time(baseline)
    if not math.isfinite(theirs):
        chance = format_share(baseline.probability_of_reaching)
        return Finding(
            headline="they may never reach it",
            detail=f"The present settings are not expected to reach the target (chance {chance}).",
        )
    if not math.isfinite(ours) or ours <= 0:
        return Finding(headline="unclear", detail="The time of the recommendation has no finite median.")
    distinct = _are_distinct(_span(choice, ours, ours_measured), _span(baseline, theirs, theirs_measured))
    caution = "" if distinct else " The intervals overlap: the difference is likely, not certain."
    own = "" if ours_measured else " The recommendation's own time is a prediction."
    if ours_measured and not theirs_measured and theirs < ours:
        # The search ended with the first run at the target; a short probe of the other is no result.
        return Finding(
            headline="not compared to the end",
            detail="The search ended when the first run reached the target. "
            f"{_present(baseline, theirs, False)}{caution}",
        )
    prices = _prices(choice, baseline)
    return Finding(
        headline=_times(theirs / ours, "sooner", "later", "as fast"),
        detail=f"{_present(baseline, theirs, theirs_measured)}{own}{caution}{prices}",
    )


def _known_time(alternative: Alternative) -> tuple[float, bool]:
    if alternative.measured_seconds is not None:
        return alternative.measured_seconds, True
    return alternative.seconds.median, False


def _time_of_choice(recommendation: Recommendation) -> tuple[float, bool]:
    verified = recommendation.verified
    if verified is not None and verified.reached:
        return verified.training_seconds, True
    return _known_time(recommendation.choice)


def _present(baseline: Alternative, seconds: float, is_measured: bool) -> str:
    if is_measured:
        return f"The present settings took {format_seconds(seconds)}, measured."
    would = f"The present settings would take {format_seconds(seconds)}"
    if baseline.share_known == 0:
        return f"{would} by prediction alone: they were never measured."
    return f"{would}, predicted with {format_share(baseline.share_known)} of their run measured."


def _span(alternative: Alternative, known: float, is_measured: bool) -> tuple[float, float]:
    if is_measured:
        return known, known
    return alternative.seconds.lower, alternative.seconds.upper


def _are_distinct(ours: tuple[float, float], theirs: tuple[float, float]) -> bool:
    return ours[1] < theirs[0] or theirs[1] < ours[0] or ours == theirs


def _prices(choice: Alternative, baseline: Alternative) -> str:
    if choice.dollars is None or baseline.dollars is None:
        return ""
    ours, theirs = format_dollars(choice.dollars.median), format_dollars(baseline.dollars.median)
    return f" Predicted price {ours} against {theirs}."


def _times(ratio: float, better: str, worse: str, equal: str) -> str:
    if max(ratio, 1 / ratio) < _EQUAL_RATIO:
        return f"about {equal}"
    return f"{format_ratio(ratio)} {better}" if ratio > 1 else f"{format_ratio(1 / ratio)} {worse}"


def estimate_of(quantiles: Mapping[float, float]) -> Estimate | None:
    """Median and 90% interval from stored quantiles; None where those levels were not stored."""
    by_level = {round(float(level), 6): value for level, value in quantiles.items()}
    levels = (0.05, 0.5, 0.95)
    if any(level not in by_level or math.isnan(by_level[level]) for level in levels):
        return None
    lower, median, upper = (by_level[level] for level in levels)
    return Estimate(lower=lower, median=median, upper=upper)


def is_inside(check: PredictedAgainstMeasured) -> bool | None:
    """Whether what was measured lies in the predicted 90% interval; None where none was stored."""
    predicted = estimate_of(check.prediction.quantiles)
    if predicted is None:
        return None
    return predicted.lower <= check.measured_seconds <= predicted.upper


def coverage(checked: Sequence[PredictedAgainstMeasured]) -> str:
    """How many predictions held, in words; those made early are counted separately."""
    verdicts = [(check.share_known, is_inside(check)) for check in checked]
    judged = [(share, inside) for share, inside in verdicts if inside is not None]
    if not judged:
        return "No predicted run has reached the target yet, so the intervals are unchecked on this job."
    words = f"{sum(inside for _, inside in judged)} of {len(judged)} inside their 90% interval"
    early = [inside for share, inside in judged if share <= EARLY_SHARE]
    limit = format_share(EARLY_SHARE)
    if not early:
        return f"{words}; none was made with at most {limit} of its run known, so this says little."
    if len(early) < len(judged):
        words += f"; {sum(early)} of {len(early)} of those made with at most {limit} of the run known"
    return f"{words}."
