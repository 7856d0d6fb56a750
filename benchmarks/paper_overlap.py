"""What if an all-reduce hid behind compute better, or not at all? Only seconds change; nothing is trained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from benchmarks.paper_clocks import CLOCKS
from benchmarks.paper_rows import Row, reseconded
from benchmarks.paper_train import Run, prices, trained_of
from tuner.emulation import emulation


def with_overlap(rows: Iterable[Row], overlap: float) -> list[Row]:
    """The rows, those of all-reduce with the seconds of another overlap exponent; 1 is no overlap."""
    return [_repriced(row, overlap) if row.strategy == "all_reduce" else row for row in rows]


def _repriced(row: Row, overlap: float) -> Row:
    run = Run(
        strategy=row.strategy,
        ranks=row.ranks,
        batch_size=row.batch_size,
        learning_rate=row.learning_rate,
        seed=row.seed,
        clock=row.clock,
        samples=row.curve[-1][0],
    )
    trained = trained_of(run, CLOCKS[row.clock])
    cluster = replace(trained.cluster, overlap=overlap)
    empty = emulation(replace(trained, cluster=cluster, computes=False))
    return reseconded(row, prices(empty, [samples for samples, *_ in row.curve]))
