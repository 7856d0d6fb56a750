"""The sections of the analysis in the HTML page and in Markdown."""

from __future__ import annotations

import json
from dataclasses import replace
from types import ModuleType

import pytest

from tuner.domain.analysis import (
    Analysis,
    CurveForecast,
    ForecastPoint,
    Override,
    RateOutlook,
    RateRun,
    SamplesAtBatch,
    StepParts,
    TradeOff,
    WhatIf,
)
from tuner.domain.recommendation import Recommendation
from tuner.report import ReportContent
from tuner.report.analysis_charts import forecast_charts, trade_off_chart
from tuner.report.analysis_section import analysis_context
from tuner.report.pages import report_html, report_markdown


def _analysis(builder: ModuleType, *, priced: bool = True) -> Analysis:
    alternatives = [builder.alternative(nodes, 256, 0.1) for nodes in (8, 4, 2)]
    probes = builder.probes()
    trained = next(p for p in probes if p.measurement is not None and p.measurement.trained_curve)
    last = trained.measurement.trained_curve[-1]
    point = ForecastPoint(value=last.value, samples=builder.estimate(float(last.samples), 1.0))
    end = ForecastPoint(value=builder.TARGET, samples=builder.estimate(last.samples * 3.0, 1.5))
    return Analysis(
        what_if=(
            WhatIf(
                topic="nodes",
                change="only 4 of the 8 nodes are free (half)",
                configuration=builder.configuration(4, 256, 0.1),
                seconds=builder.estimate(12.0, 1.5),
                dollars=builder.estimate(0.4, 1.5) if priced else None,
                node_hours=builder.estimate(0.013, 1.5),
                probability_of_reaching=0.9,
                note="the recommended configuration needs more nodes",
            ),
            WhatIf(topic="links", change="links are slower", note="not measured: nothing was timed"),
        ),
        trade_offs=tuple(
            TradeOff(
                configuration=a.configuration,
                seconds=a.seconds,
                dollars=a.dollars if priced else None,
                node_hours=a.seconds.times(a.configuration.nodes / 3600),
                is_choice=place == 1,
            )
            for place, a in enumerate(alternatives)
        ),
        step_parts=tuple(
            StepParts(
                configuration=builder.configuration(nodes, 256, 0.1),
                seconds=builder.estimate(0.1, 1.1),
                compute_seconds=0.06,
                input_seconds=0.01,
                waiting_seconds=0.01,
                communication_seconds=0.02,
                is_timed=nodes < 4,
            )
            for nodes in (1, 2, 4)
        ),
        samples_by_batch=tuple(
            SamplesAtBatch(
                configuration=builder.configuration(4, batch, 0.1),
                samples=builder.estimate(builder.samples_to_target(batch), 1.3),
                measured_samples=None,
                probability_of_reaching=0.9,
            )
            for batch in (64, 256)
        ),
        critical_batch=builder.estimate(800.0, 2.0),
        critical_batch_basis="runs with different batch sizes",
        learning_rates=tuple(
            RateOutlook(
                batch_size=batch, learning_rate=rate, probability_of_reaching=0.8, is_best=rate == 0.1
            )
            for batch in (64, 256)
            for rate in (0.01, 0.1, 1.0)
        ),
        rate_runs=(RateRun(batch_size=256, learning_rate=0.1, trial_number=1, result="missed"),),
        curve_forecasts=(
            CurveForecast(
                probe_id=trained.probe_id,
                trial_number=trained.trial_number,
                configuration=trained.configuration,
                samples_observed=last.samples,
                result="open",
                probability_of_reaching=0.7,
                points=(point, end),
            ),
        ),
    )


def _content(builder: ModuleType, *, priced: bool = True) -> ReportContent:
    overrides = (
        Override(name="budget.time", stated="1h 00m", used="10m 00s", source="--budget or PACELINE_BUDGET"),
    )
    answer = replace(
        builder.recommendation(), analysis=_analysis(builder, priced=priced), overrides=overrides
    )
    return builder.content(answer=answer)


SECTIONS = (
    "What would change the answer",
    "Where the time of a step goes",
    "Batch size and learning rate",
    "Measured curves and their forecasts",
    "Asked for and used",
)


@pytest.fixture(scope="module")
def page(builder: ModuleType) -> str:
    """The HTML page, which takes a while to draw."""
    return report_html(_content(builder))


def test_both_pages_have_every_section(builder: ModuleType, page: str) -> None:
    text = report_markdown(_content(builder))
    for title in (*SECTIONS, "Time against dollars"):
        assert f"<h2>{title}</h2>" in page
        assert f"## {title}" in text
    for words in ("only 4 of the 8 nodes are free", "not measured: nothing was timed", "budget.time"):
        assert words in page
        assert words in text
    assert "The critical batch size is about 800 samples (90% interval 400 to 1,600)" in page
    assert 'aria-label="Chance of reaching the target by batch size and learning rate"' in page
    assert 'aria-label="1 node: compute 60 ms, input 10 ms' in page


def test_every_chart_of_the_analysis_has_a_table(page: str) -> None:
    analysis = page[page.index("What would change the answer") : page.index("Predicted against measured")]
    assert analysis.count("The same as a table") == 5


def test_without_prices_the_cost_is_in_node_hours(builder: ModuleType) -> None:
    content = _content(builder, priced=False)
    text = report_markdown(content)
    section = text[text.index("Time against node hours") : text.index("Where the time of a step goes")]
    answer = content.recommendation
    assert answer.analysis is not None
    assert "$" not in section + trade_off_chart(answer.analysis, content.landscape)


def test_a_single_trade_off_is_a_sentence(builder: ModuleType) -> None:
    content = _content(builder)
    answer = content.recommendation
    assert answer.analysis is not None
    only = replace(answer.analysis, trade_offs=answer.analysis.trade_offs[1:2])
    assert not trade_off_chart(only, content.landscape)
    assert analysis_context(replace(answer, analysis=only))["only_trade_off"].startswith("4 nodes")


def test_nothing_is_shown_of_an_older_recommendation(builder: ModuleType) -> None:
    text = report_markdown(builder.content())
    assert not any(title in text for title in SECTIONS)


def test_the_analysis_comes_back_from_json(builder: ModuleType) -> None:
    answer = _content(builder).recommendation
    assert Recommendation.from_dict(json.loads(json.dumps(answer.to_dict()))) == answer


def test_frames_of_small_charts_are_drawn_once(builder: ModuleType) -> None:
    content = _content(builder)
    answer = content.recommendation
    assert answer.analysis is not None
    many = answer.analysis.curve_forecasts * 30
    charts = forecast_charts(many, content.probes, content.job, {256: "shade3"})
    drawn = "".join(chart for _, chart in charts)
    assert drawn.count('id="panel-frame"') == 1
    assert drawn.count('href="#panel-frame"') == 29
    assert len(drawn) < 40_000
