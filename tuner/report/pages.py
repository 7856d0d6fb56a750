"""Renders `report.html` and `report.md` from the Jinja templates in `templates/`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from search_spaces import Configuration
from tuner.domain.format import (
    format_configuration,
    format_count,
    format_moment,
    format_seconds,
    format_share,
    sentence,
)
from tuner.domain.ledger import EARLY_SHARE, PredictedAgainstMeasured, ProbeRecord
from tuner.domain.measurement import Outcome
from tuner.domain.recommendation import Recommendation
from tuner.domain.safe_text import printable
from tuner.job import Job
from tuner.report import tables, wording
from tuner.report.analysis_section import analysis_charts, analysis_context
from tuner.report.charts import (
    MAX_CHECKS,
    MAX_CURVES,
    batch_shades,
    checked_chart,
    curve_charts,
    curves_of,
    landscape_charts,
    shades_of,
    unreachable_words,
)
from tuner.report.confirmation import confirmation_finding, confirmation_table
from tuner.report.content import AnalysisContent, ReportContent, UnansweredContent
from tuner.report.present_settings import comparison
from tuner.report.tables import Table
from tuner.report.wording import Finding

_MARKDOWN_SPECIAL = re.compile(r"([\\`*_\[\]<>|#])")


def report_html(content: ReportContent, context: Mapping[str, Any] | None = None) -> str:
    """Returns the HTML page of a recommendation, which needs no other files and no JavaScript.

    Args:
        content: Data of the report.
        context: Result of `report_context` for the same data, to save time; None to make it.
    """
    shades = batch_shades(content.probes, content.landscape)
    answer = content.recommendation
    return _html("report.html.j2").render(
        context or report_context(content),
        landscape_charts=landscape_charts(content.landscape, answer, shades),
        curves=_curves(content.probes, content.job, answer.choice.configuration, shades),
        checked_chart=checked_chart(content.checked),
        **analysis_charts(content.analysis, shades),
    )


def analysis_html(content: AnalysisContent) -> Markup:
    """Returns the sections of the report that the page of a job of the service shows, too.

    They have no inline styles; `static/base.css` has their styles.
    """
    answer = content.recommendation
    forecasts = answer.analysis.curve_forecasts if answer.analysis else ()
    shades = shades_of({forecast.configuration.batch_size for forecast in forecasts})
    rendered = _html("service.html.j2").render(
        answer=answer,
        checked_chart=checked_chart(content.checked),
        **analysis_context(answer),
        **_checked_context(content.checked),
        **analysis_charts(content, shades),
    )
    return Markup(printable(rendered))


def report_markdown(content: ReportContent, context: Mapping[str, Any] | None = None) -> str:
    """Returns the report of a recommendation in Markdown, with tables instead of charts.

    Args:
        content: Data of the report.
        context: Result of `report_context` for the same data, to save time; None to make it.
    """
    return _markdown("report.md.j2").render(context or report_context(content))


def unanswered_html(content: UnansweredContent) -> str:
    """Returns the HTML page of a search that ended without a recommendation."""
    shades = batch_shades(content.probes)
    curves = _curves(content.probes, content.job, None, shades)
    return _html("unanswered.html.j2").render(_unanswered_context(content), curves=curves)


def unanswered_markdown(content: UnansweredContent) -> str:
    """Returns the report of a search that ended without a recommendation, in Markdown."""
    return _markdown("unanswered.md.j2").render(_unanswered_context(content))


def report_context(content: ReportContent) -> dict[str, Any]:
    """Returns the tables and words that the HTML page and the Markdown text have in common."""
    answer = content.recommendation
    timed = tables.timed_probes(content.probes)
    return {
        **vars(content),
        "job_name": answer.job_name,
        "study_name": answer.study_name,
        "created_at": answer.created_at,
        "answer": answer,
        "trust": wording.trust_in(answer),
        "facts": _facts(answer),
        "trainer_words": wording.TRAINER_WORDS,
        "own_command_end": wording.own_command_end(answer),
        "landscape_table": tables.landscape_table(content.landscape),
        "unreachable": unreachable_words(content.landscape),
        "choices_table": tables.choices_table(answer),
        "confirmation_table": confirmation_table(answer.confirmation) if answer.confirmation else None,
        "strategies_table": tables.strategies_table(answer),
        **_checked_context(content.checked),
        **analysis_context(answer),
        "spent": wording.spent(answer.tuning),
        "spending_tables": [
            tables.spending_table(seconds, title)
            for seconds, title in (
                (answer.tuning.seconds_by_purpose, "purpose"),
                (answer.tuning.seconds_by_part, "part"),
            )
            if seconds
        ],
        "timed": [(probe.configuration, tables.ranks_table(seen)) for probe, seen in timed],
        "timing_table": tables.timing_table(content.probes),
        "shares_cores": any(seen.oversubscribed for _, seen in timed),
        **_probes_context(content.probes, content.job),
    }


def _checked_context(checked: Sequence[PredictedAgainstMeasured]) -> dict[str, Any]:
    return {
        "checked": checked,
        "checked_table": tables.checked_table(checked),
        "coverage": wording.coverage(checked),
        "early_share": EARLY_SHARE,
        "max_checks": MAX_CHECKS,
    }


def _facts(answer: Recommendation) -> list[tuple[str, Finding]]:
    facts = [
        ("predicted time to target", wording.prediction(answer)),
        (f"{wording.measured_word(answer)} time to target", wording.measured(answer)),
        ("against the present settings", comparison(answer)),
    ]
    if answer.confirmation is not None:
        facts.append(
            (
                "trained again with new seeds",
                confirmation_finding(answer.confirmation, by_price=answer.is_cheapest),
            )
        )
    if answer.imported is not None:
        facts.append(("imported runs", wording.imported_finding(answer.imported)))
    price = wording.price(answer)
    if price is not None:
        facts.append(("predicted price of one training", price))
    return facts


def _unanswered_context(content: UnansweredContent) -> dict[str, Any]:
    return {
        **vars(content),
        "job_name": content.job.name,
        "spent": wording.spent(content.tuning),
        "num_probes": content.tuning.num_probes,
        **_probes_context(content.probes, content.job),
    }


def _probes_context(probes: Sequence[ProbeRecord], job: Job) -> dict[str, Any]:
    failed = []
    for probe in probes:
        error = None if probe.measurement is None else probe.measurement.error
        if error or (probe.reason and probe.outcome in (Outcome.OUT_OF_MEMORY, Outcome.DIVERGED)):
            ended = "can resume" if probe.outcome.can_continue else probe.outcome.value.replace("_", " ")
            failed.append({"name": probe.name, "ended": ended, "reason": probe.reason, "error": error})
    return {
        "probes": probes,
        "probes_table": tables.probes_table(probes, maximize=job.goal.maximize),
        "probes_note": tables.PROBES_NOTE,
        "failed": failed,
    }


def _curves(
    probes: Sequence[ProbeRecord], job: Job, choice: Configuration | None, shades: Mapping[int, str]
) -> dict[str, Any]:
    curves = curves_of(probes, choice, shades)
    charts = curve_charts(curves, job)
    return {
        "charts": charts,
        "empty_words": "" if charts else wording.no_curves(probes, job),
        "any_recommended": any(curve.recommended for curve in curves),
        "any_diverged": any(curve.diverged for curve in curves),
        "num_hidden": max(0, len(curves) - MAX_CURVES),
        "legend": [(shades[b], b) for b in sorted({c.probe.configuration.batch_size for c in curves})],
    }


@cache
def _environment(*, html: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader("tuner.report"),
        autoescape=html,
        # Jinja escapes values for HTML only; for Markdown, `_escaped` does it.
        finalize=None if html else _escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "capital": lambda words: f"{words[0].upper()}{words[1:]}",
        "configuration": format_configuration,
        "count": format_count,
        "moment": format_moment,
        "seconds": format_seconds,
        "sentence": sentence,
        "share": format_share,
        "largest_first": _largest_first,
        "fenced": _fenced,
        "json_values": wording.values_as_json,
        "sentences": _sentences,
        "table": _table_markdown,
    }
    return environment


def _html(name: str) -> Template:
    folder = resources.files("tuner.report")
    sheets = (folder / "static" / "base.css", folder / "templates" / "page.css")
    css = Markup("".join(sheet.read_text(encoding="utf-8") for sheet in sheets))
    return _environment(html=True).get_template(name, globals={"css": css})


def _markdown(name: str) -> Template:
    return _environment(html=False).get_template(name)


def _largest_first(seconds_by_name: Mapping[str, float]) -> list[tuple[str, float, float]]:
    """Returns (name, seconds, share of the total) of each entry above 0 seconds, the largest entry first."""
    total = sum(seconds_by_name.values())
    parts = [(name, seconds, seconds / total) for name, seconds in seconds_by_name.items() if seconds > 0]
    return sorted(parts, key=lambda part: -part[1])


def _escaped(value: object) -> Markup:
    """Joins a text to one line and escapes Markdown's special characters; returns `Markup` unchanged."""
    if isinstance(value, Markup):
        return value
    return Markup(_MARKDOWN_SPECIAL.sub(r"\\\1", " ".join(str(value).split())))


def _sentences(sentences: Iterable[str]) -> Markup:
    return Markup("\n".join(f"- {_escaped(sentence(words))}" for words in sentences))


def _fenced(text: str) -> Markup:
    """Returns a text as a Markdown code block, with a fence longer than any sequence of backticks in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markup(f"{fence}\n{text}\n{fence}")


def _table_markdown(table: Table) -> Markup:
    sides = [" --- " if k < table.num_words_columns else " ---: " for k in range(len(table.columns))]
    rows = [f"| {' | '.join(map(_escaped, row))} |" for row in (table.columns, *table.rows)]
    return Markup("\n".join([rows[0], f"|{'|'.join(sides)}|", *rows[1:]]))
