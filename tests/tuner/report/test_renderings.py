"""Facts that hold for every rendering, over whole and partial content."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from types import ModuleType

import pytest

from tuner.domain.ledger import ProbeRecord
from tuner.domain.measurement import Outcome
from tuner.domain.recommendation import Estimate, Recommendation
from tuner.report import ReportContent, recommendation_schema, recommendation_text
from tuner.report.charts import MAX_CHECKS, MAX_CURVES
from tuner.report.content import UnansweredContent
from tuner.report.data_files import trials_csv
from tuner.report.pages import report_html, report_markdown, unanswered_html

NASTY = "<script>alert('x')</script> | `tick` & \"quote\""


class _Page(HTMLParser):
    """Checks that tags balance, and gathers text and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in ("meta", "br", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)


def _whole(builder: ModuleType) -> ReportContent:
    return builder.content()


def _nothing_finished(builder: ModuleType) -> ReportContent:
    waiting = [replace(p, slices=(), outcome=Outcome.PAUSED, reason="") for p in builder.probes()[:3]]
    answer = replace(
        builder.recommendation(),
        choice=builder.alternative(4, 256, 0.1),
        runner_up=None,
        baseline=None,
        verified=None,
        provisional=True,
        evidence=(),
        warnings=(),
        checkpoint=None,
        command="",
        tuning=replace(
            builder.recommendation().tuning,
            seconds=0.0,
            dollars=0.0,
            seconds_by_purpose={},
            seconds_by_part={},
        ),
    )
    return builder.content(answer=answer, seen=waiting, judged=[], weighed=builder.landscape())


def _no_probe(builder: ModuleType) -> ReportContent:
    content = _nothing_finished(builder)
    return replace(content, probes=[], landscape=[], fit_summaries={})


def _single_node_count(builder: ModuleType) -> ReportContent:
    return builder.content(weighed=[a for a in builder.landscape() if a.configuration.nodes == 4])


def _single_point(builder: ModuleType) -> ReportContent:
    return builder.content(weighed=[builder.alternative(4, 256, 0.1)], judged=builder.checked()[:1])


def _unreachable(builder: ModuleType) -> ReportContent:
    endless = Estimate(lower=math.inf, median=math.inf, upper=math.inf)
    lost = replace(builder.alternative(4, 256, 0.1), seconds=endless, dollars=endless)
    answer = replace(builder.recommendation(), choice=lost, baseline=lost, runner_up=lost, verified=None)
    record = builder.prediction_record(10.0, 1.5, 1.0)
    record = replace(record, quantiles=dict.fromkeys((0.05, 0.5, 0.95), math.inf))
    judged = [replace(builder.checked()[0], prediction=record)]
    return builder.content(answer=answer, weighed=[lost], judged=judged)


def _not_a_number(builder: ModuleType) -> ReportContent:
    def spoiled(probe):  # type: ignore[no-untyped-def]
        curve = tuple(replace(point, value=math.nan) for point in probe.slices[0].curve)
        return replace(probe, slices=(replace(probe.slices[0], curve=curve),))

    return builder.content(seen=[spoiled(probe) for probe in builder.probes()])


def _two_strategies(builder: ModuleType) -> ReportContent:
    gossip = [
        replace(a, configuration=a.configuration.replaced(strategy="gossip_pull", period=4))
        for a in builder.landscape()
    ]
    timed = [_with_strategy(p, "gossip_pull", tau=4) for p in builder.probes() if p.purpose == "timing"]
    return builder.content(
        answer=builder.recommended_gossip(),
        weighed=[*builder.landscape(), *gossip],
        seen=[*builder.probes(), *timed],
    )


def _with_strategy(probe: ProbeRecord, strategy: str, **knobs: float) -> ProbeRecord:
    """The probe as if it had been of another strategy, whose ranks mixed in what was two steps old."""
    what = probe.configuration.replaced(strategy=strategy, **knobs)
    slices = tuple(replace(m, configuration=what, staleness_steps=2.25) for m in probe.slices)
    return replace(probe, configuration=what, slices=slices)


def _nasty(builder: ModuleType) -> ReportContent:
    answer = replace(
        builder.recommendation(),
        job_name=NASTY,
        study_name=NASTY,
        goal=NASTY,
        evidence=(NASTY,),
        warnings=(NASTY,),
        stop_reason=NASTY,
        command=f"echo {NASTY}",
        checkpoint=NASTY,
    )
    named = builder.configuration(4, 256, 0.1).replaced(machine=NASTY)
    answer = replace(answer, choice=replace(answer.choice, configuration=named))
    seen = [replace(probe, reason=NASTY) for probe in builder.probes()]
    return replace(builder.content(answer=answer, seen=seen), fit_summaries={NASTY: [NASTY]})


CONTENTS: list[Callable[[ModuleType], ReportContent]] = [
    _whole,
    _nothing_finished,
    _no_probe,
    _single_node_count,
    _single_point,
    _unreachable,
    _not_a_number,
    _two_strategies,
    _nasty,
]


@pytest.fixture(params=CONTENTS, ids=lambda make: make.__name__.strip("_"))
def any_content(request: pytest.FixtureRequest, builder: ModuleType) -> ReportContent:
    return request.param(builder)


def test_the_page_is_balanced_markup_that_needs_nothing_but_itself(any_content: ReportContent) -> None:
    text = report_html(any_content)
    page = _Page(text)
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not {"src", "srcset", "data"} & {name for name, _ in page.attributes}
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {value for name, value in page.attributes if name == "href"} <= {f"#{name}" for name in ids}
    assert "http://" not in text
    assert "https://" not in text
    assert "url(" not in text
    assert "@import" not in text


def test_no_rendering_shows_a_number_that_is_not_finite(any_content: ReportContent) -> None:
    raw = re.compile(r"\b(nan|inf|infinity)\b", re.IGNORECASE)
    # A reason in the built content speaks of NaN itself; it is the user's word, not a number shown.
    quiet = replace(any_content, probes=[replace(p, reason="") for p in any_content.probes])
    page = _Page(report_html(quiet))
    shown = [
        page.text,
        " ".join(value for name, value in page.attributes if name != "class"),
        report_markdown(quiet),
        trials_csv(quiet),
        recommendation_text(quiet.recommendation),
    ]
    assert [raw.findall(text) for text in shown] == [[]] * len(shown)


def test_the_answer_stands_in_every_rendering(any_content: ReportContent) -> None:
    nodes, batch = "4 nodes", "batch 256"
    answer = recommendation_text(any_content.recommendation)
    for text in (report_html(any_content), report_markdown(any_content), answer):
        assert nodes in text
        assert batch in text


def test_every_number_of_the_recommendation_is_on_the_page_and_in_the_text(builder: ModuleType) -> None:
    content = _whole(builder)
    page, text = _Page(report_html(content)).text, report_markdown(content)
    facts = [
        "9.48 s", "7.29 s to 12.3 s", "9.31 s", "7.57 s to 12.8 s", "above 95%", "30,000 samples (56 s)",
        "9.31 s (measured), against 1m 05s to 2m 07s (predicted)", "1m 31s",
        "9.77 s", "6.51 s to 14.6 s", "$0.025", "$0.061", "3m 32s", "$0.31", "2m 32s", "28 s", "0.9512",
        "6 of 7 inside", "2025-06-15",
    ]  # fmt: skip
    plain = text.replace("\\", "")
    assert [fact for fact in facts if fact not in page] == []
    assert [fact for fact in facts if fact not in plain] == []


def test_the_page_says_what_its_charts_leave_out(builder: ModuleType) -> None:
    text = _Page(report_html(_whole(builder))).text
    assert "batch 1,024 on 8 nodes (31%)" in text
    assert "Without an upper bound (arrow): batch 1,024 on 4 nodes" in text


def test_every_chart_names_its_axes_with_units(builder: ModuleType) -> None:
    page = _Page(report_html(_whole(builder)))
    # The widest chart has a second drawing for phones; there are two curves, one scatter and two bars.
    assert page.tags.count("svg") == 2 + 2 + 1 + 2
    assert page.attributes.count(("role", "img")) == page.tags.count("svg")
    labels = [value for name, value in page.attributes if name == "aria-label"]
    assert all(labels)
    for words in ("predicted time to target", "nodes", "samples seen", "accuracy", "target 0.95", "measured"):
        assert words in page.text


def test_every_strategy_stands_with_its_reason_where_several_were_weighed(builder: ModuleType) -> None:
    content = _two_strategies(builder)
    page = _Page(report_html(content)).text
    text = report_markdown(content).replace("\\", "")
    facts = [
        "gossip_pull needs 1.3 times the samples of all_reduce, but a batch takes 160 ms against 310 ms, "
        "because no rank waits for the delayed rank 1.",
        "Diloco is not expected to reach the target.",
        "diloco (tau 16, outer learning rate 0.7, outer momentum 0.9)",
        "waits for the slowest",
        "every 8 steps",
        "39,000",
    ]
    assert [fact for fact in facts if fact not in page] == []
    assert [fact for fact in facts if fact not in text] == []
    assert "1.3 times the samples" in " ".join(recommendation_text(content.recommendation).split())


def test_where_one_strategy_was_weighed_there_is_nothing_to_choose_between(builder: ModuleType) -> None:
    content = _whole(builder)
    assert "waits for the slowest" not in _Page(report_html(content)).text
    assert "## Strategies" not in report_markdown(content)


def test_timings_name_strategy_and_staleness_where_they_differ(builder: ModuleType) -> None:
    several, one = (_Page(report_html(make(builder))).text for make in (_two_strategies, _whole))
    assert "steps stale" in several
    assert "steps stale" not in one
    assert "gossip_pull (tau 4)" in several


def test_a_recommendation_with_strategies_comes_back_from_json(builder: ModuleType) -> None:
    answer = builder.recommended_gossip()
    assert Recommendation.from_dict(json.loads(json.dumps(answer.to_dict(), allow_nan=False))) == answer


def test_a_recommendation_from_before_strategies_were_weighed_is_still_read(builder: ModuleType) -> None:
    data = builder.recommendation().to_dict()
    del data["strategies"]
    assert Recommendation.from_dict({**data, "schema_version": "1.0"}).strategies == ()


def test_what_a_user_wrote_is_escaped(builder: ModuleType) -> None:
    content = _nasty(builder)
    text = report_html(content)
    assert "<script" not in text
    assert NASTY in _Page(text).text
    markdown = report_markdown(content)
    outside_code = re.sub(r"^(`{3,})\n.*?\n\1$", "", markdown, flags=re.MULTILINE | re.DOTALL)
    assert "<script" not in outside_code.replace("\\<", "")


def test_markdown_tables_have_as_many_cells_in_every_row(any_content: ReportContent) -> None:
    blocks = re.findall(r"(?:^\|.*\|$\n?)+", report_markdown(any_content), flags=re.MULTILINE)
    assert blocks
    for block in blocks:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.strip().split("\n")}
        assert len(widths) == 1


def test_a_failed_probe_shows_every_ranks_words(builder: ModuleType) -> None:
    page = _Page(report_html(_whole(builder)))
    assert "rank 1: RuntimeError: expected a <Tensor> & got None\nrank 0: connection closed" in page.text
    assert "rank 0: connection closed by peer" in report_markdown(_whole(builder))


def test_shared_cores_are_flagged_where_they_were_measured(builder: ModuleType) -> None:
    content = _whole(builder)
    warning = "there are more ranks than cores on this host"
    assert warning in _Page(report_html(content)).text
    roomy = [
        replace(p, slices=tuple(replace(m, oversubscribed=False) for m in p.slices)) for p in content.probes
    ]
    assert warning not in _Page(report_html(replace(content, probes=roomy))).text


def test_present_settings_on_other_nodes_stay_out_of_a_chart_of_one_node_count(builder: ModuleType) -> None:
    titles = "present settings: 1 node, batch 64"
    assert titles in _Page(report_html(_whole(builder))).text
    assert titles not in _Page(report_html(_single_node_count(builder))).text


def test_trials_round_trip_through_csv(builder: ModuleType) -> None:
    content = _whole(builder)
    rows = list(csv.DictReader(io.StringIO(trials_csv(content))))
    assert len(rows) == len(content.probes)
    for row, probe in zip(rows, content.probes, strict=True):
        seen = probe.measurement
        assert seen is not None
        assert int(row["trial_number"]) == probe.trial_number
        assert row["purpose"] == probe.purpose
        assert row["outcome"] == probe.outcome
        assert row["reason"] == probe.reason
        assert (row["error"] or None) == seen.error
        assert float(row["learning_rate"]) == probe.configuration.learning_rate
        assert int(row["nodes"]) == probe.configuration.nodes
        assert float(row["charged_seconds"]) == seen.charged_seconds
        assert float(row["charged_dollars"]) == seen.charged_dollars
        best = max((point.value for point in seen.curve), default=None)
        assert (float(row["best_value"]) if row["best_value"] else None) == best
        steps = seen.step_seconds
        assert (row["step_seconds_median"] == "") == (steps is None)


def test_a_probe_without_a_slice_has_empty_cells(builder: ModuleType) -> None:
    rows = list(csv.DictReader(io.StringIO(trials_csv(_nothing_finished(builder)))))
    assert {row["samples"] for row in rows} == {""}
    assert {row["outcome"] for row in rows} == {"paused"}


def test_the_text_for_the_terminal_is_short_and_complete(builder: ModuleType) -> None:
    text = recommendation_text(builder.recommendation())
    assert len(text.splitlines()) <= 22
    assert max(len(line) for line in text.splitlines()) <= 100
    for fact in ("verified", "9.48 s", "9.31 s", "(predicted)", "3m 32s", "torchrun --nnodes 4", "runner-up"):
        assert fact in text


def _disagreements(schema: dict[str, object], data: object, place: str = "$") -> list[str]:
    """What of the data a schema of the kinds used here does not allow."""
    if "anyOf" in schema:
        options = [_disagreements(option, data, place) for option in schema["anyOf"]]  # type: ignore[attr-defined]
        return min(options, key=len)
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    types = {
        "object": dict, "array": list, "string": str, "number": int | float, "integer": int,
        "boolean": bool, "null": type(None),
    }  # fmt: skip
    if not any(isinstance(data, types[kind]) for kind in kinds):
        return [f"{place} is no {kinds}"]
    if isinstance(data, list):
        return [
            w for k, item in enumerate(data) for w in _disagreements(schema["items"], item, f"{place}[{k}]")
        ]  # type: ignore[arg-type]
    if not isinstance(data, dict):
        return []
    known: dict[str, dict[str, object]] = schema.get("properties", {})  # type: ignore[assignment]
    remainder = schema.get("additionalProperties")
    found = [f"{place}.{key} is missing" for key in schema.get("required", []) if key not in data]  # type: ignore[attr-defined]
    for key, value in data.items():
        inner = known.get(key, remainder)
        if not isinstance(inner, dict):
            found.append(f"{place}.{key} is unknown")
        else:
            found += _disagreements(inner, value, f"{place}.{key}")
    return found


def test_the_schema_describes_what_is_written(any_content: ReportContent) -> None:
    written = json.loads(json.dumps(any_content.recommendation.to_dict(), allow_nan=False))
    assert _disagreements(recommendation_schema(), written) == []


def test_the_schema_refuses_what_is_not_a_recommendation(builder: ModuleType) -> None:
    data = builder.recommendation().to_dict()
    broken = {**data, "provisional": "perhaps", "guess": 1}
    del broken["goal"]
    assert _disagreements(recommendation_schema(), broken) == [
        "$.goal is missing",
        "$.provisional is no ['boolean']",
        "$.guess is unknown",
    ]


def test_the_schema_explains_every_field_of_the_recommendation() -> None:
    properties = recommendation_schema()["properties"]
    silent = [name for name, kind in properties.items() if "description" not in kind]
    assert silent == ["schema_version"]
    assert Recommendation.__dataclass_fields__.keys() == properties.keys()


@pytest.mark.parametrize("make", [_whole, _single_node_count])
def test_every_drawing_of_the_predictions_marks_the_choice(
    builder: ModuleType, make: Callable[[ModuleType], ReportContent]
) -> None:
    page = report_html(make(builder))
    charts = re.findall(r"<svg[^>]*Predicted time to target by.*?</svg>", page, re.DOTALL)
    assert [chart.count("<title>recommended: 4 nodes, batch 256") for chart in charts] == [1, 0]
    assert all('aria-label="Predicted time to target' in chart for chart in charts)
    assert "</span>recommended</li>" in page


def test_the_same_content_gives_the_same_page(builder: ModuleType) -> None:
    assert report_html(_whole(builder)) == report_html(_whole(builder))


def test_every_color_of_the_charts_has_a_light_and_a_dark_value(builder: ModuleType) -> None:
    page = report_html(_whole(builder))
    light, dark = re.findall(r":root \{(.*?)\}", page, re.DOTALL)
    used = set(re.findall(r"var\(--([a-z0-9-]+)\)", page)) - {"series"}
    assert {"ink", "card", "accent", "shade3"} <= used
    for theme in (light, dark):
        assert used <= set(re.findall(r"--([a-z0-9-]+):", theme))
    assert not re.findall(r'style="[^"]*#', page)


def test_names_that_matplotlib_or_xml_would_misread_are_drawn_as_they_are(builder: ModuleType) -> None:
    goal = _whole(builder).job.goal.model_copy(update={"metric": "a$_b$ <精度>\x07", "direction": "maximize"})
    content = _whole(builder)
    page = _Page(report_html(replace(content, job=content.job.model_copy(update={"goal": goal}))))
    assert page.words.count("a$_b$ <精度>") == 2


def _many_probes(builder: ModuleType, number: int) -> ReportContent:
    made = builder.probes()
    probes = [replace(made[k % len(made)], probe_id=k + 1, trial_number=k) for k in range(number)]
    return builder.content(seen=probes, judged=builder.checked() * (number // 7))


def test_a_page_of_100_probes_is_light(builder: ModuleType) -> None:
    assert len(report_html(_many_probes(builder, 100)).encode()) < 500_000


def test_a_page_of_many_probes_says_what_its_charts_leave_out(builder: ModuleType) -> None:
    text = report_html(_many_probes(builder, 600))
    charts = re.findall(r"<svg[^>]*of every probe against.*?</svg>", text, re.DOTALL)
    assert [chart.count("<title>#") for chart in charts] == [MAX_CURVES, MAX_CURVES]
    assert "shorter curves are not drawn" in text
    assert f"At most {MAX_CHECKS} of the 595 predictions are drawn." in text
    checks = re.findall(r"<svg[^>]*Predicted against measured.*?</svg>", text, re.DOTALL)
    assert 0 < checks[0].count("of the run known; measured") <= 2 * MAX_CHECKS
    assert text.count("<tr>") > 600


def test_matplotlib_is_imported_only_when_a_report_is_written() -> None:
    code = "import sys, tuner.service.reporting; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_report_without_an_answer_shows_the_curves_that_were_read(builder: ModuleType) -> None:
    content = _whole(builder)
    tuning = content.recommendation.tuning
    unanswered = UnansweredContent(
        job=content.job,
        study_name="study",
        created_at=0.0,
        goal="accuracy >= 0.85, soonest",
        reason="the target is out of reach",
        changes=(),
        warnings=(),
        stop_reason="nothing pays back",
        probes=content.probes,
        tuning=tuning,
    )
    page = unanswered_html(unanswered)
    assert "What was trained" in page
    assert "of every probe against training seconds" in page
    assert "thick lines" not in page
