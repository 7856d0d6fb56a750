"""The figure of `benchmarks.convergence`: four panels, curves by strategy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.svg_plot import Axis, Plot, Size, ticks_of
from benchmarks.svg_scales import Scale, duration_ticks, linear_ticks, log_ticks, padded, spread_positions
from tuner.domain.format import format_duration_tick, format_short_count, format_value

_PANEL = Size(name="wide", width=620, height=400, num_ticks=6)
_COLORS = ("#1b3a6b", "#c1440e", "#2a9d57", "#8c52c6", "#d99a00", "#0f8ea8", "#b0306a", "#5b6770")
_STYLE = """
svg{font-family:system-ui,sans-serif;font-size:12px;background:#fff}
.grid{stroke:#e4e7eb}.axis{stroke:#7b8794}.level{stroke:#7b8794;stroke-dasharray:4 4}
.tick{fill:#52606d;font-size:11px}.title{fill:#323f4b}.label{font-size:11px;font-weight:600}
.end{text-anchor:end}.middle{text-anchor:middle}.line{fill:none;stroke-width:1.8}.heading{font-size:14px;font-weight:600}
.leader{stroke:#cbd2d9}
"""


def figure(found: Mapping[str, Any]) -> str:
    """All runs as one SVG: undelayed and delayed, against training time and against samples."""
    names = list(dict.fromkeys(run["strategy"] for run in found["runs"]))
    color = {name: _COLORS[place % len(_COLORS)] for place, name in enumerate(names)}
    style = _STYLE + "".join(
        f".c{place}{{stroke:{c}}}.label.c{place},.dot.c{place}{{fill:{c};stroke:none}}"
        for place, c in enumerate(color.values())
    )
    panels = []
    for row, is_delayed in enumerate((False, True)):
        runs = [run for run in found["runs"] if (run["delay_rank"] is not None) == is_delayed]
        for column, seconds in enumerate((True, False)):
            if runs:
                inner = _panel(runs, names, found, seconds=seconds)
                heading = "one rank delayed by U[0, 300] ms a step" if is_delayed else "no rank delayed"
                across, down = column * (_PANEL.width + 20), row * (_PANEL.height + 50)
                panels.append(
                    f'<g transform="translate({across},{down})"><text class="heading" x="4" y="16">{heading}'
                    f'</text><g transform="translate(0,26)">{inner}</g></g>'
                )
    width, height = 2 * _PANEL.width + 20, 2 * (_PANEL.height + 50)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}"><style>{style}</style>{"".join(panels)}</svg>\n'
    )


def _panel(
    runs: Sequence[Mapping[str, Any]], names: Sequence[str], found: Mapping[str, Any], *, seconds: bool
) -> str:
    axis = "training_seconds" if seconds else "samples"
    curves = {
        run["strategy"]: [(point[axis], point["value"]) for point in run["curve"] if point["samples"] > 0]
        for run in runs
    }
    places = [x for curve in curves.values() for x, _ in curve if x > 0]
    values = [value for curve in curves.values() for _, value in curve]
    x_domain = padded(min(places), max(places), logarithmic=True, share=0.02)
    y_domain = padded(min(values), max(*values, found["target"]), logarithmic=False)
    plot = Plot(
        size=_PANEL,
        x=Scale(low=x_domain[0], high=x_domain[1], start=56, end=_PANEL.width - 130, logarithmic=True),
        y=Scale(low=y_domain[0], high=y_domain[1], start=_PANEL.height - 46, end=34),
        summary=f"{found['metric']} by strategy against {axis}",
    )
    ticks = (
        ticks_of(duration_ticks(*x_domain, _PANEL.num_ticks), format_duration_tick)
        if seconds
        else ticks_of(log_ticks(*x_domain, _PANEL.num_ticks), format_short_count)
    )
    title = "training time (scoring left out)" if seconds else "samples seen by all ranks"
    plot.axes(
        Axis(title=title, ticks=ticks),
        Axis(title=found["metric"], ticks=ticks_of(linear_ticks(*y_domain, 6), format_value)),
    )
    plot.level(found["target"], f"target {format_value(found['target'])}")
    drawn = [name for name in names if curves.get(name)]
    wanted = [plot.y(curves[name][-1][1]) for name in drawn]
    placement = spread_positions(wanted, 14, plot.y.end + 4, plot.y.start - 4)
    for name, down in zip(drawn, placement, strict=True):
        style = f"c{names.index(name)}"
        plot.line(curves[name], style, name)
        last = curves[name][-1]
        plot.point(*last, style, name, radius=3.0)
        left = plot.x.end + 10
        plot.leader((plot.x(last[0]) + 4, plot.y(last[1])), (left - 3, down))
        plot.label(left, down + 4, name, style)
    text = str(plot.render())
    # Panels are groups of one picture, each with its own view.
    return text.replace("<svg ", f'<svg width="{_PANEL.width:g}" height="{_PANEL.height:g}" ', 1)


__all__ = ["figure"]
