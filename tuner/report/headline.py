"""The top of the page: what is recommended, how long it takes, and how far to trust it."""

from __future__ import annotations

from tuner.domain.format import format_configuration, format_dollar_interval, format_dollars, sentence
from tuner.report.confirmed import confirmation_finding
from tuner.report.content import ReportContent
from tuner.report.findings import (
    Finding,
    comparison,
    measured,
    measured_word,
    own_command_end,
    prediction,
    trust_in,
)
from tuner.report.imported import imported_finding
from tuner.report.markup import Markup, element

#: More warnings than this stand only under what the recommendation rests on.
_MOST_WARNINGS = 3


def headline_section(content: ReportContent) -> Markup:
    """The answer, the facts that make it checkable, the command, and the first warnings."""
    recommendation = content.recommendation
    trust = trust_in(recommendation)
    good = trust.headline in ("verified", "emulated", "measured")
    badge = element("span", trust.headline, class_=f"badge {'good' if good else 'warn'}")
    choice = recommendation.choice
    facts = [
        _fact("predicted time to target", prediction(recommendation)),
        _fact(f"{measured_word(recommendation)} time to target", measured(recommendation)),
        _fact("against the present settings", comparison(recommendation)),
    ]
    if recommendation.confirmation is not None:
        facts.append(_fact("trained again with new seeds", confirmation_finding(recommendation.confirmation)))
    if recommendation.imported is not None:
        facts.append(_fact("imported runs", imported_finding(recommendation.imported)))
    if choice.dollars is not None:
        price = f"90% interval {format_dollar_interval(choice.dollars)}."
        paid = Finding(headline=format_dollars(choice.dollars.median), detail=price)
        facts.append(_fact("predicted price of one training", paid))
    title = format_configuration(choice.configuration)
    parts = [
        element("div", f"Paceline recommends for {recommendation.job_name}", class_="eyebrow"),
        element("h1", f"{title[0].upper()}{title[1:]} ", badge),
        element("div", f"Goal: {recommendation.goal}. {trust.detail}", class_="muted"),
        element("dl", *facts, class_="facts"),
    ]
    if recommendation.command.strip():
        by_own = bool(recommendation.own_command)
        parts.append(element("h3", "Train it" if by_own else "Train it (also in launch.sh)"))
        parts.append(element("pre", recommendation.command.strip(), class_="command"))
    if recommendation.own_command.strip():
        parts.append(
            element("p", "Your own command with these values, without Paceline (also in launch.sh):")
        )
        parts.append(element("pre", recommendation.own_command.strip(), class_="command"))
        parts.append(element("p", own_command_end(recommendation), class_="muted"))
    if recommendation.checkpoint:
        parts.append(element("h3", "The trained model"))
        parts.append(element("pre", recommendation.checkpoint, class_="command"))
    shown = recommendation.warnings[:_MOST_WARNINGS]
    parts += [element("div", element("p", sentence(warning)), class_="note") for warning in shown]
    more = len(recommendation.warnings) - len(shown)
    if more > 0:
        parts.append(element("p", f"{more} more under “What it rests on”.", class_="muted"))
    return element("section", *parts)


def _fact(title: str, finding: Finding) -> Markup:
    return element(
        "div",
        element("dt", title),
        element("dd", finding.headline, class_="large"),
        element("dd", finding.detail, class_="detail"),
    )
