"""Formats a recommendation as plain text for the terminal."""

from __future__ import annotations

import textwrap

from tuner.domain.format import (
    format_chance,
    format_configuration,
    format_dollar_interval,
    format_dollars,
    format_interval,
    format_seconds,
    sentence,
)
from tuner.domain.recommendation import Recommendation
from tuner.report.confirmation import confirmation_finding
from tuner.report.present_settings import comparison
from tuner.report.wording import (
    TRAINER_WORDS,
    Finding,
    imported_finding,
    measured,
    measured_word,
    own_command_end,
    prediction,
    price,
    spent,
    trust_in,
    values_as_json,
)

_WIDTH = 100
_LABEL_WIDTH = 18
#: Maximum number of sentences on changes of the cluster that would change the recommendation; the report
#: shows all.
_MOST_TURNS = 3
#: The chance of reaching the target is stated with a predicted time if it is lower.
_SURE = 0.95


def recommendation_text(recommendation: Recommendation) -> str:
    """Returns a recommendation as text: configuration, times, comparison, warnings, cost and commands."""
    choice, tuning = recommendation.choice, recommendation.tuning
    trust = trust_in(recommendation)
    lines = [
        f"Recommended for {recommendation.job_name} ({trust.headline})",
        f"  {format_configuration(choice.configuration)}",
        "",
        *_fact("goal", recommendation.goal),
        *_fact("predicted", _words(prediction(recommendation))),
    ]
    cost = price(recommendation)
    if cost is not None:
        lines += _fact("price", _words(cost))
    lines += _fact(measured_word(recommendation), _words(measured(recommendation)))
    lines += _fact("compared with now", _words(comparison(recommendation)))
    if recommendation.confirmation is not None:
        by_price = recommendation.is_cheapest
        found = confirmation_finding(recommendation.confirmation, by_price=by_price)
        lines += _fact("with new seeds", _words(found))
    if recommendation.imported is not None:
        lines += _fact("imported runs", _words(imported_finding(recommendation.imported)))
    if recommendation.runner_up is not None:
        second = recommendation.runner_up
        known = second.measured_seconds
        time = f"{format_seconds(second.seconds.median)} ({format_interval(second.seconds)}) predicted"
        time = time if known is None else f"{format_seconds(known)} measured"
        if known is None and second.probability_of_reaching < _SURE:
            time += f" if it reaches the target (chance {format_chance(second.probability_of_reaching)})"
        if second.dollars is not None:
            dollars = format_dollars(second.dollars.median)
            time += f", {dollars} ({format_dollar_interval(second.dollars)})"
        words = f"{format_configuration(second.configuration)}: {time}"
        lines += _fact("runner-up", words)
    if recommendation.strategies:
        lines += _fact("strategy", sentence(recommendation.strategies[0].comparison))
    lines += _fact("trust", trust.detail)
    for turn in recommendation.sensitivity[:_MOST_TURNS]:
        lines += _fact("would change it", turn)
    for warning in recommendation.warnings:
        lines += _fact("warning", sentence(warning))
    tuned = f"{spent(tuning)}, probes: {tuning.num_probes}"
    lines += _fact("tuning", f"{tuned}. {sentence(recommendation.stop_reason)}")
    if recommendation.checkpoint:
        lines += _fact("trained model", recommendation.checkpoint, wrap=False)
    if recommendation.command.strip():
        lines += ["", f"  {recommendation.command.strip()}"]
    if recommendation.trainer_values:
        lines += ["", f"  {values_as_json(recommendation.trainer_values)}"]
        lines += textwrap.wrap(TRAINER_WORDS, _WIDTH, initial_indent="  ", subsequent_indent="  ")
    if recommendation.user_command.strip():
        lines += ["", f"  {recommendation.user_command.strip()}"]
        words = own_command_end(recommendation)
        lines += textwrap.wrap(words, _WIDTH, initial_indent="  ", subsequent_indent="  ")
    return "\n".join(lines) + "\n"


def _words(finding: Finding) -> str:
    return f"{finding.headline}. {finding.detail}"


def _fact(label: str, words: str, *, wrap: bool = True) -> list[str]:
    head = f"  {label:<{_LABEL_WIDTH}}"
    if not wrap:
        return [head + words]
    return textwrap.wrap(
        words, _WIDTH, initial_indent=head, subsequent_indent=" " * len(head), break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip
