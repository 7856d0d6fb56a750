"""Computes the chart of the metric curves of a job, with the forecast of its best configuration."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from tuner.domain.format import format_duration_tick, format_value
from tuner.domain.measurement import CurvePoint, Outcome
from tuner.domain.study_reads import ProbeSummary
from tuner.server.page_progress import Best, configuration_words

#: Number of colors of curves; the curves that trained longest get one each.
NUM_COLORS = 6
#: Maximum number of curves, and of points of each.
MAX_CURVES, MAX_POINTS = 24, 120
#: The time axis reaches at most this factor beyond the measured curves and the median of the forecast.
_FORECAST_REACH = 1.5
_DURATIONS = (
    *(1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30),
    *(60 * minutes for minutes in (1, 2, 5, 10, 15, 30)),
    *(3600 * hours for hours in (1, 2, 3, 6, 12, 24, 48, 96, 240, 480, 960)),
)


@dataclass(frozen=True, kw_only=True)
class Series:
    """One curve.

    Args:
        probe: Number of the probe.
        words: The configuration in words.
        color: Class of the color.
        points: Pairs of training seconds and metric, in order.
        is_best: Whether the probe has the best configuration so far.
        is_running: Whether a slice of the probe is running.
    """

    probe: int
    words: str
    color: str
    points: tuple[tuple[float, float], ...]
    is_best: bool
    is_running: bool


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A tick of an axis: its position in pixels and its label."""

    at: float
    label: str


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A curve in pixels.

    Args:
        series: What is drawn.
        path: The line, as the attribute `points` of a polyline.
        ends: Position of the last point.
    """

    series: Series
    path: str
    ends: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """The forecast of the best configuration in pixels.

    Args:
        color: Class of the color.
        left: Position of the lower end of the interval.
        right: Position of the upper end; at the edge of the chart if it lies beyond.
        is_open: Whether the upper end lies beyond the chart.
        median: Position of the median; None if it lies beyond the chart.
        start: Position from which a dashed line leads to the median; None if there is no curve.
    """

    color: str
    left: float
    right: float
    is_open: bool
    median: float | None
    start: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart in pixels.

    Args:
        size: `wide` or `narrow`, for wide pages and for phones.
        width: Width.
        height: Height.
        left: Left edge of the plot.
        right: Right edge.
        top: Upper edge.
        bottom: Lower edge.
        x_ticks: Ticks of training time.
        y_ticks: Ticks of the metric.
        target: Vertical position of the target.
        target_label: The target in words.
        curves: The curves; the best one last, so that it is drawn on top.
        forecast: The forecast; None before a score was measured, or after the target was reached.
    """

    size: str
    width: int
    height: int
    left: float
    right: float
    top: float
    bottom: float
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    target: float
    target_label: str
    curves: tuple[Curve, ...]
    forecast: Forecast | None


def series_of(
    probes: Sequence[ProbeSummary],
    curves: Mapping[int, Sequence[CurvePoint]],
    slices: Sequence[Mapping[str, Any]],
    best: Best | None,
) -> list[Series]:
    """Returns the curves of the probes that were scored; those that trained longest come first.

    A running slice adds its newest score to the curve of its probe.
    """
    live = {s.get("probe"): s for s in slices}
    chosen = None if best is None else dict(best.configuration)
    found = []
    for probe in probes:
        trained = [p for p in curves.get(probe.probe_id, ()) if p.samples > 0 and math.isfinite(p.value)]
        points = [(p.training_seconds, p.value) for p in trained]
        newest = live.get(probe.probe_id)
        if newest is not None:
            seconds, score = newest.get("training_seconds"), newest.get("score")
            if _is_number(seconds) and _is_number(score) and (not points or seconds > points[-1][0]):
                points.append((float(seconds), float(score)))
        if points:
            found.append((probe, points))
    found.sort(key=lambda pair: -pair[1][-1][0])
    return [
        Series(
            probe=probe.probe_id,
            words=configuration_words(probe.configuration.as_dict()),
            color=f"series{k}" if k < NUM_COLORS else "series-other",
            points=tuple(points),
            is_best=chosen is not None and dict(probe.configuration.as_dict()) == chosen,
            is_running=probe.probe_id in live,
        )
        for k, (probe, points) in enumerate(found[:MAX_CURVES])
    ]


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def charts(
    series: Sequence[Series], best: Best | None, target: float, metric: str, diverged: frozenset[int]
) -> list[Chart]:
    """Returns the chart in two sizes; nothing if no score was measured.

    Args:
        series: The curves.
        best: The best configuration so far, with the forecast of its time to target.
        target: Target value of the metric.
        metric: Name of the metric.
        diverged: Numbers of the probes that diverged. Their values do not widen the axis.
    """
    if not series:
        return []
    steady = [s for s in series if s.probe not in diverged] or series
    values = [target, *(value for s in steady for _, value in s.points)]
    seconds = max(at for s in series for at, _ in s.points)
    if best is not None and math.isfinite(best.seconds.median):
        reach = max(seconds, best.seconds.median)
        seconds = max(reach, min(best.seconds.high, _FORECAST_REACH * reach))
    margin = 0.08 * (max(values) - min(values)) or 0.05 * abs(target) or 1.0
    limits = (min(values) - margin, max(values) + margin)
    label = f"target: {metric} {format_value(target)}"
    return [
        _chart(size, width, height, series, best, target, label, 1.04 * seconds or 1.0, limits)
        for size, width, height in (("wide", 1000, 360), ("narrow", 360, 280))
    ]


def diverged_probes(probes: Sequence[ProbeSummary]) -> frozenset[int]:
    """Returns the numbers of the probes that diverged."""
    return frozenset(probe.probe_id for probe in probes if probe.outcome is Outcome.DIVERGED)


def _chart(
    size: str,
    width: int,
    height: int,
    series: Sequence[Series],
    best: Best | None,
    target: float,
    target_label: str,
    seconds: float,
    limits: tuple[float, float],
) -> Chart:
    left, right, top, bottom = 52.0, width - 14.0, 14.0, height - 40.0
    low, high = limits

    def x(at: float) -> float:
        return round(left + (right - left) * min(at / seconds, 1.0), 1)

    def y(value: float) -> float:
        # Values of runs that diverged may lie far away; the drawing ends at the edges.
        share = min(max((value - low) / (high - low), -5.0), 5.0)
        return round(bottom - (bottom - top) * share, 1)

    most = 8 if size == "wide" else 4
    step = next((d for d in _DURATIONS if seconds / d <= most), seconds)
    x_ticks = [
        Tick(at=x(k * step), label=format_duration_tick(k * step)) for k in range(int(seconds / step) + 1)
    ]
    curves = [
        Curve(
            series=s,
            path=" ".join(f"{x(at)},{y(value)}" for at, value in s.points),
            ends=(x(s.points[-1][0]), y(s.points[-1][1])),
        )
        for s in sorted(series, key=lambda s: s.is_best)
    ]
    return Chart(
        size=size,
        width=width,
        height=height,
        left=left,
        right=right,
        top=top,
        bottom=bottom,
        x_ticks=tuple(x_ticks),
        y_ticks=tuple(Tick(at=y(value), label=format_value(value)) for value in _round_values(low, high)),
        target=y(target),
        target_label=target_label,
        curves=tuple(curves),
        forecast=_forecast(curves, best, seconds, x),
    )


def _forecast(
    curves: Sequence[Curve], best: Best | None, seconds: float, x: Callable[[float], float]
) -> Forecast | None:
    if best is None or best.is_measured or not best.seconds.low < seconds:
        return None
    own = next((curve for curve in curves if curve.series.is_best), None)
    median = best.seconds.median
    return Forecast(
        color="series-other" if own is None else own.series.color,
        left=x(best.seconds.low),
        right=x(best.seconds.high),
        is_open=best.seconds.high > seconds,
        median=x(median) if median <= seconds else None,
        start=None if own is None else own.ends,
    )


def _round_values(low: float, high: float, most: int = 6) -> list[float]:
    """Returns at most `most` round values between two values."""
    raw = (high - low) / most
    ten = 10.0 ** math.floor(math.log10(raw))
    step = next(step for step in (ten, 2 * ten, 5 * ten, 10 * ten) if step >= raw)
    first = math.ceil(low / step)
    return [k * step for k in range(first, math.floor(high / step) + 1)]
