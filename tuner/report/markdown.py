"""`report.md`: the same facts as text and tables, for reviews and terminals."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tuner.domain.format import format_configuration, format_moment, sentence
from tuner.report.confirmed import confirmation_finding, confirmation_table
from tuner.report.content import ReportContent
from tuner.report.findings import (
    comparison,
    coverage,
    measured,
    measured_word,
    own_command_end,
    prediction,
    trust_in,
)
from tuner.report.imported import imported_finding
from tuner.report.spending import spent_words
from tuner.report.tables import (
    PROBES_NOTE,
    Table,
    checked_table,
    choices_table,
    landscape_table,
    probes_table,
    spending_table,
    strategies_table,
)
from tuner.report.timing_tables import timed_probes, timing_table

_SPECIAL = re.compile(r"([\\`*_\[\]<>|#])")


def report_markdown(content: ReportContent) -> str:
    """The whole report as Markdown."""
    blocks = [
        *_headline(content),
        *_landscape(content),
        "## The choice and its alternatives",
        table_markdown(choices_table(content.recommendation)),
        *_confirmation(content),
        *_strategies(content),
        *_turning_points(content),
        "## Predicted against measured",
        escaped(sentence(coverage(content.checked))),
        *([table_markdown(checked_table(content.checked))] if content.checked else []),
        *_spending(content),
        *_timing(content),
        *_grounds(content),
        *_probes(content),
    ]
    return "\n\n".join(blocks) + "\n"


def escaped(text: str) -> str:
    """Text on one line that Markdown takes as text."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def table_markdown(table: Table) -> str:
    """A table in pipes; numbers are set to the right."""
    sides = [" --- " if k < table.num_words_columns else " ---: " for k in range(len(table.columns))]
    lines = [_row(table.columns), f"|{'|'.join(sides)}|", *(_row(row) for row in table.rows)]
    return "\n".join(lines)


def fenced(text: str) -> str:
    """A code block whose fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(escaped(cell) for cell in cells)} |"


def _list(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {escaped(sentence(words))}" for words in sentences)


def _headline(content: ReportContent) -> list[str]:
    recommendation = content.recommendation
    trust = trust_in(recommendation)
    facts = [
        ("Predicted time to target", prediction(recommendation)),
        (f"{measured_word(recommendation).capitalize()} time to target", measured(recommendation)),
        ("Against the present settings", comparison(recommendation)),
    ]
    if recommendation.confirmation is not None:
        facts.append(("Trained again with new seeds", confirmation_finding(recommendation.confirmation)))
    if recommendation.imported is not None:
        facts.append(("Imported runs", imported_finding(recommendation.imported)))
    blocks = [
        f"# Paceline: {escaped(recommendation.job_name)}",
        f"Recommended: **{escaped(format_configuration(recommendation.choice.configuration))}** "
        f"({trust.headline}). {trust.detail}",
        f"Goal: {escaped(recommendation.goal)}. Study {escaped(recommendation.study_name)}, "
        f"{format_moment(recommendation.made_at)}.",
        "\n".join(f"- {title}: **{escaped(f.headline)}**. {escaped(f.detail)}" for title, f in facts),
    ]
    if recommendation.command.strip():
        blocks.append(fenced(recommendation.command.strip()))
    if recommendation.own_command.strip():
        blocks.append("Your own command with these values, without Paceline (also in launch.sh):")
        blocks.append(fenced(recommendation.own_command.strip()))
        blocks.append(escaped(own_command_end(recommendation)))
    if recommendation.checkpoint:
        blocks.append(f"The trained model:\n\n{fenced(recommendation.checkpoint)}")
    return blocks


def _landscape(content: ReportContent) -> list[str]:
    if not content.landscape:
        return []
    return ["## Time to target by nodes and batch size", table_markdown(landscape_table(content.landscape))]


def _confirmation(content: ReportContent) -> list[str]:
    confirmation = content.recommendation.confirmation
    if confirmation is None:
        return []
    return ["## Trained again with new seeds", table_markdown(confirmation_table(confirmation))]


def _strategies(content: ReportContent) -> list[str]:
    outlooks = content.recommendation.strategies
    if not outlooks:
        return []
    words = _list([outlook.words for outlook in outlooks if outlook.words])
    return ["## Strategies", table_markdown(strategies_table(content.recommendation)), words]


def _turning_points(content: ReportContent) -> list[str]:
    sentences = content.recommendation.turning_points
    return ["## What would change the answer", _list(sentences)] if sentences else []


def _spending(content: ReportContent) -> list[str]:
    tuning = content.recommendation.tuning
    tables = [
        table_markdown(spending_table(seconds, title))
        for seconds, title in ((tuning.seconds_by_purpose, "purpose"), (tuning.seconds_by_part, "part"))
        if seconds
    ]
    total = f"{spent_words(tuning)}; probes: {tuning.num_probes}."
    return ["## Where the tuning time went", total, *tables]


def _timing(content: ReportContent) -> list[str]:
    if not timed_probes(content.probes):
        return []
    return ["## Seconds a step", table_markdown(timing_table(content.probes))]


def _grounds(content: ReportContent) -> list[str]:
    recommendation = content.recommendation
    blocks = ["## What it rests on"]
    if recommendation.evidence:
        blocks.append(_list(recommendation.evidence))
    if recommendation.warnings:
        blocks += ["### What may make it wrong", _list(recommendation.warnings)]
    for model, sentences in content.fit_summaries.items():
        if sentences:
            blocks += [f"### What the model of {escaped(model)} learnt", _list(sentences)]
    return [*blocks, "### Why the search ended", escaped(sentence(recommendation.stopped_because))]


def _probes(content: ReportContent) -> list[str]:
    if not content.probes:
        return ["## Every probe", "None was started."]
    blocks = [
        "## Every probe",
        PROBES_NOTE,
        table_markdown(probes_table(content.probes, maximize=content.job.goal.maximize)),
    ]
    for probe in content.probes:
        seen = probe.measurement
        if seen is not None and seen.error:
            name = f"probe {probe.probe_id}" if probe.trial_number is None else f"trial {probe.trial_number}"
            blocks += [f"{name}: {escaped(sentence(probe.reason))}", fenced(seen.error)]
    return blocks
