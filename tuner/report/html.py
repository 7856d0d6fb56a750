"""`report.html`: one self-contained page, the decision on top and the evidence below it."""

from __future__ import annotations

from importlib import resources

from tuner.domain.format import format_moment
from tuner.report.content import ReportContent
from tuner.report.headline import headline_section
from tuner.report.markup import Markup, element
from tuner.report.palette import batch_shades
from tuner.report.sections import (
    checked_section,
    choices_section,
    confirmation_section,
    curves_section,
    grounds_section,
    landscape_section,
    probes_section,
    spending_section,
    strategies_section,
    timing_section,
    turning_points_section,
)


def report_html(content: ReportContent) -> str:
    """The whole page as text; it refers to nothing outside itself and runs no script."""
    style = resources.files("tuner.report").joinpath("page.css").read_text(encoding="utf-8")
    job_name = content.recommendation.job_name
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", f"Paceline: {job_name}"),
        element("style", Markup(style)),
    )
    sections = (
        headline_section(content),
        landscape_section(content),
        choices_section(content),
        confirmation_section(content),
        strategies_section(content),
        turning_points_section(content),
        curves_section(
            content.probes,
            content.job,
            content.recommendation.choice.configuration,
            batch_shades(content.probes, content.landscape),
        ),
        checked_section(content),
        spending_section(content),
        timing_section(content),
        grounds_section(content),
        probes_section(content),
    )
    shown = [section for section in sections if section is not None]
    body = element("body", element("main", *shown, _footer(content)))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _footer(content: ReportContent) -> Markup:
    recommendation = content.recommendation
    words = (
        f"Study {recommendation.study_name}, {format_moment(recommendation.made_at)}. Intervals are central "
        "90% intervals. The numbers unrounded: recommendation.json and trials.csv."
    )
    return element("footer", words)
