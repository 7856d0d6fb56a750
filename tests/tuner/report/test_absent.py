"""What a report shows where there are no curves and no prices."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

from tuner.domain.measurement import Outcome, Purpose
from tuner.report import recommendation_text
from tuner.report.pages import report_html, report_markdown
from tuner.report.wording import no_curves


def test_a_section_without_curves_says_why_and_what_to_change(builder: ModuleType) -> None:
    probes = builder.probes()
    timed, broken = (
        [p for p in probes if p.purpose is Purpose.TIMING],
        [p for p in probes if p.outcome.is_fault],
    )
    assert "no probe trained a model. Raise the limits in [budget]" in no_curves(timed, builder.job())
    assert "correct the errors" in no_curves(broken, builder.job())
    waiting = [replace(p, outcome=Outcome.PAUSED) for p in broken]
    assert "decrease probe.first_score_samples" in no_curves(waiting, builder.job())
    page = report_html(replace(builder.content(), probes=timed))
    assert "There are no curves, because no probe trained a model" in page


def test_no_price_is_shown_where_none_was_set(builder: ModuleType) -> None:
    content = builder.content()
    free = [
        replace(p, slices=tuple(replace(m, charged_dollars=0.0) for m in p.slices)) for p in content.probes
    ]
    answer = content.recommendation
    unpriced = replace(
        answer,
        choice=replace(answer.choice, dollars=None),
        baseline=replace(answer.baseline, dollars=None),
        runner_up=None,
        tuning=replace(answer.tuning, dollars=0.0),
    )
    landscape = [replace(a, dollars=None) for a in content.landscape]
    content = replace(content, probes=free, recommendation=unpriced, landscape=landscape)
    for text in (report_html(content), report_markdown(content), recommendation_text(unpriced)):
        assert "$" not in text
        assert "dollars" not in text


def test_a_legend_names_present_settings_only_where_they_are_drawn(builder: ModuleType) -> None:
    content = builder.content()
    answer = builder.recommendation()
    assert "</span>present settings</li>" in report_html(content)
    same = replace(answer, baseline=replace(answer.baseline, configuration=answer.choice.configuration))
    assert "</span>present settings</li>" not in report_html(builder.content(answer=same))
