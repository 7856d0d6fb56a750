"""Panels in a grid under one legend: what the figures of `benchmarks.paper` have in common."""

from __future__ import annotations

import re
from collections.abc import Sequence

from benchmarks.svg_plot import Size, text_width

#: By strategy, in the order in which they are drawn.
COLORS = {
    "all_reduce": "#1b3a6b",
    "gossip_pull": "#c1440e",
    "gossip_push": "#2a9d57",
    "elastic_averaging": "#8c52c6",
}
_STYLE = """
svg{font-family:system-ui,sans-serif;font-size:12px;background:#fff}
.grid{stroke:#e4e7eb}.axis{stroke:#7b8794}.tick{fill:#52606d;font-size:10px}.title{fill:#323f4b;font-size:11px}
.label{font-size:12px;font-weight:600}.end{text-anchor:end}.middle{text-anchor:middle}
.line{fill:none;stroke-width:1.6}.heading{font-size:12px;font-weight:600}.small{font-size:11px}
"""
_HEADING, _LEGEND = 22, 34


def style_of(strategy: str) -> str:
    """The class by which a strategy is coloured."""
    return f"s{list(COLORS).index(strategy)}"


def document(width: float, height: float, *parts: str) -> str:
    """A picture by itself."""
    colors = "".join(
        f".{style_of(name)}{{stroke:{color}}}.label.{style_of(name)},.dot.{style_of(name)}"
        f"{{fill:{color};stroke:none}}"
        for name, color in COLORS.items()
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}"><style>{_STYLE}{colors}</style>{"".join(parts)}</svg>\n'
    )


def legend() -> str:
    """The strategies in their colours, in one line."""
    parts, left = [], 12.0
    for name in COLORS:
        style = style_of(name)
        parts.append(f'<circle cx="{left}" cy="16" r="4" class="dot {style}"/>')
        parts.append(f'<text x="{left + 9}" y="20" class="label {style}">{name}</text>')
        left += 34 + text_width(name) * 1.15
    return "".join(parts)


def grid(panels: Sequence[Sequence[tuple[str, str]]], size: Size, head: str) -> str:
    """Rows of panels, each with its heading; an empty panel leaves its place free."""
    parts = [head]
    for row, line in enumerate(panels):
        for column, (heading, inner) in enumerate(line):
            across = column * (size.width + 10)
            down = _LEGEND + row * (size.height + _HEADING)
            # The legend names the marks, once for all panels, which have views of their own.
            inner = re.sub("<title>.*?</title>", "", inner)
            sized = inner.replace("<svg ", f'<svg width="{size.width:g}" height="{size.height:g}" ', 1)
            parts.append(
                f'<g transform="translate({across:g},{down:g})"><text class="heading" x="4" y="14">{heading}'
                f'</text><g transform="translate(0,{_HEADING - 4})">{sized}</g></g>'
            )
    width = max(len(line) for line in panels) * (size.width + 10)
    return document(width, _LEGEND + len(panels) * (size.height + _HEADING), *parts)
