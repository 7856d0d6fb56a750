"""The map of winners and the other tables of `benchmarks.paper`, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.paper_clocks import CLOCKS
from benchmarks.paper_rows import TARGETS, Arrangement, Cell, Comparison, Row, cells
from tuner.domain.format import format_seconds

NEVER = "not reached"


def words_of(arrangement: Arrangement) -> list[str]:
    """Clock, ranks, batch and rate."""
    each = arrangement.batch_size // arrangement.ranks
    batch = f"{arrangement.batch_size:,} ({each} a rank)"
    return [CLOCKS[arrangement.clock].title, str(arrangement.ranks), batch, f"{arrangement.learning_rate:g}"]


def winner_words(cell: Cell) -> str:
    """Who reached the target first, when, how many times before the second, and how sure that is."""
    if not cell.soonest:
        return "none"
    first = cell.soonest[0]
    lead = "alone" if cell.lead is None else f"{cell.lead:.2f}x"
    return f"{first.strategy} {format_seconds(first.mean_seconds)}, {lead}{_doubt(cell, cell.is_clear)}"


def best_words(cell: Cell) -> str:
    """Whose final accuracy is highest, and by how many points."""
    first, second = cell.best[:2]
    ahead = 100 * (first.mean_accuracy - second.mean_accuracy)
    doubt = _doubt(cell, cell.is_clearly_best)
    return f"{first.strategy} {first.mean_accuracy:.3f}, +{ahead:.1f}{doubt}"


def _doubt(cell: Cell, is_clear: bool) -> str:
    if cell.num_seeds < 2:
        return " †"
    return "" if is_clear else " *"


def map_table(rows: Sequence[Row]) -> str:
    """Winners by clock, ranks, batch and rate, to each target and in final accuracy."""
    heads = [f"first to {target:g}" for target in TARGETS]
    lines = [
        f"| clock | ranks | batch | rate | {' | '.join(heads)} | final accuracy |",
        "| --- | ---: | ---: | ---: | " + "--- | " * (len(TARGETS) + 1),
    ]
    for by_target in zip(*(cells(rows, target) for target in TARGETS), strict=True):
        parts = [*words_of(by_target[0].arrangement), *map(winner_words, by_target), best_words(by_target[0])]
        lines.append(f"| {' | '.join(parts)} |")
    lines += [
        "",
        "Seconds to a target, and how many times those the second took; final accuracy, and points over the "
        "second. \\* the seeds of the two overlap. † one seed.",
    ]
    return "\n".join(lines)


def times_table(rows: Sequence[Row]) -> str:
    """Every strategy's seconds to each target, and its final accuracy, with the spread of its seeds."""
    heads = [f"to {target:g}" for target in TARGETS]
    lines = [
        f"| clock | ranks | batch | rate | strategy | {' | '.join(heads)} | final accuracy | seeds |",
        "| --- | ---: | ---: | ---: | --- | " + "---: | " * (len(TARGETS) + 2),
    ]
    by_target = [
        {c.arrangement: {s.strategy: s for s in c.soonest} for c in cells(rows, target)} for target in TARGETS
    ]
    for cell in cells(rows, TARGETS[0]):
        for comparison in sorted(cell.best, key=lambda s: s.strategy):
            times = [_times(reached[cell.arrangement].get(comparison.strategy)) for reached in by_target]
            low, high = min(comparison.accuracies), max(comparison.accuracies)
            accuracy = f"{low:.3f}" if low == high else f"{low:.3f} to {high:.3f}"
            parts = [*words_of(cell.arrangement), comparison.strategy, *times, accuracy]
            lines.append(f"| {' | '.join(parts)} | {len(comparison.accuracies)} |")
    return "\n".join(lines)


def _times(comparison: Comparison | None) -> str:
    if comparison is None:
        return NEVER
    low, high = format_seconds(min(comparison.seconds)), format_seconds(max(comparison.seconds))
    return low if low == high else f"{low} to {high}"
