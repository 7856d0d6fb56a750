"""The sections of the page below its headline, each from its part of the content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from search_spaces import Configuration
from tuner.domain.format import (
    format_configuration,
    format_count,
    format_share,
    sentence,
)
from tuner.domain.measurement import Outcome
from tuner.job import Job
from tuner.ledger import ProbeRecord
from tuner.ledger.records import EARLY_SHARE
from tuner.report.blocks import folded, sentence_list, table_html
from tuner.report.checked import checked_chart
from tuner.report.confirmed import confirmation_table
from tuner.report.content import ReportContent
from tuner.report.curves import batch_legend, curve_charts, runs_of
from tuner.report.findings import coverage
from tuner.report.landscape import landscape_charts, unreachable_words
from tuner.report.markup import Markup, element, joined
from tuner.report.palette import batch_shades
from tuner.report.spending import spending_bar, spent_words
from tuner.report.tables import (
    PROBES_NOTE,
    checked_table,
    choices_table,
    landscape_table,
    probes_table,
    strategies_table,
)
from tuner.report.timing_tables import ranks_table, timed_probes, timing_table


def landscape_section(content: ReportContent) -> Markup | None:
    """The chart of predictions; None where there are none."""
    if not content.landscape:
        return None
    charts = landscape_charts(
        content.landscape, content.recommendation, batch_shades(content.probes, content.landscape)
    )
    parts = [
        element("h2", "Time to target by nodes and batch size"),
        element(
            "p",
            "Each point is the prediction of the best learning rate and knobs; bars are 90% intervals. "
            "A hollow point is more likely than not to miss the target.",
            class_="muted",
        ),
    ]
    for strategy, chart in charts:
        if len(charts) > 1:
            parts.append(element("h3", strategy))
        parts.append(chart)
    parts += [element("p", words, class_="muted") for words in unreachable_words(content.landscape)]
    parts.append(folded("The same as a table", table_html(landscape_table(content.landscape))))
    return element("section", *parts)


def choices_section(content: ReportContent) -> Markup:
    """Choice, runner-up and present settings side by side."""
    return element(
        "section",
        element("h2", "The choice and its alternatives"),
        table_html(choices_table(content.recommendation), "full choices"),
    )


def confirmation_section(content: ReportContent) -> Markup | None:
    """Repeated trainings of the choice and of the present settings; None where there are none."""
    confirmation = content.recommendation.confirmation
    if confirmation is None:
        return None
    note = (
        "Training time to the target. Both were trained from scratch with each seed, in turn. The search and "
        "its models know none of these trainings."
    )
    return element(
        "section",
        element("h2", "Trained again with new seeds"),
        element("p", note, class_="muted"),
        table_html(confirmation_table(confirmation)),
    )


def strategies_section(content: ReportContent) -> Markup | None:
    """Why this strategy: each of them at its best; None if only one was considered."""
    outlooks = content.recommendation.strategies
    if not outlooks:
        return None
    note = (
        "Each strategy at its best configuration, the chosen one first. Time to target is seconds of a "
        "batch, times samples to target over the batch size."
    )
    return element(
        "section",
        element("h2", "Strategies"),
        element("p", note, class_="muted"),
        table_html(strategies_table(content.recommendation), "full outlooks"),
        sentence_list([outlook.words for outlook in outlooks if outlook.words]),
    )


def turning_points_section(content: ReportContent) -> Markup | None:
    """What would change the answer; None where nothing is said of it."""
    sentences = content.recommendation.turning_points
    if not sentences:
        return None
    return element(
        "section",
        element("h2", "What would change the answer"),
        element("p", "One quantity of the described cluster at a time, all else as it is.", class_="muted"),
        sentence_list(sentences),
    )


def curves_section(
    probes: Sequence[ProbeRecord], job: Job, choice: Configuration | None, shades: Mapping[int, str]
) -> Markup | None:
    """The metric along the probes; None where nothing was scored.

    Args:
        probes: Every probe.
        job: The job.
        choice: What is recommended, if anything is.
        shades: Batch size to the class of its colour.
    """
    runs = runs_of(probes, choice, shades)
    charts = curve_charts(runs, job)
    if charts is None:
        return None
    swatches = [
        element("li", element("span", class_=f"swatch {style}"), words) for style, words in batch_legend(runs)
    ]
    notes = "Numbers are those of the trials in the table of probes"
    if any(run.recommended for run in runs):
        notes += "; thick lines have the recommended batch size, learning rate and strategy"
    if any(run.diverged for run in runs):
        notes += "; dotted lines diverged"
    return element(
        "section",
        element("h2", "What was trained"),
        element("p", f"{notes}.", class_="muted"),
        element("ul", *swatches, class_="legend"),
        element("div", *(element("div", chart) for chart in charts), class_="pair"),
    )


def checked_section(content: ReportContent) -> Markup:
    """Predictions that can be judged by now."""
    title = element("h2", "Predicted against measured")
    verdict = element("p", sentence(coverage(content.checked)))
    chart = checked_chart(content.checked)
    if chart is None:
        return element("section", title, verdict)
    limit = format_share(EARLY_SHARE)
    legend = element(
        "ul",
        _key("accent solid", "measured time inside the interval"),
        _key("missed solid", "outside"),
        _key("accent outline", f"hollow: more than {limit} of the run was known"),
        class_="legend",
    )
    explained = element(
        "div",
        verdict,
        element(
            "p",
            "On the dashed line prediction and measurement agree; above it, the run was sooner than "
            "predicted. Predictions of one run stand side by side, those that knew least on the left.",
            class_="muted",
        ),
        legend,
        folded("Every prediction", table_html(checked_table(content.checked))),
    )
    return element("section", title, element("div", element("div", chart), explained, class_="pair"))


def _key(style: str, words: str) -> Markup:
    return element("li", element("span", class_=f"swatch {style}"), words)


def spending_section(content: ReportContent) -> Markup:
    """What the search spent, by purpose and by part."""
    tuning = content.recommendation.tuning
    probes = "1 probe" if tuning.num_probes == 1 else f"{format_count(tuning.num_probes)} probes"
    bars = (
        spending_bar(tuning.seconds_by_purpose, "by purpose of the probe"),
        spending_bar(tuning.seconds_by_part, "by part"),
    )
    return element(
        "section",
        element("h2", "Where the tuning time went"),
        element("p", f"{spent_words(tuning)} in {probes}."),
        *(bar for bar in bars if bar is not None),
    )


def timing_section(content: ReportContent) -> Markup | None:
    """Step times; None where no step was timed."""
    timed = timed_probes(content.probes)
    if not timed:
        return None
    table = timing_table(content.probes)
    by_rank = [
        joined(element("h3", format_configuration(probe.configuration)), table_html(ranks_table(seen)))
        for probe, seen in timed
    ]
    parts = [
        element("h2", "Seconds a step"),
        element(
            "p", "Medians of the timing probes, warm-up left out; a range where ranks differ.", class_="muted"
        ),
        table_html(table),
    ]
    if any(row[-1] == "shared" for row in table.rows):
        words = (
            "Where cores are shared, ranks outnumber the cores of this host: these times hold for this "
            "host alone, and nodes of their own would be faster."
        )
        parts.append(element("p", words, class_="note"))
    parts.append(folded("By rank", *by_rank))
    return element("section", *parts)


def grounds_section(content: ReportContent) -> Markup:
    """Evidence, warnings, what the models learnt, why the search ended."""
    recommendation = content.recommendation
    parts = [element("h2", "What it rests on")]
    if recommendation.evidence:
        parts.append(sentence_list(recommendation.evidence))
    if recommendation.warnings:
        parts += [element("h3", "What may make it wrong"), sentence_list(recommendation.warnings)]
    for model, sentences in content.fit_summaries.items():
        if sentences:
            parts += [element("h3", f"What the model of {model} learnt"), sentence_list(sentences)]
    parts += [element("h3", "Why the search ended"), element("p", sentence(recommendation.stopped_because))]
    return element("section", *parts)


def probes_section(content: ReportContent) -> Markup:
    """Every probe, and what went wrong where something did."""
    if not content.probes:
        return element("section", element("h2", "Every probe"), element("p", "None was started."))
    parts = [
        element("h2", "Every probe"),
        element("p", PROBES_NOTE, class_="muted"),
        table_html(probes_table(content.probes, maximize=content.job.goal.maximize)),
    ]
    for probe in content.probes:
        seen = probe.measurement
        error = seen.error if seen is not None else None
        if probe.reason or error:
            name = f"probe {probe.probe_id}" if probe.trial_number is None else f"#{probe.trial_number}"
            ended = "can resume" if probe.outcome.can_continue else probe.outcome.value.replace("_", " ")
            reason = [element("p", sentence(probe.reason))] if probe.reason else []
            trace = [element("pre", error)] if error else []
            if error or probe.outcome in (Outcome.OUT_OF_MEMORY, Outcome.DIVERGED):
                parts.append(folded(f"{name} {ended}", *reason, *trace))
    return element("section", *parts)
