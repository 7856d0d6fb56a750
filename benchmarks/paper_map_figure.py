"""The map of winners of `benchmarks.paper` as a picture: a cell a setting, coloured by who is first."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.paper_clocks import CLOCKS
from benchmarks.paper_panels import COLORS, document, legend
from benchmarks.paper_rows import TARGETS, Arrangement, Cell, Row, cells
from tuner.domain.format import format_seconds

_PART, _HEIGHT, _LEFT, _TOP = 74, 62, 160, 106
_WIDTH = (len(TARGETS) + 1) * _PART + 8
_KEY = (
    "Who is first to a target, when, and how many times as long the second takes; who ends most accurate, by "
    "how many points.",
    "Pale: the seeds of the two overlap, or there is one seed.",
)


def map_figure(rows: Sequence[Row]) -> str:
    """Columns are ranks with their batch, rows are clocks with their rate.

    The parts of a cell have the colours of whoever reached each target first, and of the highest final
    accuracy.
    """
    found: dict[Arrangement, list[Cell]] = {}
    for target in TARGETS:
        for cell in cells(rows, target):
            found.setdefault(cell.arrangement, []).append(cell)
    columns = sorted({(s.batch_size != 16 * s.ranks, s.ranks, s.batch_size) for s in found})
    settings = sorted({(list(CLOCKS).index(s.clock), s.clock, s.learning_rate) for s in found})
    parts = [legend()]
    for line, words in enumerate(_KEY):
        parts.append(f'<text x="12" y="{44 + 15 * line}" class="small">{words}</text>')
    heads = [*(f"to {target:g}" for target in TARGETS), "final"]
    for column, (_, ranks, batch_size) in enumerate(columns):
        left = _LEFT + column * _WIDTH
        parts.append(_text(left + _WIDTH / 2, _TOP - 22, f"{ranks} ranks, batch {batch_size:,}", "heading"))
        for place, head in enumerate(heads):
            parts.append(_text(left + (place + 0.5) * _PART, _TOP - 6, head, "small"))
    for row, (_, clock, rate) in enumerate(settings):
        down = _TOP + row * _HEIGHT
        parts.append(f'<text x="12" y="{down + 26}" class="heading">{CLOCKS[clock].title}</text>')
        parts.append(f'<text x="12" y="{down + 44}" class="small">rate {rate:g}</text>')
        for column, (_, ranks, batch_size) in enumerate(columns):
            arrangement = Arrangement(clock=clock, ranks=ranks, batch_size=batch_size, learning_rate=rate)
            if arrangement in found:
                parts.append(_cell(found[arrangement], _LEFT + column * _WIDTH, down))
    return document(_LEFT + len(columns) * _WIDTH + 12, _TOP + len(settings) * _HEIGHT + 12, *parts)


def _cell(by_target: Sequence[Cell], left: float, top: float) -> str:
    parts = []
    for place, cell in enumerate(by_target):
        across = left + place * _PART
        if cell.soonest:
            first = cell.soonest[0]
            lead = f"{cell.lead:.2f}x" if cell.lead else "alone"
            is_sure = cell.num_seeds > 1 and cell.is_clear
            words = (format_seconds(first.mean_seconds), lead)
            parts.append(_part(across, top, first.strategy, is_sure=is_sure, words=words))
        else:
            parts.append(_part(across, top, None, is_sure=False, words=("nobody", "")))
    cell = by_target[0]
    best, second = cell.best[:2]
    ahead = 100 * (best.mean_accuracy - second.mean_accuracy)
    is_sure = cell.num_seeds > 1 and cell.is_clearly_best
    words = (f"{best.mean_accuracy:.3f}", f"+{ahead:.1f}")
    parts.append(_part(left + len(TARGETS) * _PART, top, best.strategy, is_sure=is_sure, words=words))
    return "".join(parts)


def _part(left: float, top: float, strategy: str | None, *, is_sure: bool, words: tuple[str, str]) -> str:
    color = COLORS[strategy] if strategy else "#9aa5b1"
    ink = "#fff" if is_sure else "#323f4b"
    middle = left + _PART / 2
    return (
        f'<rect x="{left:g}" y="{top + 3:g}" width="{_PART}" height="{_HEIGHT - 6}" fill="{color}" '
        f'fill-opacity="{1 if is_sure else 0.35}"/>'
        + _text(middle, top + 28, words[0], "heading", ink)
        + _text(middle, top + 45, words[1], "small", ink)
    )


def _text(middle: float, down: float, words: str, style: str, ink: str = "#323f4b") -> str:
    return f'<text x="{middle:g}" y="{down:g}" class="{style} middle" fill="{ink}">{words}</text>'
