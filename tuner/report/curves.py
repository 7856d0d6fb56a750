"""Charts of the metric along the probes: against training seconds and against samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from search_spaces import Configuration
from tuner.domain.format import (
    format_configuration,
    format_count,
    format_duration_tick,
    format_short_count,
    format_value,
)
from tuner.domain.measurement import CurvePoint, Outcome, Purpose
from tuner.job import Job
from tuner.ledger import ProbeRecord
from tuner.report.markup import Markup, joined
from tuner.report.plot import Axis, Plot, Size, text_width, ticks_of
from tuner.report.scales import Scale, duration_ticks, linear_ticks, log_ticks, padded, spread_positions

SIZES = (
    Size(name="wide", width=490, height=340, num_ticks=6),
    Size(name="narrow", width=370, height=320, num_ticks=5),
)

#: More labels than this at the lines' ends cannot be told apart.
_MOST_LABELS = 12


@dataclass(frozen=True, kw_only=True)
class Run:
    """The curve of one probe.

    Args:
        label: Its trial, as the table of probes names it.
        title: What it is, in words.
        batch_size: Of its configuration.
        style: Class of its colour, by batch size.
        points: Finite scorings.
        recommended: Whether it is of the recommended statistics.
        diverged: Whether it ended by diverging.
    """

    label: str
    title: str
    batch_size: int
    style: str
    points: tuple[CurvePoint, ...]
    recommended: bool
    diverged: bool


def runs_of(
    probes: Sequence[ProbeRecord], choice: Configuration | None, shades: Mapping[int, str]
) -> list[Run]:
    """The probes that trained and were scored at least once; `shades` names the colour of a batch size."""
    runs = []
    for probe in probes:
        measurement = probe.measurement
        if measurement is None or probe.purpose is Purpose.TIMING:
            continue
        points = tuple(p for p in measurement.trained_curve if math.isfinite(p.value))
        if not points:
            continue
        what = probe.configuration
        runs.append(
            Run(
                label="" if probe.trial_number is None else f"#{probe.trial_number}",
                title=f"{probe.purpose}: {format_configuration(what)}, {probe.outcome}",
                batch_size=what.batch_size,
                style=shades[what.batch_size],
                points=points,
                recommended=choice is not None and what.without("nodes") == choice.without("nodes"),
                diverged=probe.outcome is Outcome.DIVERGED,
            )
        )
    return runs


def batch_legend(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Colour class and batch size of the runs drawn, smallest batch first."""
    styles = {run.batch_size: run.style for run in runs}
    return [(styles[batch], f"batch {format_count(batch)}") for batch in sorted(styles)]


def curve_charts(runs: Sequence[Run], job: Job) -> tuple[Markup, Markup] | None:
    """The runs against training seconds and against samples; None where nothing was scored."""
    if not runs:
        return None
    by_seconds = [_chart(runs, job, size, seconds=True) for size in SIZES]
    by_samples = [_chart(runs, job, size, seconds=False) for size in SIZES]
    return joined(*by_seconds), joined(*by_samples)


def _chart(runs: Sequence[Run], job: Job, size: Size, *, seconds: bool) -> Markup:
    def across(point: CurvePoint) -> float:
        return point.training_seconds if seconds else float(point.samples)

    places = [across(p) for run in runs for p in run.points if across(p) > 0]
    if not places:
        return Markup("")
    x_domain = padded(min(places), max(places), logarithmic=True, share=0.02)
    y_domain = _value_domain(runs, job)
    labels = [run.label for run in runs]
    right = size.width - max(map(text_width, labels), default=0) - 22
    x = Scale(low=x_domain[0], high=x_domain[1], start=56, end=right, logarithmic=True)
    y = Scale(low=y_domain[0], high=y_domain[1], start=size.height - 46, end=34)
    against = "training seconds" if seconds else "samples"
    plot = Plot(size=size, x=x, y=y, summary=f"{job.goal.metric} of every probe against {against}")
    if seconds:
        x_axis = Axis(
            title="training time",
            ticks=ticks_of(duration_ticks(*x_domain, size.num_ticks), format_duration_tick),
        )
    else:
        x_axis = Axis(
            title="samples seen",
            ticks=ticks_of(log_ticks(*x_domain, size.num_ticks), format_short_count),
        )
    y_axis = Axis(title=job.goal.metric, ticks=ticks_of(linear_ticks(*y_domain, 6), format_value))
    plot.axes(x_axis, y_axis)
    plot.level(job.goal.target, f"target {format_value(job.goal.target)}")
    for run in sorted(runs, key=lambda run: run.recommended):
        _draw(plot, run, across)
    _name_runs(plot, runs, across)
    return plot.render()


def _value_domain(runs: Sequence[Run], job: Job) -> tuple[float, float]:
    # A diverging run's values would flatten all others: it is clamped to the range of the rest.
    steady = [run for run in runs if not run.diverged] or list(runs)
    values = [point.value for run in steady for point in run.points]
    low, high = min(*values, job.goal.target), max(*values, job.goal.target)
    return padded(low, high, logarithmic=False, share=0.08)


def _draw(plot: Plot, run: Run, across: Callable[[CurvePoint], float]) -> None:
    style = " ".join(
        [run.style, "strong" if run.recommended else "medium", *(["dashed"] if run.diverged else [])]
    )
    points = [(across(p), p.value) for p in run.points if across(p) > 0]
    title = f"{run.label} {run.title}".strip()
    plot.line(points, style, title)
    if points:
        plot.point(*points[-1], run.style, f"{title}: {format_value(points[-1][1])}", radius=3.0)


def _name_runs(plot: Plot, runs: Sequence[Run], across: Callable[[CurvePoint], float]) -> None:
    """Names the runs at the right edge, the longest first where there are too many."""
    longest = sorted(runs, key=lambda run: (not run.recommended, -across(run.points[-1])))
    named = [run for run in longest if run.label and across(run.points[-1]) > 0][:_MOST_LABELS]
    wanted = [plot.y(run.points[-1].value) for run in named]
    placement = spread_positions(wanted, 13, plot.y.end + 4, plot.y.start - 4)
    left = plot.x.end + 12
    for run, down in zip(named, placement, strict=True):
        last = run.points[-1]
        plot.leader((plot.x(across(last)) + 5, plot.y(last.value)), (left - 3, down))
        plot.label(left, down + 4, run.label, f"{run.style} strong" if run.recommended else run.style)
