"""The figures of `benchmarks.paper`: curves, final accuracies, times to targets, and the map of winners."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.paper_clocks import CLOCKS
from benchmarks.paper_map_figure import map_figure
from benchmarks.paper_panels import COLORS, grid, legend, style_of
from benchmarks.paper_rows import TARGETS, Row
from benchmarks.svg_plot import Axis, Plot, Size, ticks_of
from benchmarks.svg_scales import Scale, duration_ticks, linear_ticks, log_ticks, padded
from tuner.domain.format import format_duration_tick, format_short_count, format_value

_SIZE = Size(name="wide", width=330, height=230, num_ticks=5)
#: Below this accuracy and above this loss curves leave the panel.
_LOWEST_ACCURACY, _HIGHEST_LOSS = 0.5, 1.5

Points = Sequence[tuple[float, float]]
Ticks = Callable[[float, float, int], list[float]]


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """One axis of a panel.

    Args:
        title: What it shows.
        ticks: Where its ticks are.
        words: What is written beside them.
        logarithmic: Whether it is.
        values: Between which it lies, whatever is drawn; None for what is drawn.
    """

    title: str
    ticks: Ticks
    words: Callable[[float], str]
    logarithmic: bool = False
    values: tuple[float, float] | None = None


_ACCURACY = _Axis(title="accuracy", ticks=linear_ticks, words=format_value)
_LOSS = _Axis(title="loss", ticks=log_ticks, words=format_value, logarithmic=True)
_SAMPLES = _Axis(title="samples of all ranks", ticks=log_ticks, words=format_short_count, logarithmic=True)


def _seconds(title: str) -> _Axis:
    return _Axis(title=title, ticks=duration_ticks, words=format_duration_tick, logarithmic=True)


_RANKS = _Axis(
    title="ranks",
    ticks=lambda *_: [8.0, 32.0, 128.0],
    words=format_short_count,
    logarithmic=True,
    values=(8.0, 128.0),
)


def figures(rows: Sequence[Row]) -> dict[str, str]:
    """All figures, by name; curves of the smallest and of the largest rate."""
    own_line = [row for row in rows if row.batch_size == 16 * row.ranks]
    rates = {row.learning_rate for row in own_line}
    drawn = {
        f"curves_rate_{rate:g}": _curves([row for row in own_line if row.learning_rate == rate])
        for rate in sorted({min(rates), max(rates)})
    }
    return {**drawn, "final": _finals(own_line), "targets": _times(own_line), "map": map_figure(rows)}


def _curves(rows: Sequence[Row]) -> str:
    """Accuracy and loss against samples and against each clock: a row of panels for each number of ranks."""
    panels = []
    for ranks in sorted({row.ranks for row in rows}):
        here = [row for row in rows if row.ranks == ranks]
        panels.append(
            [
                (f"{ranks} ranks", _panel(_mean_curves(here, clock, column), across, down, clip=clip))
                for column, down, clip in ((3, _ACCURACY, _LOWEST_ACCURACY), (2, _LOSS, _HIGHEST_LOSS))
                for clock, across in (
                    (None, _SAMPLES),
                    *((name, _seconds(clock.title)) for name, clock in CLOCKS.items()),
                )
            ]
        )
    return grid(panels, _SIZE, legend())


def _mean_curves(rows: Sequence[Row], clock: str | None, column: int) -> dict[str, Points]:
    """By strategy, the mean over seeds of a column of the curve, against samples or a clock's seconds."""
    found: dict[str, Points] = {}
    across = 0 if clock is None else 1
    for name in COLORS:
        curves = [
            row.curve for row in rows if row.strategy == name and row.clock == (clock or next(iter(CLOCKS)))
        ]
        shortest = min((len(curve) for curve in curves), default=0)
        if shortest:
            values = np.array([curve[:shortest] for curve in curves]).mean(axis=0)
            found[name] = [(float(x), float(y)) for x, y in values[:, [across, column]]]
    return found


def _finals(rows: Sequence[Row]) -> str:
    """Final accuracy against ranks, exchanges scheduled on the first clock: a panel a rate, a dot a seed."""
    clock = next(iter(CLOCKS))
    line = []
    for rate in sorted({row.learning_rate for row in rows}):
        here = [row for row in rows if row.learning_rate == rate and row.clock == clock]
        dots = {
            name: [(float(row.ranks), row.final_accuracy) for row in here if row.strategy == name]
            for name in COLORS
        }
        axis = replace(_ACCURACY, title="final accuracy")
        line.append((f"rate {rate:g}", _by_ranks(dots, axis, clip=_LOWEST_ACCURACY)))
    return grid([line], _SIZE, legend())


def _times(rows: Sequence[Row]) -> str:
    """Time to each target against ranks: a row of panels a rate, the targets on each clock side by side."""
    panels = []
    for rate in sorted({row.learning_rate for row in rows}):
        line = []
        for clock, what in CLOCKS.items():
            here = [row for row in rows if row.learning_rate == rate and row.clock == clock]
            for place, target in enumerate(TARGETS):
                dots = {
                    name: [
                        (float(row.ranks), seconds)
                        for row in here
                        if row.strategy == name and (seconds := row.seconds_to_targets[place]) is not None
                    ]
                    for name in COLORS
                }
                axis = _seconds(f"time to {target:g}")
                line.append((f"rate {rate:g}, {what.title}", _by_ranks(dots, axis)))
        panels.append(line)
    return grid(panels, _SIZE, legend())


def _by_ranks(dots: Mapping[str, Points], down: _Axis, clip: float | None = None) -> str:
    if clip is not None:
        dots = {name: [point for point in points if point[1] >= clip] for name, points in dots.items()}
    means: dict[str, list[tuple[float, float]]] = {}
    for name, points in dots.items():
        places = sorted({x for x, _ in points})
        means[name] = [(x, float(np.mean([y for at, y in points if at == x]))) for x in places]
    return _panel(means, _RANKS, down, dots=dots)


def _panel(
    curves: Mapping[str, Points],
    across: _Axis,
    down: _Axis,
    *,
    dots: Mapping[str, Points] | None = None,
    clip: float | None = None,
) -> str:
    """One plot: a line a strategy, and dots of single seeds."""
    lowest = clip if clip is not None and not down.logarithmic else -np.inf
    highest = clip if clip is not None and down.logarithmic else np.inf
    shown = {
        name: [point for point in points if lowest <= point[1] <= highest] for name, points in curves.items()
    }
    all_points = [point for points in (*shown.values(), *(dots or {}).values()) for point in points]
    if not all_points:
        return ""
    x_domain = padded(
        *(across.values or _ends([x for x, _ in all_points])), logarithmic=across.logarithmic, share=0.04
    )
    y_domain = padded(*_ends([y for _, y in all_points]), logarithmic=down.logarithmic)
    plot = Plot(
        size=_SIZE,
        x=Scale(
            low=x_domain[0],
            high=x_domain[1],
            start=52,
            end=_SIZE.width - 12,
            logarithmic=across.logarithmic,
        ),
        y=Scale(
            low=y_domain[0], high=y_domain[1], start=_SIZE.height - 44, end=24, logarithmic=down.logarithmic
        ),
        summary=f"{down.title} against {across.title}",
    )
    plot.axes(
        Axis(title=across.title, ticks=ticks_of(across.ticks(*x_domain, _SIZE.num_ticks), across.words)),
        Axis(title=down.title, ticks=ticks_of(down.ticks(*y_domain, 5), down.words)),
    )
    for name, line in shown.items():
        plot.line(line, style_of(name))
    for name, points in (dots or {}).items():
        for x, y in points:
            plot.point(x, y, style_of(name), name, radius=2.5)
    return str(plot.render())


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)
