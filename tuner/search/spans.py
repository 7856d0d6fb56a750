"""Time spans, and the length of their union."""

from __future__ import annotations

from collections.abc import Iterable

#: Start and end of a time span, in seconds of one clock.
Span = tuple[float, float]


def covered(spans: Iterable[Span]) -> float:
    """Computes how much time the given time spans cover together, in seconds; overlaps count once.

    Args:
        spans: The time spans, in any order.
    """
    total, end = 0.0, float("-inf")
    for begin, until in sorted(spans):
        if until > end:
            total += until - max(begin, end)
            end = until
    return total
