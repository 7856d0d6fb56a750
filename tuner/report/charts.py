"""Draws the charts of the report: predicted and measured times to target, and metric curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from search_spaces import Configuration
from tuner.advice.interval_check import estimate_of
from tuner.domain.format import (
    format_axis,
    format_chance,
    format_configuration,
    format_count,
    format_duration_tick,
    format_interval,
    format_seconds,
    format_share,
    format_short_count,
    format_value,
)
from tuner.domain.ledger import EARLY_SHARE, PredictedAgainstMeasured, ProbeRecord
from tuner.domain.measurement import CurvePoint, Outcome, Purpose
from tuner.domain.recommendation import Alternative, Estimate, Recommendation
from tuner.job import Job
from tuner.report.figures import (
    COUNT_TICKS,
    DURATION_TICKS,
    NUM_SHADES,
    Axis,
    Size,
    color,
    interval,
    label_ends,
    linear_ticks,
    log_ticks,
    new_figure,
    padded,
    point,
    style,
    svg,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Two sizes of a chart that is as wide as the page. The chart is drawn twice, for wide pages and for phones.
_LANDSCAPE_SIZES = (
    Size(width=1000, height=400, shown_on="wide"),
    Size(width=370, height=340, shown_on="narrow"),
)
_CURVES_SIZE = Size(width=420, height=310)
_CHECKED_SIZE = Size(width=420, height=370)

#: An axis reaches at most from the smallest median divided by this factor to the largest median multiplied by
#: this factor. Intervals are cut off there, because one very wide interval would compress all others.
_INTERVAL_REACH = 4.0
#: Maximum numbers of metric curves and of predictions in a chart; more would be unreadable.
MAX_CURVES, MAX_CHECKS = 60, 120
_MAX_CURVE_POINTS, _MAX_LABELS = 80, 12
_DASHED, _DOTTED = (0, (5, 4)), (0, (1.5, 2))
#: Predictions of the same run are drawn side by side. Their maximum total width and their distance, in
#: pixels.
_RUN_PIXELS, _CHECK_PIXELS = 54.0, 9.0


def batch_shades(probes: Sequence[ProbeRecord], landscape: Sequence[Alternative] = ()) -> dict[int, str]:
    """Maps each batch size to the name of its color in all charts; larger batch sizes are darker."""
    predicted = {alternative.configuration.batch_size for alternative in landscape}
    trained = {p.configuration.batch_size for p in probes if p.purpose is not Purpose.TIMING}
    return shades_of(predicted | trained)


def shades_of(batch_sizes: Collection[int]) -> dict[int, str]:
    """Maps each of some batch sizes to the name of its color; larger batch sizes are darker."""
    batches = sorted(batch_sizes)
    last = len(batches) - 1
    if last < 1:
        return dict.fromkeys(batches, f"shade{NUM_SHADES - 2}")
    return {batch: f"shade{round(k * (NUM_SHADES - 1) / last)}" for k, batch in enumerate(batches)}


def landscape_charts(
    landscape: Sequence[Alternative], recommendation: Recommendation, shades: Mapping[int, str]
) -> list[tuple[str, Markup]]:
    """Draws the predicted time to target against the number of nodes, one chart per strategy.

    A line is drawn for each batch size. If all predictions have the same number of nodes, the horizontal axis
    shows the batch size instead.

    Args:
        landscape: Predictions for each number of nodes, batch size and strategy.
        recommendation: The recommendation; its configuration and the present settings are marked.
        shades: Maps each batch size to the name of its color.

    Returns:
        Pairs of strategy and chart; empty if no prediction is finite.
    """
    answers = [recommendation.choice, *([recommendation.baseline] if recommendation.baseline else [])]
    finite = [a for a in (*landscape, *answers) if _is_drawable(a.seconds)]
    if not any(a in landscape for a in finite):
        return []
    limits = _interval_limits([a.seconds for a in finite])
    return [
        (
            strategy,
            Markup("").join(
                _landscape_chart(
                    [a for a in landscape if a.configuration.strategy == strategy],
                    recommendation, shades, limits, size,
                )
                for size in _LANDSCAPE_SIZES
            ),
        )
        for strategy in dict.fromkeys(a.configuration.strategy for a in landscape)
    ]  # fmt: skip


def _is_drawable(seconds: Estimate) -> bool:
    return 0 < seconds.median < math.inf


def _interval_limits(estimates: Sequence[Estimate], values: Sequence[float] = ()) -> tuple[float, float]:
    """Returns the limits of a logarithmic axis on which all medians and values fit.

    Intervals that are much wider are cut off at these limits.
    """
    centers = [*(e.median for e in estimates), *values]
    low, high = min(centers), max(centers)
    lowest = min(max(e.lower, low / _INTERVAL_REACH) for e in estimates)
    highest = max(min(e.upper, high * _INTERVAL_REACH) for e in estimates)
    return padded(min(lowest, low), max(highest, high), logarithmic=True)


def _landscape_chart(
    members: Sequence[Alternative],
    recommendation: Recommendation,
    shades: Mapping[int, str],
    limits: tuple[float, float],
    size: Size,
) -> Markup:
    strategy = members[0].configuration.strategy
    nodes = sorted({a.configuration.nodes for a in members})
    batches = sorted({a.configuration.batch_size for a in members})
    by_nodes = len(nodes) > 1
    values = nodes if by_nodes else batches
    # Batch sizes are drawn beside each other on the same number of nodes.
    step = 0.6 / max(len(batches), 5)
    offsets = {batch: step * (k - (len(batches) - 1) / 2) for k, batch in enumerate(batches)}

    def place(alternative: Alternative) -> float | None:
        """Returns the horizontal position of a configuration; None if it is not in this chart."""
        what = alternative.configuration
        if what.nodes not in nodes or what.strategy != strategy or not _is_drawable(alternative.seconds):
            return None
        if by_nodes:
            return values.index(what.nodes) + offsets.get(what.batch_size, 0.0)
        return float(values.index(what.batch_size)) if what.batch_size in values else None

    nodes_words = f"{format_count(nodes[0])} node{'' if nodes[0] == 1 else 's'}"
    x = Axis(
        title="nodes" if by_nodes else f"batch size, samples ({nodes_words})",
        limits=(-0.5, len(values) - 0.5),
        ticks=range(len(values)),
        label=lambda tick: format_axis(values[int(tick)]),
    )
    y = _duration_axis("predicted time to target, with 90% intervals", limits, most=7)
    labels = [f"{'' if size.shown_on == 'narrow' else 'batch '}{format_count(batch)}" for batch in batches]
    with style():
        axes = new_figure(size, x, y, right=30 + 7 * max(map(len, labels)) if by_nodes else 16)
        if by_nodes:
            choice = recommendation.choice.configuration
            ends = []
            for batch, label in zip(batches, labels, strict=True):
                series = _series_of([a for a in members if a.configuration.batch_size == batch], place)
                if series:
                    bold = (batch, strategy) == (choice.batch_size, choice.strategy)
                    _draw_series(axes, series, shades[batch], bold=bold)
                    ends.append((series[-1][0], series[-1][1].seconds.median, label, shades[batch]))
            label_ends(axes, ends)
        else:
            _draw_series(axes, _series_of(members, place), "accent", bold=True)
        _draw_answer(axes, recommendation, place)
        what = "number of nodes, one line per batch size" if by_nodes else f"batch size on {nodes_words}"
        return svg(axes, size, f"Predicted time to target by {what}: {strategy}")


def _series_of(
    members: Sequence[Alternative], place: Callable[[Alternative], float | None]
) -> list[tuple[float, Alternative]]:
    """Returns the alternatives that can be drawn in a chart, from left to right.

    Each is a pair of its horizontal position and the alternative.
    """
    drawn = [(at, a) for a in members if (at := place(a)) is not None]
    return sorted(drawn, key=lambda pair: pair[0])


def _draw_series(axes: Axes, series: Sequence[tuple[float, Alternative]], name: str, *, bold: bool) -> None:
    axes.plot(
        [at for at, _ in series], [a.seconds.median for _, a in series], color=color(name),
        linewidth=3 if bold else 1.6, alpha=1 if bold else 0.75,
    )  # fmt: skip
    for at, a in series:
        tip = (
            f"{format_configuration(a.configuration)}: {format_seconds(a.seconds.median)}, 90% interval "
            f"{format_interval(a.seconds)}, chance of reaching the target "
            f"{format_chance(a.probability_of_reaching)}"
        )
        interval(axes, at, (a.seconds.lower, a.seconds.upper), name, tip, bold=bold)
        point(axes, at, a.seconds.median, name, tip, hollow=a.probability_of_reaching < 0.5)


def _draw_answer(
    axes: Axes, recommendation: Recommendation, place: Callable[[Alternative], float | None]
) -> None:
    """Draws a ring around the recommended configuration, and a diamond for the present settings."""
    choice, baseline = recommendation.choice, recommendation.baseline
    at = None if baseline is None else place(baseline)
    if baseline is not None and at is not None and baseline.configuration != choice.configuration:
        tip = f"present settings: {format_configuration(baseline.configuration)}"
        interval(axes, at, (baseline.seconds.lower, baseline.seconds.upper), "ink", tip)
        point(axes, at, baseline.seconds.median, "ink", tip, hollow=True, marker="D")
    at = place(choice)
    if at is not None:
        axes.plot(
            [at], [choice.seconds.median], marker="o", markersize=18, linestyle="none", zorder=5,
            markerfacecolor="none", markeredgecolor=color("ink"), markeredgewidth=2.2,
            gid=f"recommended: {format_configuration(choice.configuration)}",
        )  # fmt: skip


def _duration_axis(title: str, limits: tuple[float, float], most: int) -> Axis:
    ticks = log_ticks(limits, most, DURATION_TICKS)
    return Axis(title=title, limits=limits, ticks=ticks, label=format_duration_tick, logarithmic=True)


def unreachable_words(landscape: Sequence[Alternative]) -> list[str]:
    """Returns sentences on predictions with an infinite median or upper end, which charts cannot show."""
    several = len({a.configuration.strategy for a in landscape}) > 1

    def place(alternative: Alternative) -> str:
        what = alternative.configuration
        nodes = "1 node" if what.nodes == 1 else f"{what.nodes} nodes"
        return f"{f'{what.strategy}, ' if several else ''}batch {format_count(what.batch_size)} on {nodes}"

    never = [a for a in landscape if not math.isfinite(a.seconds.median)]
    open_ended = [a for a in landscape if math.isfinite(a.seconds.median) and math.isinf(a.seconds.upper)]
    words = []
    if never:
        places = "; ".join(f"{place(a)} ({format_chance(a.probability_of_reaching)})" for a in never)
        words.append(
            f"Not drawn, since the target is probably out of reach (chance of reaching it): {places}."
        )
    if open_ended:
        words.append(f"Without an upper bound (arrow): {'; '.join(map(place, open_ended))}.")
    return words


@dataclass(frozen=True, kw_only=True)
class Curve:
    """The metric curve of one probe.

    Args:
        probe: The probe (training of one configuration) that was scored.
        points: The probe's evaluations with a finite metric value.
        color: Name of the color of the probe's batch size.
        recommended: Whether the probe has the recommended configuration, on any number of nodes.
    """

    probe: ProbeRecord
    points: tuple[CurvePoint, ...]
    color: str
    recommended: bool

    @property
    def label(self) -> str:
        """Number of the probe's trial, as in the table of probes; empty if the probe is not a trial."""
        return "" if self.probe.trial_number is None else f"#{self.probe.trial_number}"

    @property
    def diverged(self) -> bool:
        """Whether the training diverged."""
        return self.probe.outcome is Outcome.DIVERGED


def curves_of(
    probes: Sequence[ProbeRecord], choice: Configuration | None, shades: Mapping[int, str]
) -> list[Curve]:
    """Returns the metric curves of the probes that were scored, without probes that only timed steps.

    Args:
        probes: All probes of the study.
        choice: The recommended configuration; None if there is none.
        shades: Maps each batch size to the name of its color.
    """
    curves = []
    for probe in probes:
        what, seen = probe.configuration, probe.measurement
        if seen is None or probe.purpose is Purpose.TIMING:
            continue
        if seen.finite_values:
            points = tuple(p for p in seen.trained_curve if math.isfinite(p.value))
            recommended = choice is not None and what.without("nodes") == choice.without("nodes")
            shade = shades[what.batch_size]
            curves.append(Curve(probe=probe, points=points, color=shade, recommended=recommended))
    return curves


def curve_charts(curves: Sequence[Curve], job: Job) -> list[Markup]:
    """Draws the metric against training time and against the number of samples processed.

    At most `MAX_CURVES` curves are drawn: curves of the recommended configuration are preferred, then curves
    with the longest training time. The result is empty if no probe was scored.
    """
    ranked = sorted(curves, key=lambda curve: (not curve.recommended, -curve.points[-1].training_seconds))
    shown = ranked[:MAX_CURVES]
    drawn = [_curves_chart(shown, job, by_seconds=by_seconds) for by_seconds in (True, False)]
    return [chart for chart in drawn if chart]


def _curves_chart(curves: Sequence[Curve], job: Job, *, by_seconds: bool) -> Markup:
    def across(at: CurvePoint) -> float:
        return at.training_seconds if by_seconds else float(at.samples)

    places = [across(p) for curve in curves for p in curve.points if across(p) > 0]
    if not places:
        return Markup("")
    x_limits = padded(min(places), max(places), logarithmic=True, share=0.02)
    # If the limits included the values of diverged runs, all other curves would be compressed.
    steady = [curve for curve in curves if not curve.diverged] or curves
    values = [job.goal.target, *(p.value for curve in steady for p in curve.points)]
    y_limits = padded(min(values), max(values), logarithmic=False, share=0.08)
    if by_seconds:
        x = _duration_axis("training time", x_limits, most=_CURVES_SIZE.num_ticks)
    else:
        ticks = log_ticks(x_limits, _CURVES_SIZE.num_ticks, COUNT_TICKS)
        x = Axis(
            title="samples seen", limits=x_limits, ticks=ticks, label=format_short_count, logarithmic=True
        )
    y = Axis(title=job.goal.metric, limits=y_limits, ticks=linear_ticks(y_limits, 6), label=format_value)
    with style():
        right = 30 + 8 * max(len(curve.label) for curve in curves)
        axes = new_figure(_CURVES_SIZE, x, y, right=right)
        axes.axhline(job.goal.target, color=color("ink"), linewidth=1, linestyle=_DASHED)
        axes.annotate(
            f"target {format_value(job.goal.target)}", (0, job.goal.target), (6, 5), color=color("ink"),
            xycoords=("axes fraction", "data"), textcoords="offset points", weight="bold", zorder=6,
        )  # fmt: skip
        ends = []
        for curve in reversed(curves):
            points = [p for p in curve.points if across(p) > 0]
            if not points:
                continue
            tip = (
                f"{curve.label} {curve.probe.purpose}: {format_configuration(curve.probe.configuration)}, "
                f"{curve.probe.outcome}: {format_value(points[-1].value)}"
            )
            heights = [min(max(p.value, y_limits[0]), y_limits[1]) for p in points]
            every = -(-len(points) // _MAX_CURVE_POINTS)
            chosen = [*range(0, len(points) - 1, every), len(points) - 1]
            axes.plot(
                [across(points[k]) for k in chosen], [heights[k] for k in chosen], color=color(curve.color),
                linewidth=3 if curve.recommended else 1.6, gid=tip.strip(),
                linestyle=_DOTTED if curve.diverged else "-",
            )  # fmt: skip
            axes.plot(
                [across(points[-1])],
                [heights[-1]],
                marker="o",
                markersize=5,
                linestyle="none",
                color=color(curve.color),
            )
            ends.append((across(points[-1]), heights[-1], curve.label, curve.color))
        label_ends(axes, [end for end in reversed(ends) if end[2]][:_MAX_LABELS])
        against = "training seconds" if by_seconds else "samples"
        return svg(axes, _CURVES_SIZE, f"{job.goal.metric} of every probe against {against}")


def checked_chart(checked: Sequence[PredictedAgainstMeasured]) -> Markup:
    """Draws predicted times to target against measured times; returns an empty text if none can be drawn.

    If there are more than `MAX_CHECKS` predictions, only every second one (or every third, and so on) is
    drawn.
    """
    found = [
        (check, estimate)
        for check in checked
        if (estimate := estimate_of(check.prediction.quantiles)) is not None
        and _is_drawable(estimate)
        and check.measured_seconds > 0
    ]
    shown = found[:: -(-len(found) // MAX_CHECKS)] if found else []
    if not shown:
        return Markup("")
    limits = _interval_limits([estimate for _, estimate in shown], [c.measured_seconds for c, _ in shown])
    size = _CHECKED_SIZE
    with style():
        x = _duration_axis("measured", limits, most=size.num_ticks)
        y = _duration_axis("predicted, with 90% intervals", limits, most=size.num_ticks)
        axes = new_figure(size, x, y)
        axes.plot(
            limits, limits, color=color("ink-2"), linewidth=1.2, linestyle=_DASHED,
            gid="predicted = measured",
        )  # fmt: skip
        ratio = (limits[1] / limits[0]) ** (1 / axes.bbox.width)
        pixels = _aside([check for check, _ in shown])
        for (check, estimate), aside in zip(shown, pixels, strict=True):
            inside = estimate.lower <= check.measured_seconds <= estimate.upper
            tip = (
                f"{format_configuration(check.prediction.configuration)}: predicted "
                f"{format_seconds(estimate.median)} ({format_interval(estimate)}) with "
                f"{format_share(check.share_observed)} of the run known; measured "
                f"{format_seconds(check.measured_seconds)}"
            )
            name = "accent" if inside else "missed"
            at = check.measured_seconds * ratio**aside
            interval(axes, at, (estimate.lower, estimate.upper), name, tip)
            point(axes, at, estimate.median, name, tip, hollow=check.share_observed > EARLY_SHARE)
        return svg(axes, size, "Predicted against measured time to target")


def _aside(checked: Sequence[PredictedAgainstMeasured]) -> list[float]:
    """Returns the horizontal offset of each prediction in pixels, which puts those of one run side by side.

    A prediction that was made earlier in the run is further left.
    """
    runs: dict[float, list[int]] = {}
    for position, check in enumerate(checked):
        runs.setdefault(check.measured_seconds, []).append(position)
    pixels = [0.0] * len(checked)
    for members in runs.values():
        members.sort(key=lambda position: checked[position].share_observed)
        gap = min(_CHECK_PIXELS, _RUN_PIXELS / len(members))
        for order, position in enumerate(members):
            pixels[position] = gap * (order - (len(members) - 1) / 2)
    return pixels
