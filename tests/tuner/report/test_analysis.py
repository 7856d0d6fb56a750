"""The sections of the analysis in the HTML page and in Markdown."""

from __future__ import annotations

import json
from dataclasses import replace
from types import ModuleType

import pytest

from tuner.domain.analysis import Override
from tuner.domain.recommendation import Recommendation
from tuner.report import ReportContent
from tuner.report.analysis_charts import _edges, forecast_charts, trade_off_chart
from tuner.report.analysis_section import analysis_context
from tuner.report.pages import report_html, report_markdown


def _content(builder: ModuleType, *, priced: bool = True) -> ReportContent:
    overrides = (
        Override(name="budget.time", stated="1h 00m", used="10m 00s", source="--budget or PACELINE_BUDGET"),
    )
    answer = replace(builder.recommendation(), analysis=builder.analysis(priced=priced), overrides=overrides)
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
    charts = forecast_charts(content.analysis, many, {256: "shade3"})
    drawn = "".join(chart for _, chart in charts)
    assert drawn.count('id="panel-frame"') == 1
    assert drawn.count('href="#panel-frame"') == 29
    assert len(drawn) < 40_000


def test_cells_of_learning_rates_do_not_overlap() -> None:
    """The present settings may lie beside the grid, and two cells over each other would look darker."""
    rates = [0.01, 0.0151, 0.02, 0.0219, 0.0316]
    cells = [_edges(rate, rates, 1.2) for rate in rates]
    for (low, high), rate, (following, _) in zip(cells, rates, [*cells[1:], (1.0, 1.0)], strict=True):
        assert low < rate < high <= following * (1 + 1e-12)
    assert cells[0][0] == pytest.approx(0.01 / 1.2)
    assert cells[-1][1] == pytest.approx(0.0316 * 1.2)
