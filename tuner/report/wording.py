"""Describes a recommendation in headlines and sentences, which all kinds of reports show."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuner.advice.interval_check import interval_check, is_inside
from tuner.domain.format import (
    format_chance,
    format_count,
    format_dollar_interval,
    format_dollars,
    format_interval,
    format_seconds,
    format_share,
    format_value,
)
from tuner.domain.ledger import EARLY_SHARE, PredictedAgainstMeasured, ProbeRecord
from tuner.domain.measurement import Purpose
from tuner.domain.recommendation import (
    Alternative,
    Estimate,
    ImportedEvidence,
    Recommendation,
    TuningCost,
    Verification,
)
from tuner.job import Job

#: The text contains the time of the first score that reached the target only if this time is more than this
#: multiple of the time to target, which is interpolated between scores.
_LATE_SCORE = 1.1
#: The text contains the start-up time only if it is at least this share of the training time.
_LEAST_STARTUP_SHARE = 0.05
#: A prediction whose 90% interval spans more than this factor is called a guess.
_GUESS_RATIO = 30.0
#: The text contains the chance of reaching the target only if it is below this value.
_SURE = 0.95
#: Maximum number of sources of imported runs in the text.
_MOST_SOURCES = 3
#: What to do with the recommended values of a job whose trainers Paceline cannot start.
TRAINER_WORDS = (
    "Paceline cannot start your trainer: start it with these values. A trainer that uses paceline_client got "
    "them as work.values, and finds the answer in study.recommendation. Report the real time to target by "
    "`paceline outcome add`, or by POST /api/v1/outcomes."
)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A result in words.

    Args:
        headline: The result in a few words.
        detail: Sentences with the details.
    """

    headline: str
    detail: str


def trust_in(recommendation: Recommendation) -> Finding:
    """Describes how well the recommendation was tested, such as `verified`, `measured` or `provisional`.

    The headline is `emulated` if the recommendation was trained to the target on this host under a virtual
    clock.
    """
    verified = recommendation.verified
    if verified is not None and not verified.reached:
        return Finding(
            headline="not confirmed",
            detail="Its training did not reach the target; check the measured values before relying on it.",
        )
    if verified is not None and recommendation.choice.emulated:
        return Finding(
            headline="emulated",
            detail="Its training to the target was emulated on this host, not run on real nodes.",
        )
    if verified is not None:
        return Finding(headline="verified", detail="It was trained to the target.")
    if recommendation.provisional:
        remedy = "train it with paceline run --verify"
        if recommendation.ended_by_budget:
            remedy += ", or continue the search, with a larger [budget] if it is used up,"
        return Finding(
            headline="provisional",
            detail=f"There is little evidence for this recommendation: {remedy} before relying on it."
            f"{narrow_words(recommendation)}",
        )
    if recommendation.choice.measured_seconds is not None:
        return Finding(headline="measured", detail="A probe of this configuration reached the target.")
    return Finding(
        headline="not verified",
        detail="It was not trained to the target; the time to target is a prediction from shorter probes.",
    )


def prediction(recommendation: Recommendation) -> Finding:
    """Describes the predicted time to target with its 90% interval, and the chance of reaching the target."""
    choice = recommendation.choice
    chance, startup = format_chance(choice.probability_of_reaching), _startup_words(recommendation)
    if choice.measured_seconds is not None:
        return Finding(
            headline=f"about {format_seconds(choice.seconds.median)}",
            detail="Expected if it is trained once more, from its measured time. With another order of the "
            f"data: 90% interval {format_interval(choice.seconds)}.{startup}",
        )
    guess, narrow = _why_a_guess(choice), narrow_words(recommendation)
    headline = f"{format_seconds(choice.seconds.median)} ({format_interval(choice.seconds)})"
    if guess or narrow or recommendation.provisional:
        headline = f"{'a guess' if guess or narrow else 'provisional'}: {headline}"
    return Finding(
        headline=headline,
        detail=f"Median and 90% interval; chance of reaching the target {chance}.{guess}{narrow}{startup}",
    )


def price(recommendation: Recommendation) -> Finding | None:
    """Describes the predicted price of one training with its 90% interval; None if nodes have no price."""
    choice, startup = recommendation.choice, recommendation.startup_seconds
    if choice.dollars is None:
        return None
    more = ""
    if startup is not None and _startup_words(recommendation):
        more = f" Starting the script costs {format_dollars(startup * choice.dollars_per_second)} more."
    return Finding(
        headline=f"{format_dollars(choice.dollars.median)} ({format_dollar_interval(choice.dollars)})",
        detail=f"Median and 90% interval.{more}",
    )


def narrow_words(recommendation: Recommendation) -> str:
    """Returns a sentence, with a leading space, if the study's intervals were too narrow; else nothing."""
    check = recommendation.interval_check
    if check is None or not check.too_narrow:
        return ""
    return (
        f" Only {check.num_inside} of the {check.num_predictions} predicted 90% intervals that this study "
        "could check held the measured time, so the true interval is wider than stated."
    )


def _startup_words(recommendation: Recommendation) -> str:
    """Returns a sentence, with a leading space, that states the start-up time; empty if it is short."""
    seconds, training = recommendation.startup_seconds, recommendation.choice.seconds.median
    if seconds is None or not math.isfinite(training) or seconds < _LEAST_STARTUP_SHARE * training:
        return ""
    return f" Starting the script takes {format_seconds(seconds)} more."


def _why_a_guess(alternative: Alternative) -> str:
    """Returns a sentence, with a leading space, on why a prediction is very uncertain; empty if it is not."""
    seconds = alternative.seconds
    if not alternative.is_observed:
        return " No run of this configuration was measured."
    if seconds.upper > _GUESS_RATIO * seconds.lower:
        return f" The interval spans more than a factor of {_GUESS_RATIO:g}."
    return ""


def measured_word(recommendation: Recommendation) -> str:
    """Returns `emulated` if the configuration was trained under a virtual clock, otherwise `measured`."""
    return "emulated" if recommendation.choice.emulated else "measured"


def measured(recommendation: Recommendation) -> Finding:
    """Describes the measured time to target of the recommendation, and compares it with its prediction."""
    verified, word = recommendation.verified, measured_word(recommendation)
    if verified is None:
        seconds = recommendation.choice.measured_seconds
        if seconds is None:
            if recommendation.choice.is_observed:
                known = known_words(recommendation.choice)
                return Finding(headline="not yet", detail=f"{known} of its run were {word}.")
            return Finding(headline=f"not {word}", detail=f"No run of this configuration was {word}.")
        return Finding(
            headline=format_seconds(seconds), detail="Training seconds of the probe that measured it."
        )
    best = f"best value {format_value(verified.value)}"
    if verified.last_value is not None and verified.last_value != verified.value:
        best += f", last value {format_value(verified.last_value)}"
    if not verified.reached:
        return Finding(
            headline="target not reached",
            detail=f"Trained for {format_seconds(verified.training_seconds)}; {best}.",
        )
    return Finding(
        headline=format_seconds(verified.training_seconds),
        detail=f"{_held_against(verified.training_seconds, verified.predicted, verified.share_observed)} "
        f"{best[0].upper()}{best[1:]}.{_between_scores(verified)}",
    )


def _between_scores(verified: Verification) -> str:
    """Returns a sentence, with a leading space, on the time of the first score that reached the target.

    The sentence is empty unless this time is clearly longer than the time to target, which is interpolated
    between two scores.
    """
    score = verified.first_score_seconds
    if score is None or score < _LATE_SCORE * verified.training_seconds:
        return ""
    return f" The target was reached between two scores; the later one came after {format_seconds(score)}."


def _held_against(seconds: float, predicted: Estimate | None, share_observed: float | None) -> str:
    if predicted is None:
        return "No prediction was made before the run."
    place = "inside" if predicted.lower <= seconds <= predicted.upper else "outside"
    known = "" if share_observed is None else f", made with {format_share(share_observed)} of the run known"
    return (
        f"{place.capitalize()} the 90% interval {format_interval(predicted)} "
        f"(median {format_seconds(predicted.median)}{known})."
    )


def known_words(alternative: Alternative) -> str:
    """Describes how far a configuration was trained: number of samples and training seconds, in words."""
    samples, seconds = alternative.samples_observed, alternative.seconds_observed
    return f"{format_count(samples)} samples ({format_seconds(seconds)})"


def coverage(checked: Sequence[PredictedAgainstMeasured]) -> str:
    """Returns a sentence with the number of measured times inside their predicted 90% intervals.

    Predictions that were made early in a run are counted a second time, separately.
    """
    verdicts = [(check.share_observed, is_inside(check)) for check in checked]
    judged = [(share, inside) for share, inside in verdicts if inside is not None]
    if not judged:
        return "No predicted run has reached the target yet, so the intervals are unchecked for this job."
    words = f"{sum(inside for _, inside in judged)} of {len(judged)} inside their 90% interval"
    check = interval_check(checked)
    if check is not None and check.too_narrow:
        words += ", too few for intervals of 90%: the intervals of this study are too narrow"
    early = [inside for share, inside in judged if share <= EARLY_SHARE]
    limit = format_share(EARLY_SHARE)
    if not early:
        return f"{words}; all were made with more than {limit} of the run known, so this says little."
    if len(early) < len(judged):
        words += f"; {sum(early)} of {len(early)} of those made with at most {limit} of the run known"
    return f"{words}."


def no_curves(probes: Sequence[ProbeRecord], job: Job) -> str:
    """Returns sentences on why there are no metric curves, and what the user can change."""
    trained = [probe for probe in probes if probe.purpose is not Purpose.TIMING]
    if not trained:
        return "There are no curves, because no probe trained a model. Raise the limits in [budget]."
    words = "There are no curves, because no score of a trained model was read."
    if all(probe.outcome.is_fault for probe in trained):
        return f"{words} Every probe failed; correct the errors that are shown with the probes."
    if job.runs_command:
        return (
            f"{words} `paceline check` shows which lines of the script match [workload.metrics]; if the "
            "first score only comes later, raise the limits in [budget]."
        )
    return f"{words} Raise the limits in [budget], or evaluate earlier (decrease probe.first_score_samples)."


def own_command_end(recommendation: Recommendation) -> str:
    """Returns sentences on when the user's own command ends, and how long it has to train to the target."""
    words = "It does not stop at the target; it ends when the script ends by itself."
    if "$PACELINE_NODE_RANK" in recommendation.user_command:
        words = (
            "Run it on each node, with the number of the node from 0 in PACELINE_NODE_RANK, the address of "
            "node 0 in PACELINE_MAIN_ADDRESS and a free port of it in PACELINE_MAIN_PORT; launch.sh does "
            f"this. {words}"
        )
    samples = recommendation.training_samples
    if samples is None:
        return words
    steps = math.ceil(samples / recommendation.choice.configuration.batch_size)
    needed = [f"{samples:,} samples", f"{steps:,} steps"]
    if recommendation.training_epochs is not None:
        epochs = recommendation.training_epochs
        needed.append(f"{epochs:.2g} epochs" if epochs < 10 else f"{math.ceil(epochs):,} epochs")
    chance, after = recommendation.choice.probability_of_reaching, " = ".join(needed)
    reached = f"With 95% probability it reaches the target within {after}"
    if chance < _SURE:
        chances = format_chance(chance)
        reached = (
            f"If it reaches the target (chance {chances}), it does so within {after} with 95% probability"
        )
    return (
        f"{words} {reached}. Set the script's own limit to this, unless its learning-rate schedule depends "
        "on the limit."
    )


def values_as_json(values: Mapping[str, float | int | str]) -> str:
    """Returns the values for a remote trainer in one line of JSON, as the REST API sends them."""
    return json.dumps(dict(values))


def imported_finding(imported: ImportedEvidence) -> Finding:
    """Describes the imported runs: their number, their sources, and their weight as a prior of the models."""
    shown = ", ".join(imported.sources[:_MOST_SOURCES])
    more = len(imported.sources) - _MOST_SOURCES
    where = f"{shown} and {more} more" if more > 0 else shown
    runs = "1 run" if imported.num_runs == 1 else f"{imported.num_runs} runs"
    weights = [f"{format_share(weight)} for {name}" for name, weight in imported.weights.items()]
    counts = (
        f"Present weight of this prior: {' and '.join(weights)}."
        if weights
        else "The runs inform only the shape of the metric curves, not the parameters of the models."
    )
    return Finding(
        headline=f"{runs} from {where}",
        detail=f"They are a prior of the models. None of them is a measured result of this job. {counts}",
    )


def spent(tuning: TuningCost) -> str:
    """Describes the time and price of the search; the elapsed time comes first if probes ran concurrently."""
    words = format_seconds(tuning.seconds)
    if tuning.elapsed_seconds is not None:
        words = f"{format_seconds(tuning.elapsed_seconds)}, {words} of probes, some of which ran concurrently"
    return f"{words}, {format_dollars(tuning.dollars)}" if tuning.dollars else words
