"""Formats numbers for people: 1m 32s, $0.42, three significant digits, never a raw NaN or infinity."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime

from search_spaces import KNOBS, AxisValue, Configuration, traits_of
from tuner.domain.recommendation import Estimate

UNKNOWN = "unknown"
UNREACHABLE = "out of reach"
ABSENT = "–"

#: Axes whose words in a sentence are not simply `name=value`.
_AXIS_TITLES = {
    "nodes": "nodes",
    "machine": "machine",
    "batch_size": "batch size",
    "learning_rate": "learning rate",
    "strategy": "strategy",
}


def format_number(value: float, digits: int = 3) -> str:
    """A number to some significant digits: 0.0512, 12.3, 1,230, 4.2e-05."""
    if math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return "unbounded"
    if value == 0:
        return "0"
    if abs(value) < 1e-4 or abs(value) >= 1e9:
        return f"{value:.{digits}g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def format_seconds(seconds: float) -> str:
    """A duration: 850 µs, 12.3 ms, 9.81 s, 1m 32s, 2h 05m, 3d 4h; an infinite one is out of reach."""
    if math.isnan(seconds):
        return UNKNOWN
    if math.isinf(seconds):
        return UNREACHABLE
    if seconds == 0:
        return "0 s"
    if seconds < 0.9995e-3:
        return f"{format_number(seconds * 1e6)} µs"
    if seconds < 0.9995:
        return f"{format_number(seconds * 1e3)} ms"
    if seconds < 59.95:
        return f"{format_number(seconds)} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    minutes = round(seconds / 60)
    if minutes < 48 * 60:
        return f"{minutes // 60}h {minutes % 60:02d}m"
    hours = round(seconds / 3600)
    return f"{hours // 24}d {hours % 24}h"


def format_duration_tick(seconds: float) -> str:
    """A duration for an axis, without parts that are zero: 20 s, 5m, 1m 30s, 2h, 3d."""
    words = format_seconds(seconds)
    parts = [part for part in words.split(" ") if part not in ("00s", "00m", "0h")]
    if len(parts) == 1 and parts[0].endswith("h") and seconds % 86400 == 0:
        return f"{seconds / 86400:.0f}d"
    return " ".join(parts)


def format_dollars(dollars: float | None) -> str:
    """A price: $0.42, $0.0031, $1,230; a dash where there is none."""
    if dollars is None:
        return ABSENT
    if math.isnan(dollars):
        return UNKNOWN
    if math.isinf(dollars):
        return UNREACHABLE
    if dollars == 0:
        return "$0"
    if dollars < 0.1:
        return f"${format_number(dollars, 2)}"
    return f"${dollars:,.2f}" if dollars < 1000 else f"${dollars:,.0f}"


def format_share(share: float) -> str:
    """A share in [0, 1] as per cent; values near 0 or 1 are not rounded to them."""
    if math.isnan(share):
        return UNKNOWN
    if 0 < share < 0.01:
        return "<1%"
    if 0.99 < share < 1:
        return ">99%"
    return f"{share * 100:.0f}%"


def format_chance(chance: float) -> str:
    """A predicted chance in [0, 1]: never nought or certain, since nobody measured it."""
    if math.isnan(chance):
        return UNKNOWN
    if chance <= 0.05:
        return "below 5%"
    if chance >= 0.95:
        return "above 95%"
    return format_share(chance)


def format_ratio(ratio: float) -> str:
    """A factor: 2.9x, 13x."""
    return f"{ratio:.2g}x" if ratio < 99.5 else f"{ratio:,.0f}x"


def format_count(count: float) -> str:
    """A count: 12,345."""
    return f"{count:,.0f}" if math.isfinite(count) else UNKNOWN


def format_short_count(count: float) -> str:
    """A count for an axis: 200, 5k, 20k, 1.5M."""
    for size, character in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:g}{character}"
    return f"{count:g}"


def format_value(value: float) -> str:
    """A value of the metric, to four significant digits."""
    return format_number(value, 4)


def sentence(words: str) -> str:
    """Words as a sentence: a capital letter, but not in a name like gossip_pull, and a full stop."""
    stripped = words.strip()
    if not stripped:
        return ""
    ended = stripped if stripped.endswith((".", "!", "?", ":", ")")) else f"{stripped}."
    return ended if "_" in ended.split()[0] else f"{ended[0].upper()}{ended[1:]}"


def format_moment(seconds_since_epoch: float) -> str:
    """A moment: 2025-03-01 14:05 UTC."""
    return datetime.fromtimestamp(seconds_since_epoch, UTC).strftime("%Y-%m-%d %H:%M UTC")


def format_axis(value: AxisValue) -> str:
    """The value of an axis; numbers as short as they can be without changing them much."""
    if isinstance(value, bool | str):
        return str(value)
    return format_count(value) if isinstance(value, int) else format_number(value)


def axis_title(axis: str) -> str:
    """How an axis is called in a table."""
    return axis.replace("_", " ") if axis in KNOBS else _AXIS_TITLES.get(axis, axis)


def format_strategy(configuration: Configuration) -> str:
    """A strategy with its knobs: gossip_pull (tau 4)."""
    knobs = [
        f"{axis_title(knob)} {format_axis(configuration[knob])}"
        for knob in traits_of(configuration.strategy).knobs
        if knob in configuration
    ]
    return f"{configuration.strategy} ({', '.join(knobs)})" if knobs else configuration.strategy


def format_configuration(configuration: Configuration) -> str:
    """A configuration in words: 4 nodes, batch 64, learning rate 0.05, gossip_pull (tau 4), depth=18."""
    words = []
    knobs = traits_of(configuration.strategy).knobs if "strategy" in configuration else {}
    for axis, value in configuration.items():
        shown = format_axis(value)
        if axis == "nodes":
            words.append(f"{shown} node" if value == 1 else f"{shown} nodes")
        elif axis == "batch_size":
            words.append(f"batch {shown}")
        elif axis == "learning_rate":
            words.append(f"learning rate {shown}")
        elif axis == "strategy":
            words.append(format_strategy(configuration))
        elif axis == "machine":
            words.append(shown)
        elif axis not in knobs:
            words.append(f"{axis}={shown}")
    return ", ".join(words)


def format_interval(estimate: Estimate) -> str:
    """The 90% interval of a time: 1m 10s to 2m 05s; one without an end says so."""
    return _interval(estimate, format_seconds)


def format_dollar_interval(estimate: Estimate) -> str:
    """The 90% interval of a price."""
    return _interval(estimate, format_dollars)


def _interval(estimate: Estimate, shown: Callable[[float], str]) -> str:
    if math.isinf(estimate.lower):
        return UNREACHABLE
    upper = "no upper bound" if math.isinf(estimate.upper) else shown(estimate.upper)
    return f"{shown(estimate.lower)} to {upper}"
