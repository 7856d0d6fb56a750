"""Prepares what the templates show of the analysis: sentences, tables and charts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuner.domain.analysis import Analysis
from tuner.domain.format import format_configuration, format_count, format_seconds
from tuner.domain.recommendation import Recommendation
from tuner.report.analysis_charts import batch_chart, forecast_charts, rates_chart, trade_off_chart
from tuner.report.analysis_tables import (
    batches_table,
    forecasts_table,
    overrides_table,
    rates_table,
    step_parts_table,
    trade_offs_table,
    what_if_table,
)
from tuner.report.content import AnalysisContent

_NOTHING = Analysis()
#: Parts of a step in charts: name, and attribute of `StepParts`.
_PARTS = (
    ("compute", "compute_seconds"),
    ("input", "input_seconds"),
    ("waiting for the slowest rank", "waiting_seconds"),
    ("communication", "communication_seconds"),
)


def analysis_context(answer: Recommendation) -> dict[str, Any]:
    """Returns the sentences and tables of the analysis, by their names in the templates."""
    analysis = answer.analysis or _NOTHING
    front = analysis.trade_offs
    return {
        "what_if_table": what_if_table(analysis),
        "trade_offs_table": trade_offs_table(analysis),
        "cost_words": "dollars" if front and front[0].dollars is not None else "node hours",
        "only_trade_off": format_configuration(front[0].configuration) if len(front) == 1 else "",
        "step_parts_table": step_parts_table(analysis),
        "step_words": _step_words(analysis),
        "batches_table": batches_table(analysis),
        "critical_words": _critical_words(analysis),
        "rates_table": rates_table(analysis),
        "forecasts_table": forecasts_table(analysis),
        "overrides_table": overrides_table(answer.overrides),
    }


def analysis_charts(content: AnalysisContent, shades: Mapping[int, str]) -> dict[str, Any]:
    """Returns the charts of the analysis, by their names in the HTML template."""
    analysis = content.recommendation.analysis or _NOTHING
    return {
        "trade_off_chart": trade_off_chart(analysis, content.landscape),
        "other_predictions": bool(content.landscape),
        "step_bars": _step_bars(analysis),
        "step_part_names": [
            name for name, part in _PARTS if any(getattr(p, part) for p in analysis.step_parts)
        ],
        "batch_chart": batch_chart(analysis),
        "rates_chart": rates_chart(analysis),
        "forecast_charts": forecast_charts(content, analysis.curve_forecasts, shades),
    }


def _step_bars(analysis: Analysis) -> list[dict[str, Any]]:
    """Returns one bar per number of nodes, with the share of each part of the longest step."""
    longest = max((item.seconds.median for item in analysis.step_parts), default=0.0)
    bars = []
    for item in analysis.step_parts:
        parts = [
            (name, getattr(item, part), getattr(item, part) / longest)
            for name, part in _PARTS
            if getattr(item, part) > 0
        ]
        nodes = item.configuration.nodes
        words = ", ".join(f"{name} {format_seconds(seconds)}" for name, seconds, _ in parts)
        bars.append(
            {
                "nodes": "1 node" if nodes == 1 else f"{nodes} nodes",
                "seconds": format_seconds(item.seconds.median),
                "parts": parts,
                "words": words,
            }
        )
    return bars


def _step_words(analysis: Analysis) -> str:
    """Describes the basis of the parts of a step."""
    if not analysis.step_parts:
        return ""
    batch = format_count(analysis.step_parts[0].configuration.batch_size)
    words = (
        f"A step of the recommended configuration (batch {batch}) on other numbers of nodes, predicted by the"
    )
    timed = [str(item.configuration.nodes) for item in analysis.step_parts if item.is_timed]
    where = f"steps were timed on {_listed(timed)} node{'' if timed == ['1'] else 's'}" if timed else ""
    return f"{words} step-time model{f'; {where}' if where else ''}"


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _critical_words(analysis: Analysis) -> str:
    """Describes the critical batch size, or says that it is not known."""
    critical = analysis.critical_batch
    if critical is None:
        return (
            "The critical batch size is not known: neither gradient noise nor runs with different batch "
            "sizes determine it"
        )
    return (
        f"The critical batch size is about {format_count(critical.median)} samples (90% interval "
        f"{format_count(critical.lower)} to {format_count(critical.upper)}), from "
        f"{analysis.critical_batch_basis}. At this batch size a training needs twice as many samples as with "
        "very small batches; larger batches mainly waste samples"
    )
