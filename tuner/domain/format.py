"""Formats numbers, durations, prices and configurations as text, such as 1m 32s or $0.42.

NaN and infinity are written as words.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime

from search_spaces import KNOBS, AxisValue, Configuration, traits_of
from tuner.domain.recommendation import Estimate

UNKNOWN = "unknown"
UNREACHABLE = "out of reach"
ABSENT = "–"

#: Maps each axis of the search space that has a title of its own in tables to this title.
_AXIS_TITLES = {
    "nodes": "nodes",
    "machine": "machine",
    "batch_size": "batch size",
    "learning_rate": "learning rate",
    "strategy": "strategy",
}


def format_number(value: float, digits: int = 3) -> str:
    """Formats a number with a given number of significant digits: 0.0512, 12.3, 1,230, 4.2e-05."""
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
    """Formats a duration: 850 µs, 12.3 ms, 9.81 s, 1m 32s, 2h 05m, 3d 4h; infinity as `out of reach`."""
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
    """Formats a duration as a label of a chart axis, without parts that are zero: 20 s, 5m, 1m 30s, 3d."""
    words = format_seconds(seconds)
    parts = [part for part in words.split(" ") if part not in ("00s", "00m", "0h")]
    if len(parts) == 1 and parts[0].endswith("h") and seconds % 86400 == 0:
        return f"{seconds / 86400:.0f}d"
    return " ".join(parts)


def format_dollars(dollars: float | None) -> str:
    """Formats a price: $0.42, $0.0031, $1,230; None as a dash."""
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


def format_node_hours(hours: float) -> str:
    """Formats node hours: 3.2 node hours, 1 node hour; infinity as `out of reach`."""
    if math.isinf(hours):
        return UNREACHABLE
    words = format_number(hours, 2)
    return f"{words} node hour{'' if words == '1' else 's'}"


def format_share(share: float) -> str:
    """Formats a share in [0, 1] as a percentage: 37%, `<1%` for 0.004, `>99%` for 0.996."""
    if math.isnan(share):
        return UNKNOWN
    if 0 < share < 0.01:
        return "<1%"
    if 0.99 < share < 1:
        return ">99%"
    return f"{share * 100:.0f}%"


def format_chance(chance: float) -> str:
    """Formats a predicted probability in [0, 1]: 40%, `below 5%` up to 0.05, `above 95%` from 0.95 on."""
    if math.isnan(chance):
        return UNKNOWN
    if chance <= 0.05:
        return "below 5%"
    if chance >= 0.95:
        return "above 95%"
    return format_share(chance)


def format_ratio(ratio: float) -> str:
    """Formats the ratio of two quantities as a factor: 2.9x, 13x."""
    return f"{ratio:.2g}x" if ratio < 99.5 else f"{ratio:,.0f}x"


def format_count(count: float) -> str:
    """Formats a whole number with a comma after each group of three digits: 12,345."""
    return f"{count:,.0f}" if math.isfinite(count) else UNKNOWN


def format_short_count(count: float) -> str:
    """Formats a count with three significant digits: 200, 5k, 99.8k, 1.5M."""
    for size, character in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{format_number(count / size)}{character}"
    return f"{count:g}"


def format_value(value: float) -> str:
    """Formats a value of the goal's metric with four significant digits."""
    return format_number(value, 4)


def sentence(words: str) -> str:
    """Makes a sentence from words: adds a full stop and capitalizes the first letter.

    A first word that is a name, such as gossip_pull, is not capitalized.
    """
    stripped = words.strip()
    if not stripped:
        return ""
    ended = stripped if stripped.endswith((".", "!", "?", ":", ")")) else f"{stripped}."
    return ended if "_" in ended.split()[0] else f"{ended[0].upper()}{ended[1:]}"


def format_moment(seconds_since_epoch: float) -> str:
    """Formats a point in time, given in seconds since the Unix epoch: 2025-03-01 14:05 UTC."""
    return datetime.fromtimestamp(seconds_since_epoch, UTC).strftime("%Y-%m-%d %H:%M UTC")


def format_axis(value: AxisValue) -> str:
    """Formats a value of one parameter of a configuration; floating-point numbers have three digits."""
    if isinstance(value, bool | str):
        return str(value)
    return format_count(value) if isinstance(value, int) else format_number(value)


def axis_title(axis: str) -> str:
    """Returns the title that a parameter of a configuration has in tables, such as `batch size`."""
    return axis.replace("_", " ") if axis in KNOBS else _AXIS_TITLES.get(axis, axis)


def format_strategy(configuration: Configuration) -> str:
    """Formats a communication strategy with its parameters: gossip_pull (tau 4)."""
    knobs = [
        f"{axis_title(knob)} {format_axis(configuration[knob])}"
        for knob in traits_of(configuration.strategy).knobs
        if knob in configuration
    ]
    return f"{configuration.strategy} ({', '.join(knobs)})" if knobs else configuration.strategy


def format_configuration(configuration: Configuration) -> str:
    """Formats a configuration: 4 nodes, batch 64, learning rate 0.05, gossip_pull (tau 4), depth=18."""
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
    """Formats the 90% interval of a predicted time: 1m 10s to 2m 05s, or 1m 10s to no upper bound."""
    return _interval(estimate, format_seconds)


def format_dollar_interval(estimate: Estimate) -> str:
    """Formats the 90% interval of a predicted price: $0.40 to $0.55."""
    return _interval(estimate, format_dollars)


def format_count_interval(estimate: Estimate) -> str:
    """Formats the 90% interval of a predicted count: 1,200 to 3,400."""
    return _interval(estimate, format_count)


def _interval(estimate: Estimate, shown: Callable[[float], str]) -> str:
    if math.isinf(estimate.lower):
        return UNREACHABLE
    upper = "no upper bound" if math.isinf(estimate.upper) else shown(estimate.upper)
    return f"{shown(estimate.lower)} to {upper}"
