"""Where the tuning time went: stacked bars that fit any width, each with its legend."""

from __future__ import annotations

from collections.abc import Mapping

from tuner.domain.format import format_dollars, format_seconds, format_share
from tuner.domain.recommendation import TuningCost
from tuner.report.markup import Markup, element
from tuner.report.palette import hues


def spent_words(tuning: TuningCost) -> str:
    """Time and price; if probes ran concurrently, elapsed time comes first."""
    words = format_seconds(tuning.seconds)
    if tuning.elapsed_seconds is not None:
        words = f"{format_seconds(tuning.elapsed_seconds)}, {words} of probes some of which ran at once"
    return f"{words}, {format_dollars(tuning.dollars)}" if tuning.dollars else words


def spending_bar(seconds_by_name: Mapping[str, float], title: str) -> Markup | None:
    """One bar with its legend, the largest part first; None where nothing was spent."""
    parts = sorted(((n, s) for n, s in seconds_by_name.items() if s > 0), key=lambda part: -part[1])
    total = sum(seconds for _, seconds in parts)
    if total <= 0:
        return None
    bars, legend, done = [], [], 0.0
    colors = hues([name for name, _ in parts])
    for name, seconds in parts:
        hue = colors[name]
        share = seconds / total
        words = f"{format_seconds(seconds)}, {format_share(share)}"
        bars.append(
            element(
                "rect",
                element("title", f"{name}: {words}"),
                x=f"{done * 100:.3f}%",
                y=0,
                width=f"{share * 100:.3f}%",
                height=26,
                class_=hue,
            )
        )
        swatch = element("span", class_=f"swatch {hue}")
        legend.append(element("li", swatch, name, element("span", words, class_="muted")))
        done += share
    bar = element("svg", *bars, class_="bar", role="img", aria_label=title, width="100%", height=26)
    return element("div", element("h3", title), bar, element("ul", *legend, class_="legend"))
