"""Linear and logarithmic axis scales, and their ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0

#: Durations that read well: 1-2-5 below a minute, then what clocks divide by.
_ROUND_DURATIONS = tuple(
    [step * 10.0**exponent for exponent in range(-6, 1) for step in (1, 2, 5)]
    + [10.0, 20.0, 30.0]
    + [_MINUTE * step for step in (1, 2, 5, 10, 20, 30)]
    + [_HOUR * step for step in (1, 2, 5, 12)]
    + [_DAY * step * 10.0**exponent for exponent in range(4) for step in (1, 2, 5)]
)
_ROUNDER_DURATIONS = tuple(
    [step * 10.0**exponent for exponent in range(-6, 2) for step in (1, 3)]
    + [_MINUTE, 3 * _MINUTE, 10 * _MINUTE, 30 * _MINUTE, _HOUR, 3 * _HOUR, 12 * _HOUR]
    + [_DAY * step * 10.0**exponent for exponent in range(4) for step in (1, 3)]
)
_ROUNDEST_DURATIONS = tuple(
    [10.0**exponent for exponent in range(-6, 2)]
    + [_MINUTE, 10 * _MINUTE, _HOUR, 12 * _HOUR]
    + [_DAY * 10.0**exponent for exponent in range(5)]
)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Maps [low, high] onto [start, end] of the page; values beyond are clamped.

    Args:
        low: Value at `start`; above 0 on a logarithmic scale.
        high: Value at `end`, above `low`.
        start: Position of `low`, in pixels.
        end: Position of `high`, in pixels; less than `start` on an upward axis.
        logarithmic: Whether equal distances are equal ratios.
    """

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.logarithmic and self.low <= 0):
            raise ValueError(f"a scale needs low < high (0 < low on a log one), got {self.low}, {self.high}")

    def share(self, value: float) -> float:
        """How far along the axis a value lies, in [0, 1]."""
        clamped = min(max(value, self.low), self.high)
        if self.logarithmic:
            return math.log(clamped / self.low) / math.log(self.high / self.low)
        return (clamped - self.low) / (self.high - self.low)

    def __call__(self, value: float) -> float:
        return self.start + self.share(value) * (self.end - self.start)

    def value_at(self, position: float) -> float:
        """The value that lies at a position: what `__call__` maps back."""
        share = (position - self.start) / (self.end - self.start)
        if self.logarithmic:
            return float(self.low * (self.high / self.low) ** share)
        return self.low + share * (self.high - self.low)


def padded(low: float, high: float, *, logarithmic: bool, share: float = 0.06) -> tuple[float, float]:
    """A domain a little wider than the values, and never empty."""
    if logarithmic:
        ratio = max(high / low, 1.05) ** share
        return low / (ratio * 1.02), high * ratio * 1.02
    width = (high - low) or abs(high) * 0.1 or 1.0
    return low - share * width, high + share * width


def linear_ticks(low: float, high: float, most: int) -> list[float]:
    """Multiples of the smallest 1, 2 or 5 times a power of ten that gives at most `most` (3 or more)."""
    exponent = math.floor(math.log10((high - low) / most)) - 1
    while True:
        for step in (10.0**exponent, 2 * 10.0**exponent, 5 * 10.0**exponent):
            first = math.ceil(low / step - 1e-9)
            last = math.floor(high / step + 1e-9)
            if last - first < most:
                return [float(f"{k * step:.12g}") for k in range(first, last + 1)]
        exponent += 1


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """1-2-5 marks, or 1-3, or whole decades where those are too many; linear ones within one octave."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = [step * 10.0**exponent for exponent in decades for step in (1, 2, 5)]
    medium = [step * 10.0**exponent for exponent in decades for step in (1, 3)]
    coarse = [10.0**exponent for exponent in decades]
    return _fitting(low, high, most, fine, medium, coarse)


def duration_ticks(low: float, high: float, most: int) -> list[float]:
    """Durations that read well on a logarithmic axis of seconds."""
    return _fitting(low, high, most, _ROUND_DURATIONS, _ROUNDER_DURATIONS, _ROUNDEST_DURATIONS)


def _fitting(low: float, high: float, most: int, *ladders: Sequence[float]) -> list[float]:
    inside: list[float] = []
    for ticks in ladders:
        inside = [tick for tick in ticks if low <= tick <= high]
        if len(inside) < 2:
            return linear_ticks(low, high, most)
        if len(inside) <= most:
            return inside
    every = -(-len(inside) // most)
    return inside[::every]


def spread_positions(positions: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions moved as little as a sweep can, so that neighbours are `gap` apart within [low, high].

    Where there are too many to fit, the gap shrinks.
    """
    if not positions:
        return []
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    space = (high - low) / max(len(positions) - 1, 1)
    gap = min(gap, space)
    spread: list[float] = []
    for index in order:
        wanted = min(max(positions[index], low), high)
        spread.append(max(wanted, spread[-1] + gap) if spread else wanted)
    ceiling = high
    for k in range(len(spread) - 1, -1, -1):
        spread[k] = min(spread[k], ceiling)
        ceiling = spread[k] - gap
    moved = [0.0] * len(positions)
    for k, index in enumerate(order):
        moved[index] = spread[k]
    return moved
