"""`report.html`: one self-contained page, the decision on top and the evidence below it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

from tuner.measurement import Outcome
from tuner.report.checked import checked_chart
from tuner.report.content import ReportContent
from tuner.report.curves import batch_legend, curve_charts, runs_of
from tuner.report.findings import EARLY_SHARE, Finding, comparison, coverage, measured, prediction, standing
from tuner.report.format import (
    format_configuration,
    format_count,
    format_dollar_interval,
    format_dollars,
    format_moment,
    format_seconds,
    format_share,
    sentence,
)
from tuner.report.landscape import landscape_charts, unreachable_words
from tuner.report.markup import Markup, element, joined
from tuner.report.palette import batch_shades
from tuner.report.spending import spending_bar
from tuner.report.tables import (
    Table,
    checked_table,
    choices_table,
    landscape_table,
    probes_table,
    ranks_table,
    timed_probes,
    timing_table,
)

#: More warnings than this stand only under what the recommendation rests on.
_MOST_WARNINGS = 3


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
        _headline(content),
        _landscape(content),
        _choices(content),
        _curves(content),
        _checked(content),
        _spending(content),
        _timing(content),
        _grounds(content),
        _probes(content),
    )
    shown = [section for section in sections if section is not None]
    body = element("body", element("main", *shown, _footer(content)))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def table_html(table: Table, style: str = "full") -> Markup:
    """A table that scrolls sideways where the page is narrower."""

    def side(position: int) -> str | None:
        return None if position < table.num_words_columns else "number"

    titles = [element("th", title, class_=side(k), scope="col") for k, title in enumerate(table.columns)]
    rows = [
        element("tr", *(element("td", cell, class_=side(k)) for k, cell in enumerate(row)))
        for row in table.rows
    ]
    inner = element("table", element("thead", element("tr", *titles)), element("tbody", *rows), class_=style)
    return element("div", inner, class_="scroll")


def _folded(summary: str, *children: str) -> Markup:
    return element("details", element("summary", summary), *children)


def _list(sentences: Sequence[str]) -> Markup:
    return element("ul", *(element("li", sentence(words)) for words in sentences))


def _headline(content: ReportContent) -> Markup:
    recommendation = content.recommendation
    trust = standing(recommendation)
    good = trust.headline in ("verified", "measured")
    badge = element("span", trust.headline, class_=f"badge {'good' if good else 'warn'}")
    choice = recommendation.choice
    facts = [
        _fact("predicted time to target", prediction(recommendation)),
        _fact("measured time to target", measured(recommendation)),
        _fact("against the present settings", comparison(recommendation)),
    ]
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
        parts.append(element("h3", "Train it (also in launch.sh)"))
        parts.append(element("pre", recommendation.command.strip(), class_="command"))
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


def _landscape(content: ReportContent) -> Markup | None:
    if not content.landscape:
        return None
    charts = landscape_charts(content.landscape, content.recommendation, batch_shades(content))
    parts = [
        element("h2", "Time to target by nodes and batch size"),
        element(
            "p",
            "Each point is the best learning rate's prediction; bars are 90% intervals. "
            "A hollow point is more likely than not to miss the target.",
            class_="muted",
        ),
    ]
    for strategy, chart in charts:
        if len(charts) > 1:
            parts.append(element("h3", strategy))
        parts.append(chart)
    parts += [element("p", words, class_="muted") for words in unreachable_words(content.landscape)]
    parts.append(_folded("The same as a table", table_html(landscape_table(content.landscape))))
    return element("section", *parts)


def _choices(content: ReportContent) -> Markup:
    return element(
        "section",
        element("h2", "The choice and what it was weighed against"),
        table_html(choices_table(content.recommendation), "full choices"),
    )


def _curves(content: ReportContent) -> Markup | None:
    choice = content.recommendation.choice.configuration
    runs = runs_of(content.probes, choice, batch_shades(content))
    charts = curve_charts(runs, content.job)
    if charts is None:
        return None
    swatches = [
        element("li", element("span", class_=f"swatch {style}"), words) for style, words in batch_legend(runs)
    ]
    notes = "Numbers are trials of the table below"
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


def _checked(content: ReportContent) -> Markup:
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
        _folded("Every prediction", table_html(checked_table(content.checked))),
    )
    return element("section", title, element("div", element("div", chart), explained, class_="pair"))


def _key(style: str, words: str) -> Markup:
    return element("li", element("span", class_=f"swatch {style}"), words)


def _spending(content: ReportContent) -> Markup:
    tuning = content.recommendation.tuning
    price = f", {format_dollars(tuning.dollars)}" if tuning.dollars else ""
    probes = "1 probe" if tuning.num_probes == 1 else f"{format_count(tuning.num_probes)} probes"
    bars = (
        spending_bar(tuning.seconds_by_purpose, "by purpose of the probe"),
        spending_bar(tuning.seconds_by_part, "by part"),
    )
    return element(
        "section",
        element("h2", "Where the tuning time went"),
        element("p", f"{format_seconds(tuning.seconds)}{price} in {probes}."),
        *(bar for bar in bars if bar is not None),
    )


def _timing(content: ReportContent) -> Markup | None:
    timed = timed_probes(content.probes)
    if not timed:
        return None
    cluster = content.job.resolved_cluster()
    table = timing_table(content.probes, cluster)
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
    parts.append(_folded("By rank", *by_rank))
    return element("section", *parts)


def _grounds(content: ReportContent) -> Markup:
    recommendation = content.recommendation
    parts = [element("h2", "What it rests on")]
    if recommendation.evidence:
        parts.append(_list(recommendation.evidence))
    if recommendation.warnings:
        parts += [element("h3", "What may make it wrong"), _list(recommendation.warnings)]
    for model, sentences in content.fit_summaries.items():
        if sentences:
            parts += [element("h3", f"What the model of {model} learnt"), _list(sentences)]
    parts += [element("h3", "Why the search ended"), element("p", sentence(recommendation.stopped_because))]
    return element("section", *parts)


def _probes(content: ReportContent) -> Markup:
    if not content.probes:
        return element("section", element("h2", "Every probe"), element("p", "None was started."))
    parts = [
        element("h2", "Every probe"),
        table_html(probes_table(content.probes, maximize=content.job.goal.maximize)),
    ]
    for probe in content.probes:
        seen = probe.measurement
        error = seen.error if seen is not None else None
        if probe.reason or error:
            name = f"probe {probe.probe_id}" if probe.trial_number is None else f"#{probe.trial_number}"
            ended = "goes on" if probe.outcome.can_continue else probe.outcome.value.replace("_", " ")
            reason = [element("p", sentence(probe.reason))] if probe.reason else []
            trace = [element("pre", error)] if error else []
            if error or probe.outcome in (Outcome.OUT_OF_MEMORY, Outcome.DIVERGED):
                parts.append(_folded(f"{name} {ended}", *reason, *trace))
    return element("section", *parts)


def _footer(content: ReportContent) -> Markup:
    recommendation = content.recommendation
    words = (
        f"Study {recommendation.study_name}, {format_moment(recommendation.made_at)}. Intervals are central "
        "90% intervals. The numbers unrounded: recommendation.json and trials.csv."
    )
    return element("footer", words)
