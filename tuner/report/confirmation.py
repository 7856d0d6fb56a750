"""Describes a confirmation: the recommendation and the present settings, each trained with new seeds."""

from __future__ import annotations

from dataclasses import replace

from tuner.domain.confirmation import Confirmation, ConfirmedSettings, ConfirmedTraining
from tuner.domain.format import ABSENT, format_dollars, format_ratio, format_seconds
from tuner.report.tables import Table
from tuner.report.wording import Finding


def confirmation_finding(confirmation: Confirmation, *, by_price: bool = False) -> Finding:
    """Describes whether the recommendation reached the target sooner than the present settings.

    The text contains the ratio of the times to target with its 90% interval.

    Args:
        confirmation: The trainings.
        by_price: Whether the goal is the lowest cost, so that the headline compares prices.
    """
    recommended, present = confirmation.recommended, confirmation.baseline
    counts = f"{_counted('The recommendation', recommended)}; {_counted('the present settings', present)}."
    notes = _notes(confirmation)
    if not recommended.trainings or not present.trainings:
        return Finding(headline="not finished", detail=f"{counts}{notes}")
    by_price = by_price and confirmation.price_ratio is not None
    words = ("cheaper", "more expensive") if by_price else ("sooner", "later")
    compared = _priced(confirmation) if by_price else confirmation
    if confirmation.speedup is None or compared.speedup is None:
        detail, headline = _bound(confirmation, words).detail, _bound(compared, words).headline
        return Finding(headline=headline, detail=f"{detail} {counts}{notes}")
    return Finding(
        headline=_headline(compared, compared.speedup, words),
        detail=f"{_interval(confirmation, confirmation.speedup)} {counts}{_price(confirmation)}{notes}",
    )


def confirmation_table(confirmation: Confirmation) -> Table:
    """Returns a table of the times to target of both configurations: one row per seed, then the medians."""
    recommended = {t.seed: t for t in confirmation.recommended.trainings}
    present = {t.seed: t for t in confirmation.baseline.trainings}
    rows = [
        (str(seed), _time(recommended.get(seed)), _time(present.get(seed)))
        for seed in sorted({*recommended, *present})
    ]
    medians = [_median(settings) for settings in (confirmation.recommended, confirmation.baseline)]
    return Table(
        columns=("seed", "recommendation", "present settings"),
        rows=(*rows, ("median", medians[0], medians[1])),
    )


def _priced(confirmation: Confirmation) -> Confirmation:
    """Returns a confirmation whose ratios are those of the prices instead of the times."""
    price = confirmation.price_ratio or 1.0

    def priced(ratio: float | None) -> float | None:
        return None if ratio is None else ratio * price

    lower, upper = priced(confirmation.lower), priced(confirmation.upper)
    return replace(
        confirmation,
        speedup=priced(confirmation.speedup),
        lower=lower,
        upper=upper,
        at_least=priced(confirmation.at_least),
        at_most=priced(confirmation.at_most),
        is_significant=None if lower is None or upper is None else lower > 1.0 or upper < 1.0,
    )


def _headline(confirmation: Confirmation, speedup: float, better_worse: tuple[str, str]) -> str:
    if confirmation.is_significant is False:
        return "no difference shown"
    lower, upper = confirmation.lower, confirmation.upper
    words, ends = f"{format_ratio(speedup)} {better_worse[0]}", (lower, upper)
    if speedup < 1:
        words = f"{format_ratio(1 / speedup)} {better_worse[1]}"
        ends = (1 / upper if upper else None), (1 / lower if lower else None)
    if ends[0] is None or ends[1] is None:
        return f"{words}, one training each"
    return f"{words} ({format_ratio(ends[0])} to {format_ratio(ends[1])})"


def _interval(confirmation: Confirmation, speedup: float) -> str:
    """Returns a sentence with the ratio of the times to target and its 90% interval."""
    ratio = (
        f"The present settings take {format_ratio(speedup)} as long as the recommendation (geometric mean)"
    )
    lower, upper = confirmation.lower, confirmation.upper
    if lower is None or upper is None:
        return f"{ratio}. One training of each has no spread, so there is no interval."
    words = f"{ratio}, 90% interval {format_ratio(lower)} to {format_ratio(upper)}"
    return f"{words}." if confirmation.is_significant else f"{words}, which includes 1."


def _bound(confirmation: Confirmation, better_worse: tuple[str, str]) -> Finding:
    """Describes the bound on the ratio of the times to target, for trainings that missed the target."""
    missed = "Some trainings did not reach the target, so there is no ratio"
    if confirmation.at_least is not None:
        bound = format_ratio(confirmation.at_least)
        return Finding(
            headline=f"at least {bound} {better_worse[0]}"
            if confirmation.at_least > 1
            else "no difference shown",
            detail=f"{missed}: the present settings take at least {bound} as long as the recommendation.",
        )
    if confirmation.at_most is not None:
        bound = format_ratio(confirmation.at_most)
        return Finding(
            headline="not confirmed",
            detail=f"{missed}: the present settings take at most {bound} as long as the recommendation.",
        )
    return Finding(headline="not confirmed", detail=f"{missed} and no bound.")


def _counted(name: str, settings: ConfirmedSettings) -> str:
    words = f"{name} reached the target in {settings.num_reached} of {len(settings.trainings)} trainings"
    if settings.median_seconds is None:
        return words
    return f"{words} (median {format_seconds(settings.median_seconds)})"


def _price(confirmation: Confirmation) -> str:
    """Returns a sentence, with a leading space, that states the ratio of the prices of both configurations.

    The sentence is empty if both configurations cost the same per second, or if there is no ratio of times.
    """
    ratio, speedup = confirmation.price_ratio, confirmation.speedup
    if ratio is None or ratio == 1.0 or speedup is None:
        return ""
    words = f" The present settings cost {format_ratio(speedup * ratio)} as much"
    if confirmation.lower is None or confirmation.upper is None:
        return f"{words}."
    ends = f"{format_ratio(confirmation.lower * ratio)} to {format_ratio(confirmation.upper * ratio)}"
    return f"{words} (90% interval {ends})."


def _notes(confirmation: Confirmation) -> str:
    """Returns sentences, with a leading space, on unfinished trainings, a missing seed option and cost."""
    words = ""
    if confirmation.num_unfinished:
        words += f" Trainings not finished: {confirmation.num_unfinished}."
    if not confirmation.uses_seed:
        words += (
            " The command takes no seed; if the script fixes its seed, only the machine causes the spread."
        )
    words += f" All trainings together took {format_seconds(confirmation.seconds)}"
    return words + (f" and cost {format_dollars(confirmation.dollars)}." if confirmation.dollars else ".")


def _time(training: ConfirmedTraining | None) -> str:
    if training is None:
        return ABSENT
    seconds = format_seconds(training.training_seconds)
    if training.reached:
        return seconds
    return f"not reached in {seconds} ({training.outcome.replace('_', ' ')})"


def _median(settings: ConfirmedSettings) -> str:
    return ABSENT if settings.median_seconds is None else format_seconds(settings.median_seconds)
