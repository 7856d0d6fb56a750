"""The chart of predicted time to target by nodes, one line a batch size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuner.domain.format import (
    format_axis,
    format_chance,
    format_configuration,
    format_count,
    format_duration_tick,
    format_interval,
    format_seconds,
)
from tuner.domain.recommendation import Alternative, Recommendation
from tuner.report.markup import Markup, joined
from tuner.report.plot import Axis, Plot, Size, text_width, ticks_of
from tuner.report.scales import Scale, duration_ticks, padded, spread_positions

SIZES = (
    Size(name="wide", width=1000, height=400, num_ticks=8),
    Size(name="narrow", width=370, height=340, num_ticks=5),
)

#: Bars are cut off at so many times the medians' range, so that one wide interval does not flatten the rest.
_BAR_LENGTH = 4.0

#: Bold words are wider than `text_width` says by this factor.
_BOLD = 1.12


@dataclass(frozen=True, kw_only=True)
class _Series:
    label: str
    style: str
    offset: float
    points: list[tuple[float, Alternative]]


def landscape_charts(
    landscape: Sequence[Alternative], recommendation: Recommendation, shades: Mapping[int, str]
) -> list[tuple[str, Markup]]:
    """A chart a strategy, with its name; none where no prediction is finite.

    Where only one number of nodes may be chosen, batch sizes take the horizontal axis.
    `shades` names the colour of each batch size.
    """
    marked = [recommendation.choice, *([recommendation.baseline] if recommendation.baseline else [])]
    finite = [a for a in (*landscape, *marked) if math.isfinite(a.seconds.median) and a.seconds.median > 0]
    if not any(a in landscape for a in finite):
        return []
    domain = _domain(finite)
    charts = []
    for strategy in dict.fromkeys(a.configuration.strategy for a in landscape):
        members = [a for a in landscape if a.configuration.strategy == strategy]
        drawn = (_chart(members, recommendation, shades, domain, size) for size in SIZES)
        charts.append((strategy, joined(*drawn)))
    return charts


def unreachable_words(landscape: Sequence[Alternative]) -> list[str]:
    """Sentences on what the chart cannot show: no finite median, or no upper bound."""
    never = [a for a in landscape if not math.isfinite(a.seconds.median)]
    open_ended = [a for a in landscape if math.isfinite(a.seconds.median) and math.isinf(a.seconds.upper)]
    several = len({a.configuration.strategy for a in landscape}) > 1
    words = []

    def place(alternative: Alternative) -> str:
        strategy = f"{alternative.configuration.strategy}, " if several else ""
        return f"{strategy}{_place(alternative)}"

    if never:
        places = "; ".join(f"{place(a)} ({format_chance(a.probability_of_reaching)})" for a in never)
        words.append(
            f"Not drawn, since the target is probably out of reach (chance of reaching it): {places}."
        )
    if open_ended:
        places = "; ".join(place(a) for a in open_ended)
        words.append(f"Without an upper bound (arrow): {places}.")
    return words


def _place(alternative: Alternative) -> str:
    configuration = alternative.configuration
    nodes = "1 node" if configuration.nodes == 1 else f"{configuration.nodes} nodes"
    return f"batch {format_count(configuration.batch_size)} on {nodes}"


def _domain(finite: Sequence[Alternative]) -> tuple[float, float]:
    low = min(a.seconds.median for a in finite)
    high = max(a.seconds.median for a in finite)
    lowest = min(max(a.seconds.lower, low / _BAR_LENGTH) for a in finite)
    highest = max(min(a.seconds.upper, high * _BAR_LENGTH) for a in finite)
    return padded(min(lowest, low), max(highest, high), logarithmic=True)


def _chart(
    members: Sequence[Alternative],
    recommendation: Recommendation,
    shades: Mapping[int, str],
    domain: tuple[float, float],
    size: Size,
) -> Markup:
    nodes = sorted({a.configuration.nodes for a in members})
    batches = sorted({a.configuration.batch_size for a in members})
    by_nodes = len(nodes) > 1
    values = nodes if by_nodes else batches
    labels = [_series_label(batch, size) for batch in batches] if by_nodes else []
    right = size.width - (max(map(text_width, labels), default=0) + 26)
    x = Scale(low=-0.5, high=len(values) - 0.5, start=60, end=right)
    y = Scale(low=domain[0], high=domain[1], start=size.height - 46, end=34, logarithmic=True)
    what = "number of nodes, one line a batch size" if by_nodes else f"batch size on {_nodes_words(nodes[0])}"
    plot = Plot(size=size, x=x, y=y, summary=f"Predicted time to target by {what}")
    plot.axes(
        Axis(
            title="nodes" if by_nodes else f"batch size, samples ({_nodes_words(nodes[0])})",
            ticks=[(float(k), format_axis(value)) for k, value in enumerate(values)],
        ),
        Axis(
            title="predicted time to target, with 90% intervals",
            ticks=ticks_of(duration_ticks(*domain, 7), format_duration_tick),
        ),
    )
    series = _series(members, values, shades, by_nodes, size)
    for one in series:
        _draw(plot, one, emphasised=not by_nodes or _is_of_choice(one, recommendation))
    if by_nodes:
        _name_series(plot, series)
    _add_points(plot, recommendation, values, series, by_nodes)
    return plot.render()


def _nodes_words(nodes: int) -> str:
    return "1 node" if nodes == 1 else f"{format_count(nodes)} nodes"


def _series_label(batch: int, size: Size) -> str:
    return format_count(batch) if size.is_narrow else f"batch {format_count(batch)}"


def _series(
    members: Sequence[Alternative],
    values: Sequence[int],
    shades: Mapping[int, str],
    by_nodes: bool,
    size: Size,
) -> list[_Series]:
    if not by_nodes:
        points = [(float(values.index(a.configuration.batch_size)), a) for a in members]
        return [_Series(label="", style="accent", offset=0.0, points=_drawable(points))]
    found = []
    batches = sorted({a.configuration.batch_size for a in members})
    for position, batch in enumerate(batches):
        offset = 0.6 * (position - (len(batches) - 1) / 2) / max(len(batches), 5)
        points = [
            (values.index(a.configuration.nodes) + offset, a)
            for a in members
            if a.configuration.batch_size == batch
        ]
        found.append(
            _Series(
                label=_series_label(batch, size), style=shades[batch], offset=offset, points=_drawable(points)
            )
        )
    return found


def _drawable(points: Sequence[tuple[float, Alternative]]) -> list[tuple[float, Alternative]]:
    shown = [(x, a) for x, a in points if math.isfinite(a.seconds.median) and a.seconds.median > 0]
    return sorted(shown, key=lambda point: point[0])


def _is_of_choice(series: _Series, recommendation: Recommendation) -> bool:
    choice = recommendation.choice.configuration
    return any(
        (a.configuration.batch_size, a.configuration.strategy) == (choice.batch_size, choice.strategy)
        for _, a in series.points
    )


def _draw(plot: Plot, series: _Series, *, emphasised: bool) -> None:
    weight = "strong" if emphasised else "faint"
    plot.line([(x, a.seconds.median) for x, a in series.points], f"{series.style} {weight}")
    for x, alternative in series.points:
        seconds = alternative.seconds
        title = (
            f"{format_configuration(alternative.configuration)}: "
            f"{format_seconds(seconds.median)}, 90% interval {format_interval(seconds)}, "
            f"chance of reaching the target {format_chance(alternative.probability_of_reaching)}"
        )
        plot.interval(x, seconds.lower, seconds.upper, f"{series.style} {weight}", title)
        likely = alternative.probability_of_reaching >= 0.5
        plot.point(x, seconds.median, series.style if likely else f"{series.style} hollow", title)


def _name_series(plot: Plot, series: Sequence[_Series]) -> None:
    named = [one for one in series if one.points]
    wanted = [plot.y(one.points[-1][1].seconds.median) for one in named]
    positions = spread_positions(wanted, 15, plot.y.end + 4, plot.y.start - 4)
    left = plot.x.end + 10
    for one, down in zip(named, positions, strict=True):
        x, alternative = one.points[-1]
        start = (plot.x(x) + 6, plot.y(alternative.seconds.median))
        plot.leader(start, (left - 3, down))
        plot.label(left, down + 4, one.label, one.style)


def _add_points(
    plot: Plot,
    recommendation: Recommendation,
    values: Sequence[int],
    series: Sequence[_Series],
    by_nodes: bool,
) -> None:
    baseline = recommendation.baseline
    if baseline is not None and baseline.configuration != recommendation.choice.configuration:
        place = _where(baseline, values, series, by_nodes)
        if place is not None:
            title = f"present settings: {format_configuration(baseline.configuration)}"
            plot.interval(place, baseline.seconds.lower, baseline.seconds.upper, "ink faint", title)
            plot.diamond(place, baseline.seconds.median, "ink", title)
            _caption(plot, place, baseline, "present settings", series)
    choice = recommendation.choice
    place = _where(choice, values, series, by_nodes)
    if place is not None:
        title = f"recommended: {format_configuration(choice.configuration)}"
        plot.point(place, choice.seconds.median, "ring", title, radius=9)
        _caption(plot, place, choice, "recommended", series)


def _where(
    alternative: Alternative, values: Sequence[int], series: Sequence[_Series], by_nodes: bool
) -> float | None:
    configuration = alternative.configuration
    members = [a.configuration for one in series for _, a in one.points]
    if not math.isfinite(alternative.seconds.median):
        return None
    if configuration.strategy not in {member.strategy for member in members}:
        return None
    if not by_nodes and configuration.nodes not in {member.nodes for member in members}:
        return None
    value = configuration.nodes if by_nodes else configuration.batch_size
    if value not in values:
        return None
    offset = 0.0
    if by_nodes:
        same = [
            s.offset
            for s in series
            if s.points and s.points[0][1].configuration.batch_size == configuration.batch_size
        ]
        offset = same[0] if same else 0.0
    return values.index(value) + offset


def _caption(
    plot: Plot, place: float, alternative: Alternative, words: str, series: Sequence[_Series]
) -> None:
    """Writes words beside a marker, or at an end of its interval: where they cover least."""
    across, down = plot.x(place), plot.y(alternative.seconds.median)
    width = _BOLD * text_width(words)
    sideways, over, under = 16.0 + width / 2, -16.0, 24.0
    near = [
        (across + sideways, down + 4),
        (across, down + over),
        (across, down + under),
        (across - sideways, down + 4),
    ]
    ends = [(across, plot.y(alternative.seconds.upper) - 8), (across, plot.y(alternative.seconds.lower) + 18)]
    spots = [
        (_num_covered(plot, (x, y), width, series) + penalty, number, x, y)
        for number, (x, y, penalty) in enumerate(
            [(*spot, 0) for spot in near] + [(*spot, 2) for spot in ends]
        )
        if plot.x.start <= x - width / 2
        and x + width / 2 <= plot.x.end
        and plot.y.end + 8 <= y <= plot.y.start - 2
    ]
    _, _, x, y = min(spots, default=(0, 0, across, down + over))
    plot.label(x, y, words, "strong middle halo")


def _num_covered(plot: Plot, spot: tuple[float, float], width: float, series: Sequence[_Series]) -> int:
    """How many intervals words at a place would lie on, each marker counting three."""
    x, y = spot
    covered = 0
    for one in series:
        for at, alternative in one.points:
            if abs(plot.x(at) - x) <= width / 2 + 4:
                seconds = alternative.seconds
                top, middle, bottom = (plot.y(v) for v in (seconds.upper, seconds.median, seconds.lower))
                covered += (top <= y and y - 11 <= bottom) + 3 * (y - 19 <= middle <= y + 9)
    return covered
