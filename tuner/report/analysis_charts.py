"""Draws the charts of the analysis: trade-offs, batch sizes, learning rates and forecasts of curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from markupsafe import Markup

from tuner.domain.analysis import Analysis, CurveForecast
from tuner.domain.format import (
    format_axis,
    format_chance,
    format_configuration,
    format_count,
    format_count_interval,
    format_dollars,
    format_duration_tick,
    format_node_hours,
    format_number,
    format_seconds,
    format_short_count,
    format_value,
)
from tuner.domain.measurement import CurvePoint
from tuner.domain.recommendation import Alternative
from tuner.report.content import AnalysisContent
from tuner.report.figures import (
    COUNT_TICKS,
    DURATION_TICKS,
    Axis,
    Size,
    color,
    interval,
    linear_ticks,
    log_ticks,
    new_figure,
    padded,
    point,
    style,
    svg,
)

_SIZE = Size(width=420, height=310)
_PANEL = Size(width=250, height=170, num_ticks=3)
#: Maximum number of points of a measured curve in a small chart.
_MOST_POINTS = 24
#: Intervals are cut off at this factor beyond the smallest and largest medians.
_REACH = 4.0
_DASHED = (0, (4, 3))
#: Elements of a small chart: the band of a forecast, its median, the measured curve and its end.
_BAND = Markup('<polygon points="{}" fill="{}" fill-opacity="0.22" />')
_DASHED_LINE = Markup(
    '<polyline points="{}" fill="none" stroke="{}" stroke-width="1.6" stroke-dasharray="6 4" />'
)
_LINE = Markup('<polyline points="{}" fill="none" stroke="{}" stroke-width="2" />')
_DOT = Markup('<circle cx="{}" cy="{}" r="2.5" fill="{}" />')
#: Ticks of costs and rates: powers of ten and their multiples, from fine to coarse.
_VALUE_TICKS = tuple(
    [step * 10.0**exponent for exponent in range(-9, 9) for step in steps]
    for steps in ((1, 2, 5), (1, 3), (1,))
)


def trade_off_chart(analysis: Analysis, landscape: Sequence[Alternative]) -> Markup:
    """Draws time against cost with the Pareto front; empty if it has only one configuration, or one for free.

    The cost is in dollars, or in node hours if nodes have no price.

    Args:
        analysis: The analysis with the Pareto front.
        landscape: Further predictions, which are drawn as small points.
    """
    front = analysis.trade_offs
    if len(front) < 2:
        return Markup("")
    priced = all(item.dollars is not None for item in front)
    costs = [item.dollars.median if item.dollars else item.node_hours.median for item in front]
    if min(costs) <= 0:
        return Markup("")
    others = []
    for a in landscape:
        cost = a.dollars.median if priced and a.dollars else a.seconds.median * a.configuration.nodes / 3600
        if math.isfinite(a.seconds.median) and 0 < cost < math.inf and a.seconds.median > 0:
            others.append((a.seconds.median, cost))
    seconds = [item.seconds.median for item in front]
    low, high = min(seconds), max(seconds)
    others = [o for o in others if o[0] <= high * _REACH and o[1] <= max(costs) * _REACH]
    x_limits = padded(low, max([high, *(o[0] for o in others)]), logarithmic=True)
    y_limits = padded(min(costs), max([*costs, *(o[1] for o in others)]), logarithmic=True)
    shown = format_dollars if priced else format_node_hours
    x = Axis(
        title="time to target", limits=x_limits, ticks=log_ticks(x_limits, 5, DURATION_TICKS),
        label=format_duration_tick, logarithmic=True,
    )  # fmt: skip
    y = Axis(
        title="dollars of one training" if priced else "node hours of one training", limits=y_limits,
        ticks=log_ticks(y_limits, 6, _VALUE_TICKS),
        label=format_dollars if priced else lambda value: format_number(value, 2), logarithmic=True,
    )  # fmt: skip
    with style():
        axes = new_figure(_SIZE, x, y)
        axes.plot([o[0] for o in others], [o[1] for o in others], marker="o", markersize=4, linestyle="none",
                  color=color("ink-2"), alpha=0.45)  # fmt: skip
        axes.plot(seconds, costs, color=color("accent"), linewidth=1.6, drawstyle="steps-post")
        for item, cost in zip(front, costs, strict=True):
            words = format_configuration(item.configuration)
            tip = f"{words}: {format_seconds(item.seconds.median)}, {shown(cost)}"
            point(axes, item.seconds.median, cost, "accent", tip)
            if item.is_choice:
                axes.plot([item.seconds.median], [cost], marker="o", markersize=16, linestyle="none",
                          zorder=5, markerfacecolor="none", markeredgecolor=color("ink"), markeredgewidth=2,
                          gid=f"recommended: {words}")  # fmt: skip
        return svg(axes, _SIZE, "Time to target against the cost of one training, with the best trade-offs")


def batch_chart(analysis: Analysis) -> Markup:
    """Draws the samples to target against the batch size; empty if there are fewer than two batch sizes."""
    found = [item for item in analysis.samples_by_batch if 0 < item.samples.median < math.inf]
    if len(found) < 2:
        return Markup("")
    batches = [item.configuration.batch_size for item in found]
    medians = [item.samples.median for item in found]
    low = min(max(item.samples.lower, item.samples.median / _REACH) for item in found)
    high = max(min(item.samples.upper, item.samples.median * _REACH) for item in found)
    x_limits = padded(min(batches), max(batches), logarithmic=True)
    y_limits = padded(low, high, logarithmic=True)
    x = Axis(
        title="batch size, samples", limits=x_limits, ticks=log_ticks(x_limits, 6, COUNT_TICKS),
        label=format_short_count, logarithmic=True,
    )  # fmt: skip
    y = Axis(
        title="samples to target, with 90% intervals", limits=y_limits,
        ticks=log_ticks(y_limits, 6, COUNT_TICKS), label=format_short_count, logarithmic=True,
    )  # fmt: skip
    with style():
        axes = new_figure(_SIZE, x, y)
        critical = analysis.critical_batch
        if critical is not None and critical.lower < x_limits[1] and critical.upper > x_limits[0]:
            ends = max(critical.lower, x_limits[0]), min(critical.upper, x_limits[1])
            tip = f"critical batch size: about {format_count(critical.median)}"
            axes.axvspan(*ends, color=color("accent"), alpha=0.12, linewidth=0, gid=tip)
            if x_limits[0] < critical.median < x_limits[1]:
                axes.axvline(
                    critical.median, color=color("accent"), linewidth=1.4, linestyle=_DASHED, gid=tip
                )
        axes.plot(batches, medians, color=color("ink"), linewidth=1.6)
        for item in found:
            batch, samples = item.configuration.batch_size, item.samples
            tip = (
                f"batch {format_count(batch)}: {format_count(samples.median)} samples "
                f"({format_count_interval(samples)})"
            )
            interval(axes, batch, (samples.lower, samples.upper), "ink", tip)
            point(axes, batch, samples.median, "ink", tip, hollow=item.measured_samples is None)
        return svg(axes, _SIZE, "Samples to target by batch size, with the critical batch size")


def rates_chart(analysis: Analysis) -> Markup:
    """Draws the probability of reaching the target by batch size and learning rate, and the measured runs."""
    cells = analysis.learning_rates
    rates = sorted({cell.learning_rate for cell in cells})
    batches = sorted({cell.batch_size for cell in cells})
    if len(rates) < 2:
        return Markup("")
    runs = [run for run in analysis.rate_runs if run.batch_size in batches]
    everything = [*rates, *(run.learning_rate for run in runs)]
    ratio = float(np.median(np.divide(rates[1:], rates[:-1]))) ** 0.5
    limits = min(everything) / ratio, max(everything) * ratio
    x = Axis(
        title="batch size, samples", limits=(-0.6, len(batches) - 0.4), ticks=range(len(batches)),
        label=lambda place: format_axis(batches[int(place)]),
    )  # fmt: skip
    y = Axis(
        title="learning rate", limits=limits, ticks=log_ticks(limits, 7, _VALUE_TICKS),
        label=lambda value: format_number(value, 2), logarithmic=True,
    )  # fmt: skip
    with style():
        from matplotlib.patches import PathPatch
        from matplotlib.path import Path

        axes = new_figure(_SIZE, x, y)
        # Cells with about the same probability are one shape, so that the page stays small.
        shapes: dict[float, list[Path]] = {}
        for cell in cells:
            place = batches.index(cell.batch_size)
            own = sorted(other.learning_rate for other in cells if other.batch_size == cell.batch_size)
            left, right, (low, high) = place - 0.46, place + 0.46, _edges(cell.learning_rate, own, ratio)
            corners = [(left, low), (left, high), (right, high), (right, low), (left, low)]
            shapes.setdefault(round(cell.probability_of_reaching, 1), []).append(Path(corners))
        for chance, paths in sorted(shapes.items()):
            tip = f"chance of reaching the target {format_chance(chance)}"
            axes.add_patch(
                PathPatch(
                    Path.make_compound_path(*paths), linewidth=0, facecolor=color("accent"),
                    alpha=0.04 + 0.5 * chance**2, gid=tip,
                )
            )  # fmt: skip
        for cell in cells:
            place, rate = batches.index(cell.batch_size), cell.learning_rate
            if cell.is_best:
                axes.plot([place - 0.4, place + 0.4], [rate, rate], color=color("ink"), linewidth=2,
                          gid=f"fewest samples at batch {format_count(cell.batch_size)}")  # fmt: skip
        for run in runs:
            name = "missed" if run.result == "missed" else "ink"
            number = "" if run.trial_number is None else f"#{run.trial_number} "
            words = f"batch {format_count(run.batch_size)}, rate {format_number(run.learning_rate)}"
            tip = f"{number}{words}: {run.result}"
            place = batches.index(run.batch_size)
            point(axes, place, run.learning_rate, name, tip, hollow=run.result == "open",
                  marker="X" if run.result == "missed" else "o")  # fmt: skip
        return svg(axes, _SIZE, "Chance of reaching the target by batch size and learning rate")


def _edges(rate: float, rates: Sequence[float], ratio: float) -> tuple[float, float]:
    """Returns the lowest and highest learning rate of a cell: its neighbors' cells begin where it ends.

    Args:
        rate: Learning rate of the cell.
        rates: Learning rates of all cells with the same batch size. They may be unevenly spaced, because the
            present settings need not be on the grid.
        ratio: Largest factor from the rate to an edge.
    """
    below = max((other for other in rates if other < rate), default=0.0)
    above = min((other for other in rates if other > rate), default=math.inf)
    return max(rate / ratio, math.sqrt(below * rate)), min(rate * ratio, math.sqrt(above * rate))


def forecast_charts(
    content: AnalysisContent, forecasts: Sequence[CurveForecast], shades: Mapping[int, str]
) -> list[tuple[str, Markup]]:
    """Draws each measured curve with its forecast: pairs of title and small chart.

    All charts have the same axes. They are drawn once, and the curves are added as SVG elements, because one
    matplotlib figure per curve would take a second in all.

    Args:
        content: The measured curves and the target.
        forecasts: The forecasts.
        shades: Maps each batch size to the name of its color.
    """
    curves: dict[int, list[CurvePoint]] = {}
    for forecast in forecasts:
        seen = content.curves.get(forecast.probe_id, ())
        points = [p for p in seen if p.samples > 0 and math.isfinite(p.value)]
        if points:
            every = -(-len(points) // _MOST_POINTS)
            curves[forecast.probe_id] = [*points[:-1:every], points[-1]]
    shown = [forecast for forecast in forecasts if forecast.probe_id in curves]
    if not shown:
        return []
    frame, pixel = _panel_frame(list(curves.values()), shown, content.target)
    found = []
    for place, forecast in enumerate(shown):
        name = f"var(--{shades.get(forecast.configuration.batch_size, 'accent')})"
        points = curves[forecast.probe_id]
        parts = [frame if place == 0 else Markup('<use href="#panel-frame" />')]
        if forecast.points:
            ends = {
                end: [pixel(getattr(p.samples, end), p.value) for p in forecast.points]
                for end in ("lower", "median", "upper")
            }
            band = " ".join([*ends["lower"], *reversed(ends["upper"])])
            parts.append(_BAND.format(band, name))
            parts.append(_DASHED_LINE.format(" ".join(ends["median"]), name))
        line = " ".join(pixel(float(p.samples), p.value) for p in points)
        parts.append(_LINE.format(line, name))
        across, down = pixel(float(points[-1].samples), points[-1].value).split(",")
        parts.append(_DOT.format(across, down, name))
        title = forecast_title(forecast)
        chart = Markup('<svg viewBox="0 0 {} {}" class="chart" role="img" aria-label="{}">{}</svg>').format(
            _PANEL.width, _PANEL.height, f"{content.metric} against samples: {title}", Markup("").join(parts)
        )
        found.append((title, chart))
    return found


def _panel_frame(
    curves: Sequence[Sequence[CurvePoint]], forecasts: Sequence[CurveForecast], target: float
) -> tuple[Markup, Callable[[float, float], str]]:
    """Draws the axes of a small chart, with the target.

    Returns:
        The SVG element of the axes, and a function that returns the pixels of a number of samples and a value
            of the metric as text.
    """
    places = [float(p.samples) for points in curves for p in points]
    ends = [f.points[-1].samples.median for f in forecasts if f.points]
    x_limits = padded(min(places), max([*places, *ends]) * 1.5, logarithmic=True, share=0.03)
    values = [target, *(p.value for points in curves for p in points)]
    y_limits = padded(min(values), max(values), logarithmic=False, share=0.06)
    x = Axis(
        title="", limits=x_limits, ticks=log_ticks(x_limits, 4, COUNT_TICKS), label=format_short_count,
        logarithmic=True,
    )  # fmt: skip
    y = Axis(title="", limits=y_limits, ticks=linear_ticks(y_limits, 4), label=format_value)
    with style():
        axes = new_figure(_PANEL, x, y, compact=True)
        axes.axhline(target, color=color("ink"), linewidth=1, linestyle=_DASHED)
        drawn = svg(axes, _PANEL, "")
        transform = axes.transData
    inner = drawn[drawn.index(">") + 1 : drawn.rindex("</svg>")]

    def pixel(samples: float, value: float) -> str:
        inside = min(max(samples, x_limits[0]), x_limits[1]), min(max(value, y_limits[0]), y_limits[1])
        across, up = transform.transform(inside)
        return f"{across:.1f},{_PANEL.height - up:.1f}"

    return Markup('<g id="panel-frame">{}</g>').format(Markup(inner)), pixel


def forecast_title(forecast: CurveForecast) -> str:
    """Names a curve and how it continues."""
    number = "" if forecast.trial_number is None else f"#{forecast.trial_number} "
    words = {"reached": "reached the target", "missed": "ended or got worse before it"}
    chance = f"chance {format_chance(forecast.probability_of_reaching)}"
    return f"{number}{format_configuration(forecast.configuration)}: {words.get(forecast.result, chance)}"
