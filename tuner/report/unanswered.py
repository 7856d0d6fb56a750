"""Report of a search that ended without a recommendation: what was tried, what was read, what to change."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from tuner.domain.format import format_moment, sentence
from tuner.domain.recommendation import TuningCost
from tuner.job import Job
from tuner.ledger import ProbeRecord
from tuner.report.blocks import folded, sentence_list, table_html
from tuner.report.markdown import escaped, fenced, table_markdown
from tuner.report.markup import Markup, element
from tuner.report.palette import batch_shades
from tuner.report.sections import curves_section
from tuner.report.spending import spent_words
from tuner.report.tables import best_value, last_value, probes_table

#: Version of `report.json`: the first number changes when a reader of the old form would fail.
UNANSWERED_VERSION = "1.0"
_TITLE = "no recommendation"


@dataclass(frozen=True, kw_only=True)
class UnansweredContent:
    """Everything that the report of a search without a recommendation shows.

    Args:
        job: The job.
        study_name: Its study.
        made_at: Seconds since the epoch.
        goal: The goal in words.
        reason: Why nothing is recommended.
        changes: What to change.
        warnings: Sentences on what was noticed about the script.
        stopped_because: Why the search ended.
        probes: Every probe of the study, oldest first.
        tuning: What the search spent.
    """

    job: Job
    study_name: str
    made_at: float
    goal: str
    reason: str
    changes: Sequence[str]
    warnings: Sequence[str]
    stopped_because: str
    probes: Sequence[ProbeRecord]
    tuning: TuningCost


def unanswered_json(content: UnansweredContent) -> str:
    """`report.json`: `recommendation` is null, so that no reader takes it for an answer."""
    maximize = content.job.goal.maximize
    probes: list[dict[str, Any]] = []
    for probe in content.probes:
        seen = probe.measurement
        probes.append(
            {
                "trial": probe.trial_number,
                "purpose": probe.purpose.value,
                "configuration": probe.configuration.as_dict(),
                "outcome": probe.outcome.value,
                "samples": seen.samples if seen else 0,
                "charged_seconds": seen.charged_seconds if seen else 0.0,
                "scores": len(seen.trained_curve) if seen else 0,
                "best_value": best_value(seen, maximize=maximize),
                "last_value": last_value(seen),
                "error": seen.error if seen else None,
            }
        )
    data = {
        "schema_version": UNANSWERED_VERSION,
        "job_name": content.job.name,
        "study_name": content.study_name,
        "made_at": content.made_at,
        "goal": content.goal,
        "recommendation": None,
        "reason": content.reason,
        "changes": list(content.changes),
        "warnings": list(content.warnings),
        "stopped_because": content.stopped_because,
        "tuning_seconds": content.tuning.seconds,
        "tuning_dollars": content.tuning.dollars,
        "probes": probes,
    }
    return json.dumps(data, indent=2, allow_nan=False) + "\n"


def unanswered_markdown(content: UnansweredContent) -> str:
    """The whole report as Markdown."""
    blocks = [
        f"# Paceline: {escaped(content.job.name)}",
        f"**No recommendation**: {escaped(sentence(content.reason))}",
        f"Goal: {escaped(content.goal)}. Study {escaped(content.study_name)}, "
        f"{format_moment(content.made_at)}.",
    ]
    if content.changes:
        blocks += ["## What to change", _list(content.changes)]
    if content.warnings:
        blocks += ["## What was noticed", _list(content.warnings)]
    blocks.append("## What was tried and read")
    if content.probes:
        blocks.append(table_markdown(probes_table(content.probes, maximize=content.job.goal.maximize)))
    else:
        blocks.append("No probe was started.")
    blocks += [f"{escaped(name)}:\n\n{fenced(error)}" for name, error in _errors(content.probes)]
    blocks += ["## Why the search ended", escaped(_ended(content))]
    return "\n\n".join(blocks) + "\n"


def unanswered_html(content: UnansweredContent) -> str:
    """The whole page as text; it refers to nothing outside itself and runs no script."""
    style = resources.files("tuner.report").joinpath("page.css").read_text(encoding="utf-8")
    name = content.job.name
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", f"Paceline: {name}"),
        element("style", Markup(style)),
    )
    badge = element("span", _TITLE, class_="badge warn")
    parts = [
        element("div", f"Paceline, for {name}", class_="eyebrow"),
        element("h1", "Nothing is recommended ", badge),
        element("div", f"Goal: {content.goal}.", class_="muted"),
        element("p", sentence(content.reason)),
    ]
    if content.changes:
        parts += [element("h2", "What to change"), sentence_list(content.changes)]
    if content.warnings:
        parts += [element("h2", "What was noticed"), sentence_list(content.warnings)]
    parts.append(element("h2", "What was tried and read"))
    if content.probes:
        parts.append(table_html(probes_table(content.probes, maximize=content.job.goal.maximize)))
    else:
        parts.append(element("p", "No probe was started."))
    curves = curves_section(content.probes, content.job, None, batch_shades(content.probes))
    parts += [folded(title, element("pre", error)) for title, error in _errors(content.probes)]
    parts += [element("h2", "Why the search ended"), element("p", _ended(content))]
    footer = element("footer", f"Study {content.study_name}, {format_moment(content.made_at)}.")
    sections = [element("section", *parts), *([] if curves is None else [curves])]
    body = element("body", element("main", *sections, footer))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _ended(content: UnansweredContent) -> str:
    spent = f"{spent_words(content.tuning)}, probes: {content.tuning.num_probes}"
    return f"{sentence(content.stopped_because)} Spent: {spent}."


def _errors(probes: Sequence[ProbeRecord]) -> list[tuple[str, str]]:
    """Name and message of every probe that failed."""
    return [
        (f"probe {p.probe_id}" if p.trial_number is None else f"trial {p.trial_number}", p.measurement.error)
        for p in probes
        if p.measurement is not None and p.measurement.error
    ]


def _list(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {escaped(sentence(words))}" for words in sentences)
