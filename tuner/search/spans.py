"""Spans of time, and how long all of them take where they overlap."""

from __future__ import annotations

from collections.abc import Iterable

#: From when to when, seconds of one clock.
Span = tuple[float, float]


def covered(spans: Iterable[Span]) -> float:
    """Length of all that any of the spans covers."""
    total, end = 0.0, float("-inf")
    for begin, until in sorted(spans):
        if until > end:
            total += until - max(begin, end)
            end = until
    return total
